"""Processes that make batches beside the training: the same batches, and what happens to one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faulty_training import checkpoints, outcome

from gymtrain import Callback, DataError, Trainer, TrainingError
from gymtrain.data.augmentors import Augmentor
from gymtrain.specs import Model

ROWS = np.random.default_rng(0).normal(size=(48, 6, 6)).astype(np.float32)
HERE = Path(__file__).parent
LABELS = np.arange(48) % 3


class Meddling(Augmentor):
    """Adds a little noise; and when a process comes to row 7, at once or for the second time, something happens."""

    num_draws = 1

    def __init__(self, what: str = "nothing") -> None:
        self.probability, self.what = 1.0, what
        self.passed = 0

    def augment(self, images: Any, draws: Any) -> Any:
        if (images[:, 0, 0] == float(ROWS[7, 0, 0])).any():
            self.passed += 1
            if self.what == "raise":
                raise ValueError("this row is odd")
            if self.passed == 2:
                {"die": _die, "hang": _hang}.get(self.what, lambda: None)()
        return images + 0.1 * draws.view(-1, 1, 1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(1000)


def make_trainer(root: Path, what: str = "nothing", **training: Any) -> Trainer:
    training = {"epochs": 3, "batch_size": 5, "checkpoint": {"keep_last": 9}, **training}
    return Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": ROWS, "y": LABELS},
            "samples": {"train": 1.0},
            "preprocessors": [],
            "data_augmentors": [{"type": Meddling, "what": what}],
            "shuffle": what != "raise",
        },
        model={"model": {"type": "cnn", "channels": [4], "hidden": [8], "dropout": 0.2}, "training": training},
        tracking={"root": str(root), "log_system_metrics": False},
    )


def outcome_of(trainer: Trainer) -> tuple[Any, ...]:
    assert trainer.result is not None
    return trainer.result["metrics"], trainer.predict_proba(ROWS).tobytes()


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    trainer = make_trainer(tmp_path_factory.mktemp("alone"))
    trainer.train()
    return outcome_of(trainer)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, alone: tuple[Any, ...], workers: int) -> None:
    trainer = make_trainer(tmp_path, workers=workers)
    trainer.train()
    assert outcome_of(trainer) == alone
    assert children() == []


class Leave(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 13, 20])
def test_a_training_may_go_on_with_another_number_of_workers(tmp_path: Path, alone: tuple[Any, ...], step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, workers=2).train([Leave(step)])
    assert children() == []

    trainer = make_trainer(tmp_path, workers=1)
    trainer.train(resume="auto")

    assert outcome_of(trainer) == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmentor_that_raises_is_told_of_with_its_row_and_traceback(tmp_path: Path, workers: int) -> None:
    words = r"data_augmentors, epoch 1, row 7 of the train part: ValueError: this row is odd"
    with pytest.raises(DataError, match=words) as caught:
        make_trainer(tmp_path, "raise", workers=workers).train()
    if workers:
        assert "in augment" in str(caught.value)  # the traceback of the worker
    else:
        assert isinstance(caught.value.__cause__, ValueError)
    assert children() == []


def test_a_worker_that_is_killed_ends_the_training_with_its_number_and_cause(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "die", workers=1)

    with pytest.raises(TrainingError, match=r"a worker died: process \d+ of SIGKILL"):
        trainer.train()

    assert trainer.result is not None
    assert trainer.result["status"] == "FAILED"
    assert checkpoints(tmp_path)  # and it can be gone on with
    assert children() == []


@pytest.mark.slow
def test_a_worker_that_hangs_ends_the_training_with_where_it_stands(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "hang", workers=1, worker_timeout=1.0)

    with pytest.raises(TrainingError, match=r"did not come within 1 s .*(?s:.*)test_workers.py\", line \d+ in _hang"):
        trainer.train()

    assert checkpoints(tmp_path)
    assert children() == []


def test_workers_leave_the_order_and_the_dropout_of_a_model_without_augmentors_as_they_are(tmp_path: Path) -> None:
    def trained(workers: int) -> tuple[Any, ...]:
        trainer = Trainer(
            dataset={"dataset": "iris", "preprocessors": ["standard_scaler"]},
            model={
                "model": {"type": "mlp", "hidden": [4], "dropout": 0.3},
                "training": {"epochs": 2, "workers": workers, "accumulate": 2},
            },
            tracking={"root": str(tmp_path)},
        )
        trainer.train()
        return outcome(trainer)

    assert trained(2) == trained(0)


SCRIPT = """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from test_workers import make_trainer
    from gymtrain import Callback

    class Say(Callback):
        def on_step_end(self, state):
            print(state.step, flush=True)

    if __name__ == "__main__":
        make_trainer(Path(sys.argv[1]), workers=2, epochs=1000).train([Say()])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_training_that_is_ended_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(tmp_path / "runs"), str(HERE), str(HERE.parents[1])]
    # A session of its own: Ctrl-C in a terminal reaches the workers too.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 2
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9, signal.SIGINT: -2}[number], errors.decode()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assert bool(checkpoints(tmp_path / "runs")) or number == signal.SIGKILL


@pytest.mark.parametrize("given", [-1, 1.5, True, "two"])
def test_a_number_of_workers_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"model\.training\.workers: got .*expected"):
        Model(model={"type": "mlp"}, training={"workers": given})
