from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gymtrain
from gymtrain import Callback, CallbackError, SaveError, Trainer, TrainingError


@pytest.fixture
def make(tiny):
    """Makes trainers whose weights and dropout are drawn at random."""

    def make(seed: int = 0, dropout: float = 0.5, **training: Any) -> Trainer:
        model = {"type": "mlp", "hidden": [16], "dropout": dropout}
        return tiny("digits", model, {"epochs": 3, "seed": seed, **training}, samples={"train": 1000, "test": 200})

    return make


def outcome(trainer: Trainer, directory: Path) -> tuple[Any, ...]:
    """Return what two trainings that are the same have the same: metrics and the bits of the weights."""
    trainer.save(directory / "model.zip")
    weights = gymtrain.inspect(directory / "model.zip")["manifest"]["members"]["weights.safetensors"]["sha256"]
    return trainer.result["metrics"], weights


def train_together(trainers: list[Trainer]) -> None:
    """Train in a thread each, and raise what one of them raised."""
    errors, gate = [], threading.Barrier(len(trainers))

    def work(trainer: Trainer) -> None:
        gate.wait()
        try:
            trainer.train()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(trainer,)) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_training_in_a_thread_is_the_one_of_the_main_thread(make, tmp_path):
    main, other = make(), make()
    main.train()

    train_together([other])

    assert outcome(other, tmp_path) == outcome(main, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_two_trainings_in_threads_are_each_the_one_that_it_is_alone(make, tmp_path, dropout):
    alone = []
    for seed in (0, 1):
        trainer = make(seed, dropout)
        trainer.train()
        alone.append(outcome(trainer, tmp_path))

    for _ in range(2):
        together = [make(seed, dropout) for seed in (0, 1)]
        train_together(together)

        assert [outcome(trainer, tmp_path) for trainer in together] == alone


def test_two_trainings_in_threads_have_runs_of_their_own(make):
    trainers = [make(0, epochs=2), make(1, epochs=2)]

    train_together(trainers)

    runs = {trainer.result["run"]["run_dir"] for trainer in trainers}
    assert len(runs) == 2
    for run in runs:
        lines = (Path(run) / "journal.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["status"] == "FINISHED"
        losses = [point for line in lines for point in json.loads(line).get("metrics", []) if point[0] == "train/loss"]
        assert [step for _, _, step, _ in losses] == [1, 2]


# Trains, then forks a child that trains too; prints the child's end, and what both came to with as many threads.
FORKED = """
import json, os, signal, sys
from pathlib import Path
import torch
import gymtrain
from gymtrain import Trainer

root = Path(sys.argv[1])

def outcome(name):
    trainer = Trainer(
        dataset={"dataset": "digits"},
        model={"model": {"type": "mlp", "hidden": [256, 256], "dropout": 0.5}, "training": {"epochs": 2}},
        tracking={"root": str(root / "runs")},
    )
    trainer.train()
    trainer.save(root / name)
    weights = gymtrain.inspect(root / name)["manifest"]["members"]["weights.safetensors"]["sha256"]
    return [torch.get_num_threads(), trainer.result["status"], trainer.result["metrics"], weights]

outcome("before.zip")
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that waits for threads which were not forked with it
    (root / "child.json").write_text(json.dumps(outcome("child.zip")))
    os._exit(0)
_, status = os.waitpid(child, 0)
forked = json.loads((root / "child.json").read_text()) if status == 0 else None
if forked:
    torch.set_num_threads(forked[0])
print(json.dumps([status, forked, outcome("after.zip")]))
"""

# Trains in a process that multiprocessing started anew, as a script does.
SPAWNED = """
import multiprocessing, sys
from pathlib import Path
from gymtrain import Trainer

def work(root, name):
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={"model": {"type": "mlp", "dropout": 0.5}, "training": {"epochs": 2}},
        tracking={"root": root + "/runs"},
    )
    trainer.train()
    trainer.save(root + "/" + name)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1], "spawned.zip"))
    process.start()
    work(sys.argv[1], "here.zip")
    process.join()
    sys.exit(process.exitcode)
"""


def weights_of(bundle: Path) -> str:
    return gymtrain.inspect(bundle)["manifest"]["members"]["weights.safetensors"]["sha256"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_child_that_is_forked_after_a_training_can_train(tmp_path):
    # Two threads also where the machine has one core: it is the pool of threads that a fork leaves behind.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )

    status, forked, after = json.loads(done.stdout)
    assert status == 0
    assert forked == after


@pytest.mark.slow
def test_a_child_that_is_spawned_trains_the_same(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SPAWNED)

    subprocess.run([sys.executable, str(program), str(tmp_path)], capture_output=True, check=True)

    assert weights_of(tmp_path / "spawned.zip") == weights_of(tmp_path / "here.zip")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_a_callback_forks_leaves_the_run_alone(make):
    class Fork(Callback):
        def __init__(self) -> None:
            self.codes = []

        def on_epoch_end(self, state):
            child = multiprocessing.get_context("fork").Process(target=sum, args=([1, 2],))
            child.start()
            child.join()
            self.codes.append(child.exitcode)

    fork = Fork()
    result = make(checkpoint={}).train([fork])

    assert fork.codes == [0, 0, 0]
    assert result["status"] == "FINISHED"
    lines = (Path(result["run"]["run_dir"]) / "journal.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["verb"] == "end" for line in lines) == 1
    assert len({line for line in lines if '"train/loss"' in line}) == 3


# What cannot be pickled.


def test_callbacks_that_cannot_be_pickled_are_no_obstacle_to_checkpoints_and_bundles(make, tmp_path):
    class Local(Callback):
        """A class in a function, that holds what no other process could have."""

        def __init__(self) -> None:
            self.lock, self.function, self.numbers = threading.Lock(), lambda loss: -loss, (n for n in range(3))
            self.seen = []

        def on_epoch_end(self, state):
            with self.lock:
                self.seen.append(self.function(state.metrics["train/loss"]))

    local, trainer = Local(), make(checkpoint={})

    result = trainer.train([local])
    trainer.save(tmp_path / "model.zip")

    assert local.seen == [-loss for loss in result["metrics"]["train/loss"]]
    assert list(Path(result["run"]["checkpoint_dir"]).glob("*.zip"))
    assert Trainer.load(tmp_path / "model.zip").predict(np.zeros((1, 64))).shape == (1,)


def test_a_state_of_a_callback_that_no_checkpoint_can_hold_is_told_by_its_place(make):
    class Local(Callback):
        def state_dict(self):
            return {"function": lambda: None}

        def load_state_dict(self, state):
            pass

    trainer = make(checkpoint={})

    with pytest.raises((TrainingError, CallbackError), match=r"callbacks/Local 1/function is a function"):
        trainer.train([Local()])

    assert trainer.result["status"] == "FAILED"


def test_a_class_in_a_function_is_told_of_before_the_training(tiny):
    class Local(torch.nn.Linear):
        def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
            super().__init__(input_shape[0], output_size)

    with pytest.raises((SaveError, gymtrain.SpecError), match=r"Local is not found by its name in a later process"):
        tiny(model=Local, training={"epochs": 1, "checkpoint": {}}).train()
