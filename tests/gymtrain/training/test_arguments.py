from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_code
from torch import nn
from user_code import Interrupt

from gymtrain import Callback, Model, SpecError, Trainer, TrainingError
from gymtrain.bundle import open_bundle
from gymtrain.data.batch import Batch
from gymtrain.data.randomness import mix, order
from gymtrain.models.seeding import deterministic
from gymtrain.models.torch_learner import build_learner
from gymtrain.training.averaging import Average
from gymtrain.training.compiling import compiled
from gymtrain.training.stopping import EarlyStopping
from gymtrain.training.update import Update

PARTS = {"train": 90, "val": 30, "test": 30}


def module_of(trainer: Trainer) -> nn.Module:
    return trainer._predictor.learner.module


def same_bits(one: Trainer, other: Trainer) -> bool:
    first, second = (module_of(each).state_dict() for each in (one, other))
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def logged(recorded: Any, name: str) -> list[tuple[int, float]]:
    return recorded.metrics[name]


# Precision.


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_mixed_precision_learns_nearly_the_same_in_float32_weights(tiny, precision):
    training = {"epochs": 5, "optimizer": {"type": "Adam", "lr": 0.01}}
    full, mixed = (
        tiny(model="mlp", training={**training, "precision": each}, preprocessors=["standard_scaler"])
        for each in ("32", precision)
    )

    losses = [each.train()["metrics"]["train/loss"] for each in (full, mixed)]

    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert {each.dtype for each in module_of(mixed).parameters()} == {torch.float32}
    assert mixed.result["execution"]["precision"] == precision


def test_a_loss_that_is_scaled_up_changes_neither_what_is_reported_nor_where_gradients_are_clipped():
    weights = []
    for scaler in (None, torch.amp.GradScaler("cpu")):
        weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        update = Update({"loss": torch.optim.SGD([weight], lr=1.0)}, clip_grad_norm=1.0, scaler=scaler)
        update.zero_grad()
        loss = update.backward((weight * weight).sum() / 2)
        update.step()
        assert loss.item() == 12.5
        weights.append(weight.detach())

    torch.testing.assert_close(weights[0], torch.tensor([2.4, 3.2]))
    torch.testing.assert_close(weights[1], weights[0])


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_scale_made_smaller():
    weight = nn.Parameter(torch.ones(1))
    scaler = torch.amp.GradScaler("cpu")
    update = Update({"loss": torch.optim.SGD([weight], lr=1.0)}, scaler=scaler)

    update.backward((weight * 1e38).sum())
    update.step()

    assert weight.item() == 1.0
    assert scaler.get_scale() == 2.0**15


def test_with_a_scaler_an_optimizer_may_have_no_loss_in_a_step():
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizers = {name: torch.optim.SGD([each], lr=0.5) for name, each in (("one", one), ("other", other))}
    update = Update(optimizers, scaler=torch.amp.GradScaler("cpu"))

    update.backward({"one": (one * 2).sum()})
    update.step()

    assert (one.item(), other.item()) == (0.0, 1.0)


def test_a_model_in_sixteen_bits_makes_a_bundle_of_half_the_size_that_predicts_the_same_bits(tiny, tmp_path, flowers):
    X, y = flowers
    data, model = {"type": "arrays", "X": X, "y": y}, {"type": "mlp", "hidden": [256, 256]}
    sizes = {}
    for precision in ("32", "bf16-true"):
        trainer = tiny(data, model, {"epochs": 8, "precision": precision}, preprocessors=["standard_scaler"])
        trainer.train()
        trainer.save(tmp_path / precision)
        with open_bundle(tmp_path / precision) as bundle:
            tensors = bundle.weights()
            sizes[precision] = sum(len(each.data) for each in tensors.values())
    loaded = Trainer.load(tmp_path / "bf16-true")

    assert {each.dtype for each in tensors.values()} == {"BF16"}
    assert sizes["bf16-true"] * 2 == sizes["32"]
    assert loaded.predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()
    assert loaded.predict_proba(X).dtype == np.float32
    assert loaded.evaluate(X, y) == trainer.evaluate(X, y)
    assert trainer.evaluate(X, y)["accuracy"] > 0.9


@pytest.mark.parametrize("precision", ["bf16", "16", "bf16-true"])
@pytest.mark.parametrize("task", ["binary", "regression", "multilabel"])
def test_every_task_learns_in_every_precision(tiny, precision, task):
    training = {"epochs": 2, "precision": precision, "validation_split": 0.2, "ema": None}

    result = tiny({"type": "user_rows", "task": task}, "mlp", training).train()

    assert all(math.isfinite(value) for value in result["metrics"]["val/loss"])


def test_a_model_of_convolutions_and_batch_norm_learns_in_sixteen_bits(tiny):
    training = {"max_steps": 3, "precision": "bf16-true"}

    result = tiny({"type": "digits", "images": True}, {"type": "user_code:Images"}, training).train()

    assert math.isfinite(result["metrics"]["train/loss"][0])


def test_bits_may_be_given_as_a_number():
    assert Model(model="mlp", training={"precision": 32}).training.precision == "32"
    assert Model(model="mlp", training={"precision": 16}).training.precision == "16"
    with pytest.raises(SpecError, match=r"precision: got '64'; expected '32', 'bf16', '16' or 'bf16-true'"):
        Model(model="mlp", training={"precision": 64})


def test_an_average_that_would_stand_still_is_refused():
    with pytest.raises(SpecError, match=r"training\.ema: an average in 16 bits stands still, .* use precision 'bf16'"):
        Model(model="mlp", training={"precision": "bf16-true", "ema": {}})


# The average of the weights.


@pytest.mark.parametrize("options", [{"decay": 0.9, "warmup": False}, {"decay": 0.9}, {}])
def test_the_average_is_the_one_that_everybody_writes_by_hand(tiny, options):
    X, y = user_code.rows_of("multiclass")
    training = {"epochs": 3, "batch_size": 8, "optimizer": {"type": "SGD", "lr": 0.1}, "ema": options}
    data = {"type": "arrays", "X": X, "y": y}
    trainer = tiny(data, {"type": "user_code:Normed"}, training, samples={"train": 1.0}, shuffle=False)
    trainer.train()

    inputs, targets = torch.tensor(X, dtype=torch.float32), torch.tensor(y // 10)
    spec = Model(model={"type": "user_code:Normed"}).model
    module: Any = build_learner(spec, trainer._predictor.task, (6,), device="cpu").module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    average = {name: each.detach().clone() for name, each in module.named_parameters()}
    updates = 0
    for epoch in (1, 2, 3):
        torch.manual_seed(mix(0, epoch))
        for rows in order(0, epoch, 40, shuffle=False).split(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            updates += 1
            decay = options.get("decay", 0.999)
            if options.get("warmup", True):
                decay = min(decay, (1 + updates) / (10 + updates))
            for name, each in module.named_parameters():
                average[name] = decay * average[name] + (1 - decay) * each.detach()

    kept = module_of(trainer).state_dict()
    for name, tensor in average.items():
        torch.testing.assert_close(kept[name], tensor)
    for name, tensor in module.named_buffers():  # the statistics of batch norm are averages already
        torch.testing.assert_close(kept[name], tensor)


def test_what_is_validated_kept_saved_and_predicted_with_is_the_average(tiny, tmp_path, flowers):
    X, y = flowers
    training = {"epochs": 4, "ema": {"decay": 0.95}, "monitor": None}
    order_ = np.arange(150).reshape(3, 50).T.ravel()
    data = {"type": "arrays", "X": X[order_], "y": y[order_]}
    trainer = tiny(data, "mlp", training, samples=PARTS, shuffle=False)
    plain = tiny(data, "mlp", {**training, "ema": None}, samples=PARTS, shuffle=False)

    metrics = trainer.train()["metrics"]
    plain.train()
    trainer.save(tmp_path / "model.zip")

    assert metrics["train/loss"] == plain.result["metrics"]["train/loss"]  # what learns is not the average
    assert metrics["val/loss"] != plain.result["metrics"]["val/loss"]
    assert trainer.evaluate(X[order_][90:120], y[order_][90:120])["loss"] == metrics["val/loss"][-1]
    assert trainer.evaluate(X[order_][120:], y[order_][120:])["loss"] == metrics["test/loss"]
    loaded = Trainer.load(tmp_path / "model.zip")
    assert loaded.predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()


def test_a_checkpoint_predicts_with_the_average_and_goes_on_with_the_weights(tiny, flowers):
    training = {"epochs": 4, "ema": {"decay": 0.8}, "monitor": None}
    whole = tiny(model="mlp", training=training)
    whole.train()
    half = tiny(model="mlp", training={**training, "epochs": 2, "checkpoint": {}})
    half.train()

    checkpoint = max(Path(half.result["run"]["checkpoint_dir"]).iterdir())
    loaded = Trainer.load(checkpoint)
    resumed = tiny(model="mlp", training={**training, "checkpoint": {}})
    resumed.train(resume=checkpoint)

    assert loaded.predict_proba(flowers[0]).tobytes() == half.predict_proba(flowers[0]).tobytes()
    assert same_bits(whole, resumed)


def test_weights_that_are_tied_or_frozen_are_so_in_the_average():
    module = user_code.Tied((4,), 3)
    module.head.requires_grad_(False)
    average = Average(module, decay=0.5, warmup=False)
    with torch.no_grad():
        module.encode.weight.add_(1.0)

    average.update()

    assert average.current().decode.weight is average.current().encode.weight
    torch.testing.assert_close(average.current().encode.weight, module.encode.weight - 0.5)
    assert torch.equal(average.current().head.weight, module.head.weight)


# Clipping by value.


def test_no_element_of_a_gradient_is_larger_than_the_value_given(tiny):
    steps = {}
    for clip in (None, 1e-3):
        training = {"max_steps": 1, "optimizer": {"type": "SGD", "lr": 1.0}, "clip_grad_value": clip}
        trainer, still = (
            tiny(training=training),
            tiny(training={"max_steps": 1, "optimizer": {"type": "SGD", "lr": 1e-30}}),
        )
        trainer.train(), still.train()
        pairs = zip(module_of(trainer).parameters(), module_of(still).parameters(), strict=True)
        steps[clip] = torch.cat([(one - other).detach().flatten() for one, other in pairs])

    torch.testing.assert_close(steps[1e-3], steps[None].clamp(-1e-3, 1e-3), rtol=1e-4, atol=1e-7)
    assert steps[None].abs().max() > 1e-2


# Epochs of another length.


class Look(Callback):
    """Writes down where a training is, and what it sees there."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, int, bool | None]] = []
        self.validations: list[tuple[int, int]] = []

    def on_validation_end(self, state):
        self.validations.append((state.epoch, state.step))
        assert "val/loss" in state.metrics

    def on_epoch_end(self, state):
        self.epochs.append((state.epoch, state.step, state.was_validated))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("steps", [2, 3, 7, 12])  # a pass has 5 batches, the last one of 8 rows
def test_over_whole_passes_every_row_is_seen_equally_often_whatever_an_epoch_is(tiny, steps, accumulate):
    user_code.Noise.seen.clear()
    look = Look()
    training = {"epochs": 5, "steps_per_epoch": steps, "accumulate": accumulate, "batch_size": 8}
    images = np.arange(38.0).reshape(38, 1, 1).repeat(4, axis=1).repeat(4, axis=2)
    data = {"type": "arrays", "X": images, "y": np.arange(38) % 2}
    augmentor = {"type": "user_code:Noise"}
    tiny(data, {"type": "user_code:Net"}, training, samples={"train": 1.0}, data_augmentors=[augmentor]).train([look])

    sizes = [len(draws) for draws in user_code.Noise.seen if len(draws) > 1]
    batches = 5 * steps * accumulate
    assert [step for _, step, _ in look.epochs] == [steps * epoch for epoch in range(1, 6)]
    assert sizes[-batches:] == ([8, 8, 8, 8, 6] * batches)[:batches]


def test_an_epoch_of_a_whole_pass_is_the_usual_one(tiny):
    usual = tiny(training={"epochs": 3, "batch_size": 30}, samples=PARTS)
    given = tiny(training={"epochs": 3, "batch_size": 30, "steps_per_epoch": 3}, samples=PARTS)

    assert usual.train()["metrics"] == given.train()["metrics"]
    assert same_bits(usual, given)


def test_many_short_epochs_are_few_long_ones_but_for_where_they_are_validated(tiny):
    short = tiny(training={"epochs": 6, "batch_size": 30, "steps_per_epoch": 1, "monitor": None}, samples=PARTS)
    long = tiny(training={"epochs": 1, "batch_size": 30, "steps_per_epoch": 6, "monitor": None}, samples=PARTS)

    losses = [each.train()["metrics"]["val/loss"] for each in (short, long)]

    assert same_bits(short, long)
    assert losses[0][-1:] == losses[1]


# When a model is validated.


def test_between_validations_the_history_has_holes_and_the_last_epoch_is_always_validated(kept):
    trainer, recorded = kept(
        samples=PARTS, training={"epochs": 5, "validate_every_epochs": 2, "monitor": "val/accuracy"}
    )
    look = Look()

    result = trainer.train([look])

    assert [value is None for value in result["metrics"]["val/loss"]] == [True, False, True, False, False]
    assert len(result["metrics"]["train/loss"]) == 5
    assert [validated for _, _, validated in look.epochs] == [False, True, False, True, True]
    assert [epoch for epoch, _ in look.validations] == [2, 4, 5]
    assert [step for step, _ in logged(recorded(), "val/loss")] == [2, 4, 5]
    assert result["best"]["epoch"] in (2, 4, 5)


def test_an_epoch_that_a_callback_ends_is_validated_whenever_it_is(tiny):
    class Stop(Callback):
        def on_step_end(self, state):
            if state.step == 4:
                state.stop()

    result = tiny(samples=PARTS, training={"epochs": 9, "validate_every_epochs": 9}).train([Stop()])

    assert [value is None for value in result["metrics"]["val/loss"]] == [True, False]


def test_early_stopping_and_plateaus_look_at_validated_epochs_alone(tiny):
    training = {
        "epochs": 30,
        "validate_every_epochs": 3,
        "early_stopping": {"patience": 1, "min_delta": 100.0},
        "schedule": {"type": "plateau", "patience": 0, "rtol": 0.99, "multiplier": 0.5},
    }

    result = tiny(samples=PARTS, training=training).train([EarlyStopping("val/loss", patience=9, min_delta=100.0)])

    assert result["stop_reason"] == "early_stopping"
    assert len(result["metrics"]["train/loss"]) == 9  # the validations after 3, 6 and 9
    assert result["metrics"]["lr"] == pytest.approx([1e-3] * 6 + [5e-4] * 3)


def test_early_stopping_as_a_callback_tells_when_its_metric_is_never_there(tiny):
    with pytest.raises(Exception, match=r"on_epoch_end of the callback EarlyStopping failed: .*no metric 'val/loss'"):
        tiny(training={"epochs": 2}).train([EarlyStopping("val/loss")])


def test_within_an_epoch_a_model_is_validated_after_so_many_steps_and_at_its_end_but_once(kept):
    training = {"epochs": 2, "batch_size": 15, "validate_every_steps": 2, "validate_every_epochs": 2}
    trainer, recorded = kept(samples=PARTS, training=training)  # 6 steps in an epoch
    look = Look()

    result = trainer.train([look])

    assert look.validations == [(1, 2), (1, 4), (1, 6), (2, 8), (2, 10), (2, 12)]
    assert [step for step, _ in logged(recorded(), "batch/val/loss")] == [2, 4, 8, 10]
    assert [step for step, _ in logged(recorded(), "val/loss")] == [1, 2]
    assert None not in result["metrics"]["val/loss"]


def test_the_best_weights_may_be_from_within_an_epoch(kept, flowers):
    training = {
        "epochs": 1,
        "batch_size": 10,
        "validate_every_steps": 4,
        "optimizer": {"type": "SGD", "lr": 0.05},
        "schedule": {"type": "switch", "values": {"4": 50.0}, "by": "step"},
    }
    trainer, recorded = kept(samples=PARTS, training=training)
    short, _ = kept(samples=PARTS, training={**training, "max_steps": 4, "monitor": None})

    result = trainer.train()
    within = logged(recorded(), "batch/val/loss")
    short.train()

    assert result["best"] == {"epoch": 1, "metric": "val/loss", "value": within[0][1], "mode": "min"}
    assert within[0] == (4, min(value for _, value in within))
    assert trainer.predict_proba(flowers[0]).tobytes() == short.predict_proba(flowers[0]).tobytes()


def test_a_training_can_be_stopped_by_what_a_validation_within_an_epoch_gives(tiny):
    class Stop(Callback):
        def on_validation_end(self, state):
            state.stop("seen")

    training = {"epochs": 3, "batch_size": 15, "validate_every_steps": 2}

    result = tiny(samples=PARTS, training=training).train([Stop()])

    assert result["stop_reason"] == "seen"
    assert result["metrics"]["val/loss"] == [result["best"]["value"]]


def test_validation_changes_nothing_of_what_is_learned(tiny):
    model = {"type": "user_torch_models:Validating"}  # which draws numbers in validation, and has dropout
    training = {"epochs": 2, "batch_size": 15, "monitor": None}

    often, never = (
        tiny(model=model, samples=PARTS, training={**training, **cadence})
        for cadence in ({"validate_every_steps": 1}, {"validate_every_epochs": 9})
    )
    often.train(), never.train()

    assert same_bits(often, never)


# Deterministic algorithms, compiling.


@pytest.mark.parametrize("warn_only", [False, True])
def test_deterministic_algorithms_are_used_in_training_and_the_setting_of_the_program_comes_back(tiny, warn_only):
    class See(Callback):
        def on_step_end(self, state):
            seen.append(torch.are_deterministic_algorithms_enabled())

    seen: list[bool] = []
    before = os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.use_deterministic_algorithms(warn_only, warn_only=warn_only)
    try:
        tiny(training={"max_steps": 2, "deterministic": True}).train([See()])

        assert seen == [True, True]
        assert torch.are_deterministic_algorithms_enabled() == warn_only
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        if before is not None:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = before


def test_the_setting_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError, match="by zero"), deterministic(True):
        raise ZeroDivisionError("by zero")

    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch, by torch
def test_a_compiled_step_learns_the_same(tiny):
    training = {"epochs": 3, "batch_size": 16, "accumulate": 2, "optimizer": {"type": "SGD", "lr": 0.1}}
    eager, compiled = (tiny(model="mlp", training={**training, "compile": flag}) for flag in (False, True))

    losses = [each.train()["metrics"]["train/loss"] for each in (eager, compiled)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert compiled.result["execution"]["compile"] is True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch, by torch
def test_a_compiled_step_of_ones_own_is_not_compiled_anew_for_each_value_of_a_schedule(tiny, caplog):
    schedule = {"noise": {"type": "cosine", "initial": 0.5, "by": "step"}}
    training = {"epochs": 3, "batch_size": 30, "schedule": schedule, "compile": True}

    metrics = tiny(
        model={"type": "user_torch_models:Noisy"}, training=training, samples={"train": 120, "val": 30}
    ).train()["metrics"]

    assert metrics["train/noise"][-1] < metrics["train/noise"][0]
    assert "recompile_limit" not in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch, by torch
def test_many_compiled_trainings_in_a_process_are_all_compiled_and_leave_other_compiled_functions_alone():
    counted = torch._dynamo.utils.counters["stats"]
    of_the_program = torch.compile(lambda x: x * 2, dynamic=False)
    of_the_program(torch.ones(3))
    before = counted["unique_graphs"]

    for size in range(10):  # torch gives up after eight variants of a function
        step = compiled(lambda values: lambda batch: batch.inputs.sum(), {})
        step(Batch(torch.ones(size + 1), torch.ones(1)))
    of_the_program(torch.ones(3))

    assert counted["unique_graphs"] == before + 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch, by torch
def test_a_compiled_training_goes_on_exactly(tiny):
    training = {"epochs": 3, "batch_size": 32, "compile": True, "checkpoint": {}}
    whole = tiny(model="mlp", training=training)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        tiny(model="mlp", training=training, seed=0).train([Interrupt(6)])
    resumed = tiny(model="mlp", training=training)
    resumed.train(resume="auto")

    assert resumed.result["resumed_from"] is not None
    assert same_bits(whole, resumed)


# Rows that count differently.


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_weighed_rows_in_accumulated_batches_give_the_gradient_of_the_large_weighed_batch(tiny, task):
    X, y = user_code.rows_of(task)
    weights = np.random.default_rng(0).random(40)
    weights[:8] = 0.0  # a batch that counts nothing
    data = {"type": "arrays", "X": X, "y": y, "task": task, "sample_weight": weights}
    common = {"epochs": 3, "optimizer": {"type": "SGD", "lr": 0.05}}
    small = tiny(data, "linear", {**common, "batch_size": 8, "accumulate": 5}, samples={"train": 1.0}, shuffle=False)
    large = tiny(data, "linear", {**common, "batch_size": 40}, samples={"train": 1.0}, shuffle=False)

    losses = [each.train()["metrics"]["train/loss"] for each in (small, large)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(module_of(small).parameters(), module_of(large).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weighed_rows_are_learned_from_as_often_as_their_weight_says(tiny):
    X, y = user_code.rows_of("regression")
    weights = np.arange(40) % 3
    common = {"epochs": 4, "batch_size": 1000, "optimizer": {"type": "SGD", "lr": 0.05}}
    weighed = tiny(
        {"type": "arrays", "X": X, "y": y, "sample_weight": weights}, "linear", common, samples={"train": 1.0}
    )
    repeated = {"type": "arrays", "X": X.repeat(weights, axis=0), "y": y.repeat(weights)}
    twice = tiny(repeated, "linear", common, samples={"train": 1.0})

    losses = [each.train()["metrics"]["train/loss"] for each in (weighed, twice)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
def test_rows_that_are_drawn_are_drawn_in_their_proportion_and_not_weighed_again(tiny, sampling):
    y = np.array(["many"] * 36 + ["few"] * 4)
    weights = np.where(y == "few", 9.0, 1.0)
    data = {"type": "arrays", "X": np.where(y == "few", 1.0, 0.0)[:, None], "y": y, "sample_weight": weights}
    if sampling == "balanced":
        del data["sample_weight"]
    training = {"epochs": 50, "sampling": sampling, "optimizer": {"type": "SGD", "lr": 1e-9}}

    metrics = tiny(data, {"type": "user_torch_models:Noisy"}, training, samples={"train": 1.0}).train()["metrics"]

    share = np.mean(metrics["train/first"])  # of rows of the rare class among those that were drawn
    assert share == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(50 * 40))


def test_drawn_rows_are_the_same_after_a_resume(tiny):
    training = {"epochs": 4, "batch_size": 10, "sampling": "balanced", "steps_per_epoch": 5, "checkpoint": {}}
    whole = tiny(training=training)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        tiny(training=training).train([Interrupt(13)])
    resumed = tiny(training=training)
    resumed.train(resume="auto")

    assert same_bits(whole, resumed)


def test_a_schedule_that_climbs_instead_of_descending_is_refused(tiny):
    schedule = {"type": "switch", "values": {"1": -5.0}}

    with pytest.raises(
        TrainingError, match=r"schedule.lr: it gives -5.0 after 1 epochs .*; a learning rate is at least 0"
    ):
        tiny(training={"epochs": 3, "schedule": schedule}).train()
