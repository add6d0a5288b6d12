from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import gymtrain
from gymtrain import Callback, Trainer, TrainingError, register
from gymtrain.data.augmentors import Augmentor
from gymtrain.training.schedules import Schedule


class Trouble:
    """Which part of the code below raises, and what; every part does so in the third epoch."""

    part: ClassVar[str | None] = None
    error: ClassVar[BaseException]
    epoch: ClassVar[int] = 0


def may_raise(part: str) -> None:
    if Trouble.part == part and Trouble.epoch == 3:
        raise Trouble.error


@register("model", "troubled_net")
class Net(nn.Module):
    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.2), nn.Linear(8, output_size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        may_raise("model")
        return self.layers(images)


@register("loss", "troubled_loss")
def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    may_raise("loss" if outputs.requires_grad else "validation")
    return nn.functional.cross_entropy(outputs, targets)


@register("augmentor", "troubled_noise")
class Noise(Augmentor):
    num_draws = 1

    def augment(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        may_raise("augmentor")
        return images + draws.view(-1, 1, 1)


@register("schedule", "troubled_schedule")
class Falling(Schedule):
    def value(self, time: int) -> float:
        may_raise("schedule")
        return 0.01 / (1 + time)


@register("dataset", "troubled_digits")
class Digits:
    def load(self) -> tuple[np.ndarray, np.ndarray]:
        may_raise("dataset")
        generator = np.random.default_rng(0)
        return generator.random((120, 8, 8)), np.arange(120) % 3


class Watch(Callback):
    def on_epoch_begin(self, state):
        Trouble.epoch = state.epoch
        may_raise("on_epoch_begin")

    def on_step_end(self, state):
        may_raise("on_step_end")

    def on_epoch_end(self, state):
        may_raise("on_epoch_end")

    def state_dict(self):
        may_raise("state_dict")
        return {}

    def load_state_dict(self, state):
        may_raise("load_state_dict")


@pytest.fixture(autouse=True)
def peace() -> Iterator[None]:
    Trouble.part, Trouble.epoch = None, 0
    yield
    Trouble.part, Trouble.epoch = None, 0


@pytest.fixture
def troubled(tmp_path: Path) -> Callable[..., Trainer]:
    return partial(make, tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What comes of a training in which nothing happens."""
    root = tmp_path_factory.mktemp("whole")
    trainer = make(root, checkpoint=None)
    trainer.train([Watch()])
    return outcome(trainer, root)


def make(root: Path, **training: Any) -> Trainer:
    return Trainer(
        dataset={
            "dataset": "troubled_digits",
            "samples": {"train": 70, "val": 30, "test": 20},
            "data_augmentors": ["troubled_noise"],
        },
        model={
            "model": "troubled_net",
            "training": {
                "epochs": 5,
                "batch_size": 16,
                "loss": "troubled_loss",
                "schedule": {"lr": "troubled_schedule"},
                "checkpoint": {"every_epochs": 1, "keep_last": 2},
                **training,
            },
        },
        tracking={"root": str(root / "runs")},
    )


def outcome(trainer: Trainer, directory: Path) -> tuple[Any, ...]:
    """Return what two trainings that are the same have the same: metrics, best epoch and the bits of the weights."""
    trainer.save(directory / "model.zip")
    weights = gymtrain.inspect(directory / "model.zip")["manifest"]["members"]["weights.safetensors"]["sha256"]
    return trainer.result["metrics"], trainer.result["best"], weights


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def functions(error: BaseException) -> list[str]:
    """Return the names of the functions that an error came through, the one that raised it last."""
    names, trace = [], error.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return names


IN_TRAINING = ["on_epoch_begin", "on_step_end", "on_epoch_end", "state_dict", "schedule", "model", "loss", "augmentor"]
OF_MANY_KINDS = [KeyError("mine"), StopIteration("mine"), ZeroDivisionError("mine"), AttributeError("mine")]


@pytest.mark.parametrize(
    ("part", "error"),
    [(part, ValueError("mine")) for part in [*IN_TRAINING, "validation"]] + [("loss", each) for each in OF_MANY_KINDS],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_in_code_of_the_user_leaves_all_that_it_takes_to_find_it_and_to_go_on(
    troubled, whole, tmp_path, part, error
):
    failed = troubled()
    Trouble.part, Trouble.error = part, error
    with pytest.raises(Exception, match=r"mine|raised StopIteration") as caught:
        failed.train([Watch()])

    assert any(each is error for each in chain(caught.value))
    assert functions(error)[-1] == "may_raise"
    assert (failed.result["status"], failed.result["stop_reason"]) == ("FAILED", "error")
    run = Path(failed.result["run"]["run_dir"])
    assert json.loads((run / "result.json").read_text())["status"] == "FAILED"
    end = json.loads((run / "journal.jsonl").read_text().splitlines()[-1])
    assert (end["verb"], end["status"]) == ("end", "FAILED")
    assert "in may_raise" in (run / "error.txt").read_text()
    checkpoints = sorted((run / "checkpoints").glob("*.zip"))
    assert len(checkpoints) == 2
    assert checkpoints[-1].name >= "epoch-000002"

    Trouble.part = None
    resumed = troubled()
    resumed.train([Watch()], resume=run)

    assert Path(resumed.result["resumed_from"]) == checkpoints[-1]
    assert outcome(resumed, tmp_path) == whole


@pytest.mark.parametrize("part", ["model", "loss"])
def test_an_error_in_the_middle_is_told_with_the_step_and_the_epoch(troubled, part):
    Trouble.part, Trouble.error = part, KeyError("mine")

    with pytest.raises(TrainingError, match=r"training failed after step 10, in epoch 3: .*mine"):
        troubled().train([Watch()])


def test_a_dataset_that_fails_leaves_the_checkpoints_of_the_run_before(troubled, whole, tmp_path):
    troubled(epochs=3).train([Watch()])
    Trouble.part, Trouble.error = "dataset", ConnectionError("mine")

    failed = troubled()
    with pytest.raises(ConnectionError, match="mine") as caught:
        failed.train([Watch()], resume="auto")

    assert functions(caught.value)[-2:] == ["load", "may_raise"]
    assert (failed.result["status"], failed.result["metrics"]) == ("FAILED", {})
    Trouble.part = None
    resumed = troubled()
    resumed.train([Watch()], resume="auto")
    assert outcome(resumed, tmp_path) == whole


def test_a_callback_that_fails_to_take_up_its_state_leaves_the_checkpoints(troubled, whole, tmp_path):
    troubled(epochs=3).train([Watch()])
    Trouble.part, Trouble.error = "load_state_dict", RuntimeError("mine")

    failed = troubled()
    with pytest.raises(Exception, match="mine") as caught:
        failed.train([Watch()], resume="auto")

    assert any(each is Trouble.error for each in chain(caught.value))
    assert failed.result["status"] == "FAILED"
    Trouble.part = None
    resumed = troubled()
    assert "epoch-000003" in resumed.train([Watch()], resume="auto")["resumed_from"]
    assert outcome(resumed, tmp_path) == whole


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimizer": {"type": "Adam", "lr": 0.5}}, r"training/optimizer/lr \(0\.001 -> 0\.5\)"),
        ({"batch_size": 8}, r"training/batch_size \(16 -> 8\)"),
        ({"batch_size": 8, "seed": 1}, r"training/batch_size \(16 -> 8\), training/seed \(0 -> 1\)"),
    ],
    ids=["lr", "batch size", "two"],
)
def test_what_a_resume_may_not_change_is_refused_by_its_name_and_harms_nothing(troubled, changes, named):
    run = Path(troubled(epochs=2).train([Watch()])["run"]["run_dir"])
    before = {path: path.read_bytes() for path in run.rglob("*.zip")}

    with pytest.raises(TrainingError, match=rf"is of another training: {named}; only epochs"):
        troubled(**changes).train([Watch()], resume=run)

    assert {path: path.read_bytes() for path in run.rglob("*.zip")} == before
    assert len(troubled(epochs=3).train([Watch()], resume=run)["metrics"]["train/loss"]) == 3
