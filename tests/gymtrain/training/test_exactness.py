"""A training that was killed at any moment ends with the same bits as one that was not."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gymtrain import Callback, Trainer
from gymtrain.training.callbacks import TrainingState

STEPS = 42  # 6 epochs of 7 steps

CHECKPOINT = {"every_steps": 3, "every_epochs": 1}

SPEC: dict[str, Any] = {
    "dataset": {
        "dataset": {"type": "digits", "images": True},
        "samples": {"train": 200, "val": 100, "test": 50},
        "preprocessors": [{"type": "divide", "factor": 16.0}],
        "data_augmentors": [{"type": "rotate_range"}, {"type": "random_brightness"}],
    },
    "model": {
        "model": {"type": "user_code:Images"},
        "training": {
            "epochs": 6,
            "batch_size": 15,
            "accumulate": 2,
            "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9},
            "schedule": {"lr": {"type": "plateau", "patience": 0, "rtol": 0.1}, "momentum": "cosine"},
            "early_stopping": {"patience": 4},
            "clip_grad_norm": 1.0,
            "ema": {"decay": 0.9},
            "checkpoint": CHECKPOINT,
        },
    },
}

# Forked off a server that has loaded everything once, a training takes as long as training takes. The server itself has
# no thread but one.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["gymtrain.trainer.training_run", "torchmetrics", "sklearn.datasets", "user_code"])


class Die(Callback):
    """Sends the process a signal at a step, or so many seconds after it."""

    def __init__(self, step: int = 0, delay: float | None = None, number: int = signal.SIGKILL) -> None:
        self.step, self.delay, self.number = step, delay, number

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step and self.delay is None:
            os.kill(os.getpid(), self.number)
        elif state.step == self.step:
            threading.Timer(self.delay or 0.0, os.kill, (os.getpid(), self.number)).start()


def train(root: Path, kill: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Train, or train on, in a process of its own; write down how it ended."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the traceback of the one that was interrupted)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # several wait for each other on a machine that has other work
    spec = copy.deepcopy(SPEC)
    spec["model"]["training"]["checkpoint"] = checkpoint
    trainer = Trainer.from_dict({**spec, "tracking": {"root": str(root)}})
    result = trainer.train([Die(**kill)], resume="auto")
    trainer.save(root / "model.zip")
    (root / "told.json").write_text(json.dumps([result["metrics"], result["best"], result["stop_reason"]]))


def run(root: Path, checkpoint: dict[str, Any] = CHECKPOINT, **kill: Any) -> int:
    """Train in another process and return its exit code."""
    process = PROCESSES.Process(target=train, args=(root, kill, checkpoint))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def end(root: Path) -> tuple[str, bytes, list[bytes]]:
    """Train to the end, and return how it ended."""
    assert run(root) == 0
    return ended(root)


def ended(root: Path) -> tuple[str, bytes, list[bytes]]:
    """Return the metrics, what the model predicts, and its weights."""
    told = (root / "told.json").read_text()
    trainer = Trainer.load(root / "model.zip", trust=["user_code:Images"])
    X = np.random.default_rng(0).random((20, 8, 8)) * 16
    module = trainer._predictor.learner.module  # type: ignore[union-attr]
    return told, trainer.predict_proba(X).tobytes(), [each.numpy().tobytes() for each in module.state_dict().values()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, list[bytes]]:
    return end(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [[1], [3], [7], [10], [41], [42], [5, 20], [8, 9, 31]],
    ids=lambda kills: f"at step {kills}",
)
def test_sigkill_between_two_steps_changes_no_bit(tmp_path, whole, kills):
    for step in kills:
        assert run(tmp_path, step=step) == -signal.SIGKILL

    assert end(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[2], [9], [4, 8, 12, 21, 33]], ids=lambda kills: f"at step {kills}")
def test_sigkill_with_checkpoints_at_the_ends_of_epochs_alone_changes_no_bit(tmp_path, whole, kills):
    checkpoint = {"every_epochs": 1}
    for step in kills:
        run(tmp_path, checkpoint, step=step)

    assert run(tmp_path, checkpoint) == 0
    assert ended(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_sigkill_while_a_checkpoint_is_written_changes_no_bit(tmp_path, whole, seed):
    generator = random.Random(seed)
    run(tmp_path, step=3 * generator.randint(1, STEPS // 3), delay=generator.uniform(0, 0.02))

    assert end(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_finishes_the_step_writes_a_checkpoint_and_ends_as_killed(tmp_path, whole, number, code):
    assert run(tmp_path, step=10, number=number) == code  # multiprocessing makes 1 of a KeyboardInterrupt

    checkpoints = [path.name for path in tmp_path.glob("*/*/checkpoints/*.zip")]
    result = json.loads(next(tmp_path.glob("*/*/result.json")).read_text())
    assert result["status"] == "KILLED"
    assert "epoch-000002-step-000000010.zip" in checkpoints
    assert end(tmp_path) == whole
