"""What a training that is tracked leaves in MLflow, however it ends. The numbers are the rows of the fault matrix."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_injection import Interposer, Operation, fill
from faulty_training import AtEpoch, all_warnings
from torch import Tensor, nn

from gymtrain import CallbackError, NonFiniteLossError, Trainer, TrainingError, register
from gymtrain.tracking import run_in
from gymtrain_trackers import read_journal, sync

pytestmark = pytest.mark.slow

Mount = Callable[[str], Path]


@register("model", "net_with_trouble")
class Net(nn.Module):
    """Raises, or gives outputs that are no numbers, in its fifth training step."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, trouble: str) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], output_size)
        self.trouble, self.steps = trouble, 0

    def forward(self, rows: Tensor) -> Tensor:
        outputs: Tensor = self.layer(rows)
        self.steps += self.training
        if self.steps < 5:
            return outputs
        if self.trouble == "raise":
            raise ValueError("this step is odd")
        return outputs * math.nan


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root for all, whose tests tell their runs apart by the experiment: a new database costs seconds."""
    return tmp_path_factory.mktemp("tracked runs")


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "-", request.node.name).strip("-")


def make_trainer(
    root: Path, experiment: str, model: Any = "linear", place: Path | None = None, **training: Any
) -> Trainer:
    """Return a trainer that logs the loss of each of its steps, of which an epoch has four.

    Args:
        root: Where the database is.
        experiment: Of the run.
        model: Of the spec.
        place: Where the run is, if not beside the database.
        training: Of the spec.
    """
    return Trainer(
        dataset={"dataset": "iris"},
        model={"model": model, "training": {"epochs": 3, "batch_size": 24, "validation_split": 0.2, **training}},
        tracking={
            "root": str(place or root),
            "experiment": experiment,
            "trackers": [{"type": "mlflow", "tracking_uri": f"sqlite:///{root / 'mlflow.db'}"}],
            "log_every_n_steps": 1,
            "log_system_metrics": False,
            "log_figures": False,
        },
    )


def run_of(root: Path, experiment: str) -> Path:
    (journal,) = root.glob(f"{experiment}/*/journal.jsonl")
    return journal.parent


def in_mlflow(root: Path, directory: Path) -> tuple[str, list[tuple[str, int, float, int]]]:
    """Return the status of a run and each row that the database has of its metrics: name, step, value and time."""
    (start,) = (entry for entry in read_journal(directory / "journal.jsonl") if entry["verb"] == "start")
    database = sqlite3.connect(root / "mlflow.db")
    try:
        of_run = "SELECT run_uuid FROM tags WHERE key = 'gymtrain.run_id' AND value = ?"
        ((status,),) = database.execute(f"SELECT status FROM runs WHERE run_uuid IN ({of_run})", [start["id"]])
        rows = database.execute(
            f"SELECT key, step, value, timestamp FROM metrics WHERE run_uuid IN ({of_run})", [start["id"]]
        ).fetchall()
    finally:
        database.close()
    return status, sorted(rows)


def in_journal(directory: Path) -> list[tuple[str, int, float, int]]:
    entries = read_journal(directory / "journal.jsonl")
    points = (point for entry in entries for point in entry.get("metrics", []))
    return sorted(
        (name, step, value, int(when * 1000)) for name, value, step, when in points if math.isfinite(float(value))
    )


def steps_of_losses(directory: Path) -> list[int]:
    return [step for name, step, *_ in in_journal(directory) if name == "batch/loss"]


def result_of(directory: Path) -> tuple[str, str]:
    result = json.loads((directory / "result.json").read_text())
    return result["status"], result["stop_reason"]


SCRIPT = """
import os, signal, sys, warnings
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from test_tracked_runs import make_trainer
from gymtrain import Callback

class Signals(Callback):
    def on_epoch_end(self, state):
        if state.epoch == 2:
            for number in eval(sys.argv[3]):
                os.kill(os.getpid(), number)

    def on_step_end(self, state):
        print(state.step, flush=True)

make_trainer(Path(sys.argv[1]), sys.argv[2], epochs=1_000_000).train([Signals()])
"""


def start(root: Path, experiment: str, signals: list[int]) -> subprocess.Popen[str]:
    """Start a training without end in a process of its own, which sends itself signals at the end of its epoch 2."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, str(root), experiment, repr(signals), str(here), str(here.parents[1])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# F48


@pytest.mark.parametrize(
    ("training", "reason"),
    [({}, "epochs"), ({"epochs": 50, "early_stopping": {"patience": 1, "min_delta": 0.5}}, "early_stopping")],
    ids=["normal", "early stop"],
)
def test_a_training_that_ends_well_is_finished(root: Path, experiment: str, training: dict[str, Any], reason: str):
    make_trainer(root, experiment, **training).train()

    directory = run_of(root, experiment)
    assert result_of(directory) == ("FINISHED", reason)
    assert in_mlflow(root, directory) == ("FINISHED", in_journal(directory))


@pytest.mark.parametrize(
    ("trouble", "error", "reason"), [("raise", ValueError, "error"), ("nan", NonFiniteLossError, "nan")]
)
def test_a_training_that_a_model_ends_is_failed(root: Path, experiment: str, trouble: str, error: Any, reason: str):
    with pytest.raises((TrainingError, error)):
        make_trainer(root, experiment, {"type": "net_with_trouble", "trouble": trouble}).train()

    directory = run_of(root, experiment)
    assert result_of(directory) == ("FAILED", reason)
    assert in_mlflow(root, directory) == ("FAILED", in_journal(directory))
    assert steps_of_losses(directory)[:4] == [1, 2, 3, 4]


def test_a_training_that_a_callback_ends_is_failed(root: Path, experiment: str):
    with pytest.raises(CallbackError, match="division by zero"):
        make_trainer(root, experiment).train([AtEpoch(2, lambda: 1 / 0)])

    directory = run_of(root, experiment)
    assert result_of(directory) == ("FAILED", "error")
    assert in_mlflow(root, directory) == ("FAILED", in_journal(directory))
    assert steps_of_losses(directory) == list(range(1, 9))


@pytest.mark.parametrize(
    ("signals", "code", "reason"),
    [
        ([signal.SIGINT], -signal.SIGINT, "interrupt"),
        ([signal.SIGINT] * 2, -signal.SIGINT, "interrupt"),
        ([signal.SIGTERM], 143, "signal"),
    ],
    ids=["SIGINT", "SIGINT twice", "SIGTERM"],
)
def test_a_training_that_is_told_to_end_is_killed(
    root: Path, experiment: str, signals: list[signal.Signals], code: int, reason: str
):
    process = start(root, experiment, [int(number) for number in signals])
    _, errors = process.communicate(timeout=120)

    assert process.returncode == code, errors
    directory = run_of(root, experiment)
    assert result_of(directory) == ("KILLED", reason)
    assert in_mlflow(root, directory) == ("KILLED", in_journal(directory))
    assert steps_of_losses(directory) == list(range(1, len(steps_of_losses(directory)) + 1))


def test_a_training_whose_process_died_is_killed_by_the_next_training(root: Path, experiment: str):
    process = start(root, experiment, [int(signal.SIGKILL)])
    process.communicate(timeout=120)
    directory = run_of(root, experiment)

    make_trainer(root, f"{experiment}-next").train()

    assert process.returncode == -signal.SIGKILL
    assert in_mlflow(root, directory) == ("KILLED", in_journal(directory))
    assert run_in(directory).status == "DIED"
    assert not (directory / "result.json").exists()
    assert result_of(run_of(root, f"{experiment}-next")) == ("FINISHED", "epochs")


# F13, F48
def test_a_training_whose_disk_is_full_is_finished(root: Path, experiment: str, disk: Mount):
    place = disk("size=256k")
    trainer = make_trainer(root, experiment, place=place, epochs=60)

    with all_warnings() as told:
        result = trainer.train([AtEpoch(2, lambda: fill(place))])

    assert len([message for message in told if "the result is in trainer.result alone" in message]) == 1
    status, rows = in_mlflow(root, run_of(place, experiment))
    assert status == result["status"] == "FINISHED"
    assert [step for name, step, *_ in rows if name == "batch/loss"] == list(range(1, 60 * 4 + 1))


# F15, F48
def test_a_training_whose_directory_becomes_read_only_is_finished(root: Path, experiment: str):
    refused: list[str] = []

    def refuse(_: int, operation: Operation) -> None:
        if operation.kind in ("create", "mkdir", "rename", "unlink"):  # what is open already may be written to
            refused.append(Path(operation.path).name)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), operation.path)

    with contextlib.ExitStack() as stack, all_warnings() as told:
        read_only = Interposer(lambda path: f"/{experiment}/" in path, refuse)
        trainer = make_trainer(root, experiment, checkpoint={})
        result = trainer.train([AtEpoch(2, lambda: stack.enter_context(read_only))])

    directory = run_of(root, experiment)
    assert refused
    assert len([message for message in told if "the result is in trainer.result alone" in message]) == 1
    assert result["status"] == "FINISHED"
    assert not (directory / "result.json").exists()
    assert in_mlflow(root, directory) == ("FINISHED", in_journal(directory))
    assert steps_of_losses(directory) == list(range(1, 13))


# F47
@pytest.mark.parametrize("seed", range(4))
def test_a_training_killed_at_any_moment_is_in_mlflow_once_after_a_sync(root: Path, experiment: str, seed: int):
    generator = random.Random(seed)
    process = start(root, experiment, [])
    for _ in range(generator.randrange(1, 1000)):
        process.stdout.readline()
    time.sleep(generator.uniform(0, 0.02))
    process.kill()
    process.communicate()
    directory = run_of(root, experiment)

    for _ in range(2):
        assert sync(directory).undelivered == {"mlflow": 0}
        assert in_mlflow(root, directory) == ("KILLED", in_journal(directory))

    steps = steps_of_losses(directory)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 0


# F34
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("ending", ["at once", "by an exception"])
def test_a_fork_in_the_middle_of_a_training_stores_nothing_twice(root: Path, experiment: str, ending: str):
    codes = []

    def fork() -> None:
        child = os.fork()
        if child == 0 and ending == "at once":
            os._exit(0)
        if child == 0:
            raise ValueError("only in the child")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    trainer, parent = make_trainer(root, experiment), os.getpid()
    try:
        result = trainer.train([AtEpoch(2, fork)])
    finally:
        if os.getpid() != parent:
            os._exit(7)

    directory = run_of(root, experiment)
    assert codes == [0 if ending == "at once" else 7]
    assert result_of(directory) == (result["status"], "epochs") == ("FINISHED", "epochs")
    assert in_mlflow(root, directory) == ("FINISHED", in_journal(directory))
    assert steps_of_losses(directory) == list(range(1, 13))


def test_workers_of_a_training_store_nothing_twice(root: Path, experiment: str):
    here, workers = psutil.Process(), []

    trainer = make_trainer(root, experiment, workers=2)
    trainer.train([AtEpoch(2, lambda: workers.extend(here.children(recursive=True)))])

    directory = run_of(root, experiment)
    assert len(workers) == 2
    assert in_mlflow(root, directory) == ("FINISHED", in_journal(directory))
    assert steps_of_losses(directory) == list(range(1, 13))
