from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gymtrain
from gymtrain import Callback, DataError, NonFiniteLossError, NotTrainedError, Trainer, register


@register("model", "exploding_net")
class Net(nn.Module):
    """Gives outputs, or gradients, that are no numbers in one of its training steps."""

    outputs_at: ClassVar[int | None] = None
    gradients_at: ClassVar[int | None] = None
    step: ClassVar[int] = 0

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(input_shape[0], 8), nn.Tanh(), nn.Linear(8, output_size))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(rows)
        if self.training:
            type(self).step += 1
            if self.step == self.outputs_at:
                return outputs * math.nan
            if self.step == self.gradients_at:
                outputs.register_hook(lambda gradients: gradients * math.inf)
        return outputs


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    Net.outputs_at, Net.gradients_at, Net.step = None, None, 0
    yield
    Net.outputs_at, Net.gradients_at, Net.step = None, None, 0


@pytest.fixture
def exploding(tiny):
    """Makes trainers of 5 epochs of 4 steps; with validation rows, of 3."""

    def make(**training: Any) -> Trainer:
        settings = {"epochs": 5, "batch_size": 40, "checkpoint": {"keep_last": 2}, **training}
        return tiny("iris", "exploding_net", settings, samples={"train": 1.0})

    return make


def checkpoints(trainer: Trainer) -> list[Path]:
    return sorted(Path(trainer.result["run"]["checkpoint_dir"]).glob("*.zip"))


def is_finite(bundle: Path, rows: np.ndarray) -> bool:
    return bool(np.isfinite(Trainer.load(bundle).predict_proba(rows)).all())


def digest_of_weights(trainer: Trainer, directory: Path) -> str:
    trainer.save(directory / "model.zip")
    return gymtrain.inspect(directory / "model.zip")["manifest"]["members"]["weights.safetensors"]["sha256"]


# In the middle of the third epoch; in the last step of the second, and in the last step of all.
@pytest.mark.parametrize("keep_last", [1, 2])
@pytest.mark.parametrize("step", [10, 8, 20])
def test_gradients_that_explode_end_the_run_and_leave_a_checkpoint_of_numbers(
    exploding, flowers, tmp_path, step, keep_last
):
    whole = exploding(checkpoint=None)
    whole.train()
    Net.gradients_at, Net.step = step, 0
    trainer = exploding(checkpoint={"keep_last": keep_last})

    with pytest.raises(NonFiniteLossError, match=rf"at step ({step}|{step + 1})\b|after step {step}\b"):
        trainer.train()

    run = Path(trainer.result["run"]["run_dir"])
    assert (trainer.result["status"], trainer.result["stop_reason"]) == ("FAILED", "nan")
    assert json.loads((run / "result.json").read_text())["status"] == "FAILED"
    left = checkpoints(trainer)
    assert left
    assert all(is_finite(path, flowers[0]) for path in left)

    Net.gradients_at = None
    resumed = exploding()
    result = resumed.train(resume=run)

    assert Path(result["resumed_from"]) == left[-1]
    assert result["metrics"] == whole.result["metrics"]
    assert digest_of_weights(resumed, tmp_path) == digest_of_weights(whole, tmp_path)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_is_told_with_its_step_and_leaves_the_checkpoints(
    exploding, flowers, clip, accumulate
):
    Net.outputs_at = 10 * accumulate
    trainer = exploding(clip_grad_norm=clip, accumulate=accumulate, batch_size=40 // accumulate)

    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step 10; try a smaller learning rate"):
        trainer.train()

    assert checkpoints(trainer)
    assert all(is_finite(path, flowers[0]) for path in checkpoints(trainer))
    assert len(trainer.result["metrics"]["train/loss"]) == 2


def test_weights_that_are_no_numbers_are_no_model(exploding, flowers, tmp_path):
    Net.gradients_at = 10
    trainer = exploding(checkpoint=None)

    with pytest.raises(NonFiniteLossError, match=r"at step \d+"):
        trainer.train()

    with pytest.raises(NotTrainedError, match=r"save: this trainer has not learned anything yet"):
        trainer.save(tmp_path / "model.zip")
    with pytest.raises(NotTrainedError, match=r"predict: this trainer has not learned anything yet"):
        trainer.predict(flowers[0])
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize("step", [7, 8, 9])
def test_the_best_epoch_before_an_explosion_is_a_model(exploding, flowers, tmp_path, step):
    Net.gradients_at = step
    trainer = exploding(validation_split=0.2)

    with pytest.raises(NonFiniteLossError, match=r"step \d+"):
        trainer.train()

    assert trainer.result["best"]["epoch"] == 2
    trainer.save(tmp_path / "model.zip")
    assert is_finite(tmp_path / "model.zip", flowers[0])


@pytest.mark.parametrize("training", [{}, {"validation_split": 0.2}], ids=["train part alone", "with validation rows"])
def test_a_training_is_not_finished_when_its_last_step_ruins_the_weights(exploding, training):
    Net.gradients_at = 4 * 5 if not training else 3 * 5
    trainer = exploding(checkpoint=None, monitor=None, **training)

    with pytest.raises(NonFiniteLossError, match=r"step \d+"):
        trainer.train()

    assert trainer.result["status"] == "FAILED"


# Values of the data that are no numbers.


class CountSteps(Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, state):
        self.steps += 1


FRAME = pd.DataFrame({"age": np.arange(40.0), "height": np.arange(40.0) % 7, "size": np.arange(40) % 2 == 0})


@pytest.mark.parametrize(
    ("column", "value", "preprocessors", "message"),
    [
        ("age", math.inf, "auto", r"in 3 rows, the first is row 5, columns 'age' hold infinite values; rem"),
        (
            "age",
            -math.inf,
            ["standard_scaler"],
            r"in 3 rows, the first is row 5, columns 'age' hold infinite values; rem",
        ),
        ("height", math.nan, [], r"in 3 rows, the first is row 5, columns 'height' have missing values \(NaN\)"),
        ("size", None, "auto", r"target 'size': y has missing values in 3 rows, the first at row 5"),
    ],
)
@pytest.mark.parametrize("kind", ["dataframe", "csv", "parquet"])
def test_columns_and_rows_that_hold_no_numbers_are_named_before_the_first_step(
    tiny, tmp_path, kind, column, value, preprocessors, message
):
    frame = FRAME.astype({"size": object}).assign(size=FRAME["size"].map({True: "large", False: "small"}))
    frame.loc[[5, 21, 34], column] = value
    path = tmp_path / f"rows.{kind}"
    if kind == "dataframe":
        source = {"data": frame}
    else:
        source = {"path": str(path)}
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    count = CountSteps()

    with pytest.raises(DataError, match=message):
        tiny({"type": kind, "target": "size", **source}, preprocessors=preprocessors).train([count])
    assert count.steps == 0


def test_a_parameter_without_elements_is_no_number_that_went_wrong(tiny, tmp_path):
    trainer = tiny(model="user_torch_models:WithNothing")

    assert trainer.train()["status"] == "FINISHED"
    trainer.save(tmp_path / "model.zip")
    assert (
        Trainer.load(tmp_path / "model.zip", trust=["user_torch_models:WithNothing"]).verify()["verdict"] == "same bits"
    )
