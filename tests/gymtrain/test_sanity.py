from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gymtrain import Callback, NonFiniteLossError, NotTrainedError, SpecError, Trainer, TrainingError
from gymtrain.data.preprocessors import Preprocessor
from gymtrain.trainer.learning_rate import LossCurve
from gymtrain.training.callbacks import STAGES, TrainingState
from gymtrain_trackers.images import decode_png

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


class Watched(nn.Linear):
    """Remembers the batches that it learned from, and how many rows it was evaluated on."""

    learned: ClassVar[list[torch.Tensor]] = []
    evaluated: ClassVar[list[int]] = []

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(math.prod(input_shape), output_size)
        Watched.learned, Watched.evaluated = [], []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.learned.append(rows.detach().clone())
        else:
            self.evaluated.append(len(rows))
        return super().forward(rows.flatten(1))


class Counting(Preprocessor):
    """Remembers how many rows it was fitted on."""

    rows: ClassVar[int] = 0

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        Counting.rows = len(X)

    def transform(self, X: np.ndarray) -> np.ndarray:
        return X


class Breaking(nn.Linear):
    """Puts out NaN once its weights were changed much."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(math.prod(input_shape), output_size)
        self.register_buffer("first", self.weight.detach().clone())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        broken = (self.weight - self.first).abs().max() > 0.05
        return super().forward(rows) * torch.where(broken, torch.nan, 1.0)


class Broken(nn.Linear):
    """Puts out NaN from the beginning."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(math.prod(input_shape), output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) * torch.nan


class Indifferent(nn.Module):
    """Puts out the same whatever its weight is."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.size, self.weight = output_size, nn.Parameter(torch.ones(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(rows), self.size) + 0.0 * self.weight


class Followed(Callback):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def on_step_end(self, state: TrainingState) -> None:
        self.steps, self.num_steps = state.step, state.num_steps
        state.stop("mine")


def run_dir(result: dict[str, Any]) -> Path:
    return Path(result["run"]["run_dir"])


# A run of one step.


def test_a_fast_dev_run_takes_one_step_through_every_stage(tiny):
    trainer = tiny(model=Watched, samples=PARTS, training={"epochs": 5, "batch_size": 16})

    result = trainer.train(fast_dev_run=True)

    assert (result["status"], result["stop_reason"]) == ("FINISHED", "fast_dev_run")
    assert set(result["elapsed"]) == {*STAGES, "total"}
    assert {"train/loss", "val/loss", "test/loss"} <= set(result["metrics"])
    assert [len(batch) for batch in Watched.learned] == [16]
    assert max(Watched.evaluated) == 16
    assert trainer.result is result


def test_the_step_of_a_fast_dev_run_is_the_first_one_of_the_training(tiny):
    training = {"epochs": 1, "batch_size": 16, "accumulate": 2}
    tiny(model=Watched, training=training).train()
    first = Watched.learned[:2]

    tiny(model=Watched, training=training).train(fast_dev_run=True)

    assert len(Watched.learned) == 2
    assert all(torch.equal(one, other) for one, other in zip(Watched.learned, first, strict=True))


def test_schedules_and_callbacks_of_a_fast_dev_run_are_told_the_whole_plan(tiny):
    callback = Followed()

    result = tiny(training={"epochs": 5, "batch_size": 12, "schedule": "one_cycle"}).train(callback, fast_dev_run=True)

    assert (callback.steps, callback.num_steps) == (1, 50)
    assert result["stop_reason"] == "fast_dev_run"


def test_a_fast_dev_run_writes_into_its_own_directory_alone(kept):
    trainer, tracker = kept(training={"epochs": 5, "checkpoint": {"every_steps": 1}})

    result = trainer.train(fast_dev_run=True)

    assert tracker() is None
    assert result["run"]["trackers"] == {}
    assert {path.name for path in run_dir(result).iterdir()} == {"journal.jsonl", "journal.lock", "result.json"}
    assert '"batch/loss"' in (run_dir(result) / "journal.jsonl").read_text()
    assert json.loads((run_dir(result) / "result.json").read_text())["stop_reason"] == "fast_dev_run"


def test_preprocessors_of_a_fast_dev_run_are_fitted_on_the_whole_train_part(tiny):
    tiny(samples=PARTS, preprocessors=[Counting]).train(fast_dev_run=True)

    assert Counting.rows == 90


def test_a_trainer_that_was_only_tried_has_learned_nothing(tiny, flowers):
    trainer = tiny()

    trainer.train(fast_dev_run=True)

    with pytest.raises(NotTrainedError, match="predict: this trainer has not learned anything yet"):
        trainer.predict(flowers[0])


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"overfit_batches": 1}], ids=lambda each: next(iter(each)))
def test_what_only_tries_something_leaves_the_model_as_it_was(options, tiny, flowers, tmp_path):
    trainer = tiny()
    trained = trainer.train()
    before = trainer.predict_proba(flowers[0])

    trainer.train(**options)
    trainer.save(tmp_path / "earlier.zip")

    np.testing.assert_array_equal(trainer.predict_proba(flowers[0]), before)
    assert Trainer.load(tmp_path / "earlier.zip").result["run"]["run_dir"] == trained["run"]["run_dir"]


def test_a_fast_dev_run_that_fails_says_why(tiny):
    trainer = tiny(model=Broken)

    with pytest.raises(NonFiniteLossError, match="the loss became nan at step 1"):
        trainer.train(fast_dev_run=True)

    assert (trainer.result["status"], trainer.result["stop_reason"]) == ("FAILED", "nan")


def test_a_fast_dev_run_gives_a_model_of_another_library_few_rows_with_every_class(tiny):
    X = np.arange(400.0)[:, None]
    dataset = {"type": "arrays", "X": X, "y": np.repeat(["a", "b", "c"], [390, 5, 5])}
    estimator = {"type": "sklearn", "estimator": "KNeighborsClassifier", "n_neighbors": 1}

    result = tiny(dataset, estimator, training={}, samples={"train": 380, "stratify": True}).train(fast_dev_run=True)

    assert (result["status"], result["stop_reason"]) == ("FINISHED", "fast_dev_run")
    entries = [json.loads(line) for line in (run_dir(result) / "journal.jsonl").read_text().splitlines()]
    train = next(entry["inputs"][0]["profile"] for entry in entries if entry["verb"] == "log_inputs")
    assert 32 <= train["rows"] <= 35
    assert all(train["classes"].values())


# A few batches learned by heart.


def test_every_epoch_of_an_overfit_run_has_the_same_batches_without_augmentation(tiny):
    images = np.random.default_rng(0).random((200, 1, 8, 8))
    trainer = tiny(
        {"type": "arrays", "X": images, "y": np.arange(200) % 2},
        Watched,
        data_augmentors=["flip"],
        training={"epochs": 3, "batch_size": 20, "steps_per_epoch": 5},
    )

    trainer.train(overfit_batches=2)

    first, second, third = (Watched.learned[start : start + 2] for start in (0, 2, 4))
    assert len(Watched.learned) == 6
    assert not torch.equal(*first)
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(third))


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_the_batches_of_an_overfit_run_are_those_that_training_begins_with(sampling, tiny):
    training = {"epochs": 1, "batch_size": 16, "sampling": sampling}
    tiny(model=Watched, training=training).train()
    first = Watched.learned[:2]

    tiny(model=Watched, training=training).train(overfit_batches=2)

    assert torch.equal(torch.cat(Watched.learned), torch.cat(first))


def test_a_model_that_can_learn_learns_a_few_batches_by_heart(kept):
    training = {"epochs": 60, "optimizer": {"type": "Adam", "lr": 0.01}}
    trainer, tracker = kept("digits", "mlp", training=training, samples=PARTS, preprocessors=["standard_scaler"])

    result = trainer.train(overfit_batches=2)

    assert result["metrics"]["train/loss"][-1] < 0.01
    assert result["metrics"]["val/loss"][-1] < 0.01
    assert result["metrics"]["val/accuracy"][-1] == 1.0
    assert not [name for name in result["metrics"] if name.startswith("test/")]
    assert tracker().tags["gymtrain.overfit_batches"] == "2"


def test_an_overfit_run_validates_only_where_the_spec_does_and_writes_no_checkpoints(tiny):
    result = tiny(training={"epochs": 1, "checkpoint": {}}).train(overfit_batches=1)

    assert not [name for name in result["metrics"] if name.startswith("val/")]
    assert not Path(result["run"]["checkpoint_dir"]).exists()


def test_more_batches_than_there_are_is_all_of_them(tiny):
    tiny(model=Watched, training={"epochs": 1, "batch_size": 50}).train(overfit_batches=1000)

    assert [len(batch) for batch in Watched.learned] == [50, 50, 20]


def test_a_batch_that_lacks_a_class_can_be_learned_with_balanced_weights(tiny):
    training = {"epochs": 2, "class_weight": "balanced"}

    result = tiny(shuffle=False, samples={"train": 150, "test": 0}, training=training).train(overfit_batches=1)

    assert all(map(math.isfinite, result["metrics"]["train/loss"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overfit_batches": -1}, "overfit_batches: got -1; expected a number of batches of at least 1, or 0"),
        ({"overfit_batches": 1.5}, r"overfit_batches: got 1\.5; expected a number of batches"),
        ({"overfit_batches": True}, "overfit_batches: got True; expected a number of batches"),
        ({"fast_dev_run": 3}, "fast_dev_run: got 3; expected True or False"),
        ({"fast_dev_run": True, "overfit_batches": 2}, "overfit_batches: does not go together with fast_dev_run"),
        ({"fast_dev_run": True, "resume": "auto"}, "fast_dev_run: does not go together with resume"),
        ({"overfit_batches": 1, "resume": "auto"}, "overfit_batches: does not go together with resume"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_is_written(options, message, tiny, tmp_path):
    with pytest.raises(SpecError, match=message):
        tiny().train(**options)

    assert not (tmp_path / "runs").exists()


def test_a_model_of_another_library_has_no_batches_to_learn_by_heart(tiny):
    trainer = tiny(model={"type": "sklearn", "estimator": "GaussianNB"}, training={})

    with pytest.raises(SpecError, match=r"overfit_batches: a model that fits all by itself \(sklearn\) has no batches"):
        trainer.train(overfit_batches=1)


# The learning rate range test.


def test_the_learning_rate_that_is_found_learns_better_than_much_smaller_and_larger_ones(tiny):
    def loss_at(lr: float) -> float:
        result = tiny(model="mlp", training={"epochs": 10, "optimizer": {"type": "Adam", "lr": lr}}).train()
        return result["metrics"]["train/loss"][-1]

    found = tiny(model="mlp").find_lr()

    assert loss_at(found["lr"]) < 0.5 * loss_at(found["lr"] / 30)
    assert loss_at(found["lr"]) < 0.5 * loss_at(found["lr"] * 100)


def test_the_curve_goes_from_the_minimum_to_the_maximum(tiny):
    found = tiny().find_lr(minimum=1e-6, maximum=1e-2, steps=41)

    ratios = np.divide(found["curve"]["lr"][1:], found["curve"]["lr"][:-1])
    assert found["curve"]["lr"][0] == 1e-6
    assert found["curve"]["lr"][-1] == pytest.approx(1e-2)
    np.testing.assert_allclose(ratios, 10**0.1)
    assert len(found["curve"]["loss"]) == 41
    json.dumps(found, allow_nan=False)


def test_the_test_ends_where_the_loss_blows_up(tiny):
    found = tiny("diabetes", "mlp", {"optimizer": "SGD"}, preprocessors=["standard_scaler"]).find_lr()

    losses = found["curve"]["loss"]
    assert len(losses) == len(found["curve"]["lr"]) < 100
    assert losses[-1] > 4 * min(losses) >= losses[-2]
    assert found["lr"] < found["curve"]["lr"][-1]


def test_a_search_leaves_the_trainer_as_it_was_and_finds_the_same_again(tiny, flowers):
    trainer = tiny(training={"epochs": 3, "schedule": {"type": "cosine"}})
    spec = trainer.to_dict()

    found, again = trainer.find_lr(), trainer.find_lr()

    assert (found["lr"], found["curve"]) == (again["lr"], again["curve"])
    assert trainer.to_dict() == spec
    assert trainer.result is None
    with pytest.raises(NotTrainedError, match="has not learned anything yet"):
        trainer.predict(flowers[0])


def test_the_curve_is_in_the_run_and_in_the_trackers(kept):
    trainer, tracker = kept(training={"epochs": 5, "checkpoint": {}, "ema": {}, "early_stopping": {}}, samples=PARTS)

    found = trainer.find_lr(steps=30)

    figure = run_dir(found) / "figures" / "learning_rate_000000.png"
    assert decode_png(figure.read_bytes()).shape == (400, 640, 3)
    assert list(tracker().images) == [("learning_rate", 0)]
    points = [value for _, value in tracker().metrics["batch/lr"]]
    assert points == pytest.approx(found["curve"]["lr"])
    assert float(tracker().tags["gymtrain.find_lr"]) == pytest.approx(found["lr"], rel=0.01)
    assert tracker().status == "FINISHED"
    assert not Path(found["run"]["checkpoint_dir"]).exists()


def test_a_loss_that_is_no_number_near_the_maximum_is_the_end_and_no_error(kept):
    trainer, tracker = kept(model=Breaking)

    found = trainer.find_lr()

    assert 10 < len(found["curve"]["lr"]) < 100
    assert all(map(math.isfinite, found["curve"]["loss"]))
    assert tracker().status == "FINISHED"


def test_a_loss_that_is_no_number_from_the_beginning_is_an_error(tiny):
    with pytest.raises(NonFiniteLossError, match="find_lr, at a learning rate of 1e-07: the loss became nan"):
        tiny(model=Broken).find_lr()


def test_a_loss_that_does_not_fall_gives_no_suggestion(tiny):
    found = tiny(model=Indifferent, training={"batch_size": 150}).find_lr()

    assert found["lr"] is None
    assert len(found["curve"]["lr"]) == 100


def test_a_loss_below_zero_does_not_end_the_test_before_it_rises():
    curve, state = LossCurve(1e-3, 1.0, steps=20), TrainingState()
    for loss in (-1.0, -1.5, -2.0, -2.5, 40.0):
        assert state.stop_reason is None
        state.step, state.loss = state.step + 1, torch.tensor(loss)
        curve.on_step_end(state)

    assert state.stop_reason == "divergence"


def test_other_schedules_stay_and_that_of_the_learning_rate_is_replaced(kept):
    schedule = {"lr": "cosine", "weight_decay": {"type": "constant", "initial": 0.25}}
    trainer, tracker = kept(training={"epochs": 2, "schedule": schedule})

    trainer.find_lr(steps=10)

    assert tracker().metrics["weight_decay"] == [(1, 0.25)]
    assert tracker().metrics["lr"] == [(1, pytest.approx(10.0))]


def test_a_model_of_another_library_has_no_learning_rate_to_find(tiny, tmp_path):
    trainer = tiny(model={"type": "sklearn", "estimator": "GaussianNB"}, training={})

    with pytest.raises(TrainingError, match="find_lr: sklearn is a model of another library than torch"):
        trainer.find_lr()

    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum": 0}, r"find_lr\.minimum: got 0; expected a number above 0"),
        ({"minimum": "small"}, r"find_lr\.minimum: got 'small'; expected a number above 0"),
        ({"maximum": math.inf}, r"find_lr\.maximum: got inf; expected a number above 0"),
        ({"minimum": 1.0, "maximum": 0.1}, r"find_lr\.maximum: got 0\.1; expected more than the minimum, 1\.0"),
        ({"steps": 9}, r"find_lr\.steps: got 9; expected a whole number of at least 10"),
        ({"steps": 100.0}, r"find_lr\.steps: got 100\.0; expected a whole number of at least 10"),
    ],
)
def test_a_range_that_is_none_is_refused(options, message, tiny):
    with pytest.raises(SpecError, match=message):
        tiny().find_lr(**options)
