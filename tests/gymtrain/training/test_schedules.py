from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gymtrain import SpecError, Trainer
from gymtrain.registry import BUILTIN
from gymtrain.specs.components import check_component
from gymtrain.training.callbacks import Callback, TrainingState
from gymtrain.training.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    LinearWarmup,
    Multistep,
    OneCycle,
    Plateau,
    Schedule,
    Step,
    Switch,
)
from gymtrain.training.stopping import EarlyStopping, TimeLimit

TIMES = 40
RATES = st.floats(1e-5, 10.0)


def values_of(schedule: Schedule, lr: float = 0.1, length: int = TIMES) -> list[float]:
    schedule.begin(lr, length)
    return [schedule.value(time) for time in range(length)]


def values_of_torch(make, lr: float = 0.1, length: int = TIMES) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    values = []
    for _ in range(length):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@given(lr=RATES, size=st.integers(1, 15), gamma=st.floats(0.1, 1.5))
def test_step_is_that_of_torch(lr, size, gamma):
    expected = values_of_torch(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, size, gamma), lr)

    assert values_of(Step(size, gamma=gamma), lr) == pytest.approx(expected, rel=1e-9)


@given(lr=RATES, times=st.lists(st.integers(1, 39), unique=True, max_size=5), gamma=st.floats(0.1, 1.5))
def test_multistep_is_that_of_torch(lr, times, gamma):
    times = sorted(times)
    expected = values_of_torch(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, times, gamma), lr)

    assert values_of(Multistep(times, gamma=gamma), lr) == pytest.approx(expected, rel=1e-9)


@given(lr=RATES, gamma=st.floats(0.5, 1.1))
def test_exponential_is_that_of_torch(lr, gamma):
    expected = values_of_torch(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma), lr)

    assert values_of(Exponential(multiplier=gamma), lr) == pytest.approx(expected, rel=1e-9)


@given(initial=RATES, multiplier=st.floats(0.3, 0.99), length=st.integers(1, 9), low=st.floats(1e-6, 1e-2))
def test_exponential_keeps_its_steps_and_bounds(initial, multiplier, length, low):
    values = values_of(Exponential(initial, multiplier, length, min=low, max=1.0))

    assert values == pytest.approx(
        [min(max(initial * multiplier ** (time // length), low), 1.0) for time in range(TIMES)]
    )
    smooth = values_of(Exponential(initial, multiplier, length, continuous=True))
    assert smooth == pytest.approx([initial * multiplier ** (time / length) for time in range(TIMES)])


@given(lr=RATES, final=st.floats(0.0, 1e-3))
@settings(max_examples=30)
def test_cosine_is_that_of_torch(lr, final):
    expected = values_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TIMES, eta_min=final), lr
    )

    assert values_of(Cosine(final=final), lr) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(lr=RATES, period=st.integers(1, 12), multiplier=st.integers(1, 3), final=st.floats(0.0, 1e-3))
@settings(max_examples=30)
def test_cosine_restarts_is_that_of_torch(lr, period, multiplier, final):
    expected = values_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period, multiplier, final), lr
    )

    schedule = CosineRestarts(period, final=final, period_multiplier=multiplier)

    assert values_of(schedule, lr) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_each_restart_may_begin_lower():
    assert values_of(CosineRestarts(10, restart_multiplier=0.5), 0.8)[::10] == pytest.approx([0.8, 0.4, 0.2, 0.1])


@given(top=RATES, rising=st.floats(0.1, 0.9), total=st.integers(10, 60))
@settings(max_examples=30)
def test_one_cycle_is_that_of_torch(top, rising, total):
    assume(rising * total >= 2)  # torch divides by zero where the rise takes no step
    expected = values_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, top, total_steps=total, pct_start=rising),
        length=total - 1,
    )

    schedule = OneCycle(top, rising)
    schedule.begin(0.1, total)

    assert [schedule.value(time) for time in range(total - 1)] == pytest.approx(expected, rel=1e-6)


@given(lr=RATES, length=st.integers(1, 30), factor=st.floats(0.01, 1.0))
@settings(max_examples=30)
def test_linear_warmup_is_that_of_torch(lr, length, factor):
    expected = values_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, factor, total_iters=length), lr
    )

    assert values_of(LinearWarmup(length, start_factor=factor), lr) == pytest.approx(expected, rel=1e-6)


@given(
    metrics=st.lists(st.floats(0.0, 10.0), min_size=5, max_size=TIMES),
    patience=st.integers(0, 4),
    rtol=st.floats(0.0, 0.3),
    cooldown=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
)
def test_plateau_is_that_of_torch(metrics, patience, rtol, cooldown, mode):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience, threshold=rtol, cooldown=cooldown, eps=0.0
    )
    schedule = Plateau(multiplier=0.5, patience=patience, rtol=rtol, cooldown=cooldown, mode=mode)
    schedule.begin(1.0, None)

    for time, metric in enumerate(metrics):
        schedule.observe(metric)
        reference.step(metric)
        assert schedule.value(time) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_plateau_goes_on_where_it_was():
    first, second = Plateau(patience=1, mode="min"), Plateau(patience=1, mode="min")
    for metric in (1.0, 1.0, 1.0):
        first.observe(metric)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.begin(1.0, None)
        schedule.observe(1.0)
        schedule.observe(1.0)

    assert first.value(0) == second.value(0) == pytest.approx(0.01)


def test_switch_and_constant_take_the_values_of_their_tables():
    assert values_of(Switch({"2": 0.5, "10": 0.25}), 1.0, 12) == [1.0] * 2 + [0.5] * 8 + [0.25] * 2
    assert values_of(Constant(0.3)) == [0.3] * TIMES
    assert values_of(Multistep({"1": 0.5, "3": 0.1}), 1.0, 4) == pytest.approx([1.0, 0.5, 0.5, 0.05])


# What `{"type": name}` needs beside it.
NEEDED = {
    "chain": {"schedules": [{"type": "linear_warmup", "length": 2}, "cosine"], "milestones": [2]},
    "cosine_restarts": {"period": 4},
    "linear_warmup": {"length": 5},
    "multistep": {"milestones": [3]},
    "step": {"step_size": 3},
    "switch": {"values": {"3": 0.5}},
}


@pytest.mark.parametrize("name", BUILTIN["schedule"])
def test_every_value_is_a_finite_number_of_at_least_zero(name):
    values = values_of(check_component("schedule", {"type": name, **NEEDED.get(name, {})}).build())

    assert all(math.isfinite(value) and value >= 0 for value in values)


@pytest.mark.parametrize("by", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(set(BUILTIN["schedule"]) - {"plateau"}))
def test_a_training_goes_by_its_schedule(tiny, name, by):
    unit = {} if name == "constant" else {"by": by}
    component = check_component("schedule", {"type": name, **NEEDED.get(name, {}), **unit})
    planned = component.build()
    epochs = range(4)
    planned.begin(0.001, 4 if planned.by == "epoch" else 16)  # 120 rows in batches of 32

    result = tiny(training={"epochs": 4, "schedule": component.to_dict()}).train()

    assert result["metrics"]["lr"] == [planned.value(e if planned.by == "epoch" else 4 * e + 3) for e in epochs]


class Watch(Callback):
    """Keeps the learning rate of each step: that of the metrics is known at the end of an epoch only."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_epoch_end(self, state: TrainingState) -> None:
        self.rates.append([state.metrics["lr"], state.metrics.get("weight_decay", 0.0)])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.001, 0.00075, 0.00025]),
        ({"type": "step", "step_size": 1, "gamma": 0.5}, [0.001, 0.0005, 0.00025]),
        ({"type": "switch", "values": {"1": 0.5}, "initial": 1.0}, [1.0, 0.5, 0.5]),
        ({"type": "linear_warmup", "length": 8}, [0.001 * 3 / 8, 0.001 * 7 / 8, 0.001]),
    ],
)
def test_a_schedule_changes_the_learning_rate_and_is_logged(tiny, schedule, expected):
    watch = Watch()

    result = tiny(training={"epochs": 3, "schedule": schedule}).train([watch])

    assert result["metrics"]["lr"] == pytest.approx(expected)
    assert [rate for rate, _ in watch.rates] == pytest.approx(expected)


def test_several_values_change_together(tiny):
    schedule = {"lr": "cosine", "weight_decay": {"type": "switch", "values": {"1": 0.1}}}

    result = tiny(training={"epochs": 2, "schedule": schedule}).train()

    assert result["metrics"]["weight_decay"] == [0.0, 0.1]


def test_a_schedule_changes_what_is_learned(tiny, flowers):
    still = tiny(training={"epochs": 3, "schedule": {"type": "constant", "initial": 0.0}})
    still.train()
    first = tiny(training={"max_steps": 1, "optimizer": {"type": "SGD", "lr": 1e-12}})
    first.train()

    assert still.predict_proba(flowers[0]) == pytest.approx(first.predict_proba(flowers[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosin", r"model\.training\.schedule\.lr\.type: 'cosin' is not a registered schedule; did you mean 'cosine'"),
        ({"type": "step"}, r"model\.training\.schedule\.lr\.step_size: missing"),
        ({"type": "step", "step_size": 0}, r"schedule\.lr\.step_size: got 0; expected an integer of at least 1"),
        ({"lrr": "cosine"}, r"model\.training\.schedule: Adam has no value 'lrr' that can change; did you mean 'lr'"),
        ({"betas": "cosine"}, r"model\.training\.schedule: Adam has no value 'betas' that can change"),
        ({"type": "switch", "values": {"a": 1.0}}, r"schedule\.lr: got the time 'a'; expected a whole number"),
        (3, r"model\.training\.schedule: got 3; expected a schedule such as"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(tiny, schedule, message):
    with pytest.raises(SpecError, match=message):
        tiny(training={"schedule": schedule})


def test_a_plateau_of_a_metric_that_is_not_there_is_refused(tiny):
    schedule = {"type": "plateau", "monitor": "val/acuracy"}

    with pytest.raises(SpecError, match=r"schedule\.lr\.monitor: there is no metric 'val/acuracy'; did you mean"):
        tiny(training={"epochs": 1, "schedule": schedule, "validation_split": 0.2}).train()


def test_a_spec_with_a_schedule_reads_back_as_it_was(tiny):
    trainer = tiny(training={"schedule": "cosine", "early_stopping": {"patience": 3}, "clip_grad_norm": 1.0})

    again = Trainer.from_dict(trainer.to_dict())

    assert again.to_dict() == trainer.to_dict()
    assert again.spec_sha256 == trainer.spec_sha256


def test_clipping_bounds_the_norm_of_the_gradients(tiny):
    model = {"epochs": 1, "batch_size": 1000, "optimizer": {"type": "SGD", "lr": 1.0}}
    norms = {}
    for clip in (None, 1e-3):
        before, after = tiny(training={**model, "max_steps": 1, "clip_grad_norm": clip}), None
        before.train()
        after = before._predictor.learner.module
        still = tiny(training={**model, "max_steps": 1, "optimizer": {"type": "SGD", "lr": 1e-30}})
        still.train()
        pairs = zip(after.parameters(), still._predictor.learner.module.parameters(), strict=True)
        norms[clip] = math.sqrt(sum((a - b).detach().pow(2).sum().item() for a, b in pairs))

    assert norms[None] > 1e-2
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "metrics", "reason", "epochs"),
    [
        ({"patience": 1}, [3.0, 2.0, 2.0, 2.0, 1.0], "early_stopping", 4),
        ({"patience": 0, "min_delta": 0.5}, [3.0, 2.0, 1.8, 1.0], "early_stopping", 3),
        ({"patience": 9, "threshold": 1.5}, [3.0, 2.0, 1.0], "threshold", 3),
        ({"patience": 9, "divergence_ratio": 2.0}, [3.0, 1.0, 2.5], "divergence", 3),
        ({"patience": 9}, [3.0, math.nan], "nan", 2),
        ({"mode": "max", "patience": 0}, [0.1, 0.2, 0.2], "early_stopping", 3),
    ],
)
def test_early_stopping_stops_for_its_reasons(options, metrics, reason, epochs):
    stopping, state = EarlyStopping("val/x", **options), TrainingState()

    seen = 0
    while state.stop_reason is None:
        state.metrics = {"val/x": metrics[seen]}
        stopping.on_epoch_end(state)
        seen += 1

    assert (state.stop_reason, seen) == (reason, epochs)


def test_early_stopping_goes_on_where_it_was():
    first, second = EarlyStopping("val/x", patience=1), EarlyStopping("val/x", patience=1)
    state = TrainingState(metrics={"val/x": 1.0})
    first.on_epoch_end(state)
    first.on_epoch_end(state)
    second.load_state_dict(first.state_dict())

    second.on_epoch_end(state)

    assert state.stop_reason == "early_stopping"


def test_a_spec_may_ask_for_early_stopping(tiny):
    training = {"epochs": 50, "validation_split": 0.2, "early_stopping": {"patience": 1, "min_delta": 0.5}}

    result = tiny(training=training).train()

    assert result["stop_reason"] == "early_stopping"
    assert result["status"] == "FINISHED"
    assert len(result["metrics"]["val/loss"]) == 3


def test_early_stopping_by_a_metric_that_is_not_there_is_refused(tiny):
    with pytest.raises(
        SpecError, match=r"early_stopping\.monitor: there is no metric 'val/loss'; did you mean 'train/loss'"
    ):
        tiny(training={"epochs": 1, "early_stopping": {"monitor": "val/loss"}}).train()


def test_time_is_up_after_the_minutes_that_were_given(tiny):
    result = tiny(training={"epochs": 10_000}).train([TimeLimit(minutes=1e-3)])

    assert result["stop_reason"] == "time_limit"
    assert len(result["metrics"]["train/loss"]) < 10_000
