from __future__ import annotations

import json
import math
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from gymtrain import Callback, Model, SpecError, Trainer, register
from gymtrain.errors import TrainingError
from gymtrain.registry import UnknownTypeError, foreign_names, names
from gymtrain.specs import Experiment
from gymtrain.training.composed_schedules import Chain, FunctionSchedule, TorchSchedule
from gymtrain.training.schedules import (
    Constant,
    Cosine,
    Exponential,
    LinearWarmup,
    Multistep,
    OneCycle,
    Plateau,
    Schedule,
    Step,
)

TIMES = 40
RATES = st.floats(1e-5, 10.0)

# What `{"type": name}` needs beside it.
OF_TORCH = {
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"T_max": 7, "eta_min": 1e-5},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"total_iters": 4},
    "MultiStepLR": {"milestones": [2, 5], "gamma": 0.5},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 60},
    "PolynomialLR": {"total_iters": 9, "power": 2.0},
    "StepLR": {"step_size": 2, "gamma": 0.5},
}


def inverse(time, rate=0.1, power=1.0):
    return rate / (1 + time) ** power


def inverse_of_its_own_unit(time, by=1.0):
    return by / (1 + time)


def with_any(time, **options):
    return float(len(options))


def three_values(time):
    return [0.1, 0.01, 0.001][time]


def late_nonsense(epoch):
    return 0.1 if epoch < 2 else math.nan


def without_time(*, rate):
    return rate


def name_of(function) -> str:
    return f"{function.__module__}:{function.__qualname__}"


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


# One of ours, and the same of torch; both made for a length.
PAIRS = {
    "constant": lambda length: (Constant(), lambda each: lr_scheduler.ConstantLR(each, 1.0)),
    "step": lambda length: (Step(3, gamma=0.5), lambda each: lr_scheduler.StepLR(each, 3, 0.5)),
    "multistep": lambda length: (
        Multistep([2, 4], gamma=0.5),
        lambda each: lr_scheduler.MultiStepLR(each, [2, 4], 0.5),
    ),
    "exponential": lambda length: (
        Exponential(multiplier=0.8),
        lambda each: lr_scheduler.ExponentialLR(each, 0.8),
    ),
    "cosine": lambda length: (Cosine(), lambda each: lr_scheduler.CosineAnnealingLR(each, length)),
    "linear_warmup": lambda length: (
        LinearWarmup(4, start_factor=0.25, by="epoch"),
        lambda each: lr_scheduler.LinearLR(each, 0.25, total_iters=4),
    ),
}


@given(
    parts=st.lists(st.tuples(st.sampled_from(sorted(PAIRS)), st.integers(1, 12)), min_size=1, max_size=4),
    lr=RATES,
)
def test_a_chain_is_the_sequential_of_torch(parts, lr):
    total = sum(length for _, length in parts)
    milestones = [sum(length for _, length in parts[:position]) for position in range(1, len(parts))]
    ours, theirs = zip(*(PAIRS[name](length) for name, length in parts), strict=True)

    def sequential(optimizer):
        return lr_scheduler.SequentialLR(optimizer, [make(optimizer) for make in theirs], milestones)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch sets the first rate of a later part by what it calls deprecated
        expected = values_of_torch(sequential, lr, total)

    assert values_of(Chain(list(ours), milestones), lr, total) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_schedule_whose_length_is_open_takes_what_there_is_until_the_next_or_the_end():
    chain = Chain([Cosine(), Cosine(final=0.5), OneCycle(1.0, by="epoch")], [4, 6])
    parts = [values_of(Cosine(), 1.0, 4), values_of(Cosine(final=0.5), 1.0, 2), values_of(OneCycle(1.0), 1.0, 14)]

    assert values_of(chain, 1.0, 20) == [value for part in parts for value in part]


def test_a_chain_of_chains_counts_from_each_beginning():
    inner = Chain([Constant(1.0), Constant(2.0)], [2])

    assert values_of(Chain([Constant(0.0), inner], [3]), length=8) == [0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0]


def test_a_chain_whose_training_is_over_before_its_end_gives_the_values_so_far():
    assert values_of(Chain([Step(1, gamma=0.5), Cosine()], [100]), 1.0, 3) == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("schedules", "milestones", "message"),
    [
        ([Constant(1.0), Constant(2.0)], [], "got 2 schedules and 0 milestones; expected a milestone for each"),
        ([Constant(1.0)], [3], "got 1 schedules and 1 milestones"),
        ([Constant(1.0)] * 3, [3, 3], r"got the milestones \[3, 3\]; expected them to go up"),
        ([Constant(1.0)] * 3, [3, 2], r"got the milestones \[3, 2\]; expected them to go up"),
        ([Constant(1.0), Plateau()], [3], r"schedules\[1\] is a plateau, which goes by a metric .*; use it outside"),
        ([LinearWarmup(3), Constant(1.0)], [3], r"schedules\[0\] goes by step and the chain by epoch; give both"),
    ],
)
def test_schedules_that_make_no_chain_are_refused(schedules, milestones, message):
    with pytest.raises(ValueError, match=message):
        Chain(schedules, milestones)


def test_what_a_part_of_a_chain_leaves_open_is_told_with_its_place():
    with pytest.raises(ValueError, match=r"schedules\[1\]: length is missing, and how long training will be is not"):
        Chain([Constant(1.0), Cosine()], [3]).begin(1.0, None)
    with pytest.raises(ValueError, match=r"schedules\[0\]: initial is missing"):
        Chain([Cosine(), Constant(1.0)], [3]).begin(None, 6)


def test_a_function_gives_the_value_itself():
    assert values_of(FunctionSchedule(inverse, rate=1.0, power=2.0), length=3) == pytest.approx([1.0, 1 / 4, 1 / 9])
    assert values_of(FunctionSchedule(with_any, one=1, two=2), length=2) == [2.0, 2.0]
    assert values_of(FunctionSchedule(lambda time: np.float32(0.5)), length=1) == [0.5]
    assert FunctionSchedule(inverse, by="step").by == "step"


def test_an_argument_of_the_function_named_by_belongs_to_it():
    schedule = FunctionSchedule(inverse_of_its_own_unit, by=0.5)

    assert schedule.by == "epoch"
    assert values_of(schedule, length=2) == [0.5, 0.25]


@pytest.mark.parametrize("got", [math.nan, math.inf, None, "0.1", True, [0.1]])
def test_a_function_that_returns_no_finite_number_is_told_with_its_name_and_the_time(got):
    def odd(time):
        return got if time == 3 else 0.1

    schedule = FunctionSchedule(odd, by="step")
    schedule.begin(None, 10)

    assert schedule.value(2) == 0.1
    with pytest.raises(TrainingError, match=r"schedule: .*odd returned .* for step 3; expected a finite number"):
        schedule.value(3)


@pytest.mark.parametrize("name", foreign_names("schedule"))
def test_every_scheduler_of_torch_gives_what_it_gives_in_a_loop(name):
    expected = values_of_torch(lambda optimizer: getattr(lr_scheduler, name)(optimizer, **OF_TORCH[name]))

    schedule = TorchSchedule(name, **OF_TORCH[name])
    schedule.begin(0.1, TIMES)

    assert [schedule.value(time) for time in reversed(range(TIMES))] == expected[::-1]


@given(
    lr=RATES,
    mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    up=st.integers(1, 9),
    down=st.none() | st.integers(1, 9),
    top=RATES,
)
@settings(max_examples=30)
def test_a_cycle_is_that_of_torch(lr, mode, up, down, top):
    assume(top > lr)
    options = {"base_lr": lr, "max_lr": top, "step_size_up": up, "step_size_down": down, "mode": mode, "gamma": 0.9}
    expected = values_of_torch(lambda optimizer: lr_scheduler.CyclicLR(optimizer, **options), lr)

    assert values_of(TorchSchedule("CyclicLR", **options, cycle_momentum=False), lr) == expected


@given(lr=RATES, first=st.integers(1, 9), factor=st.integers(1, 3), lowest=st.floats(0.0, 1e-3))
@settings(max_examples=30)
def test_warm_restarts_are_those_of_torch(lr, first, factor, lowest):
    options = {"T_0": first, "T_mult": factor, "eta_min": lowest}
    make = lr_scheduler.CosineAnnealingWarmRestarts
    expected = values_of_torch(lambda optimizer: make(optimizer, **options), lr)

    assert values_of(TorchSchedule("CosineAnnealingWarmRestarts", **options), lr) == expected


@given(lr=RATES, total=st.integers(1, 60), power=st.floats(0.5, 3.0))
@settings(max_examples=30)
def test_a_polynomial_is_that_of_torch(lr, total, power):
    expected = values_of_torch(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total, power), lr)

    assert values_of(TorchSchedule("PolynomialLR", total_iters=total, power=power), lr) == expected


def test_a_scheduler_of_torch_needs_nothing_but_the_time():
    times = st.lists(st.integers(0, 200), min_size=1)
    whole = TorchSchedule("CosineAnnealingLR", T_max=50)
    expected = values_of(whole, length=201)

    @given(times=times)
    def in_any_order(times):
        schedule = TorchSchedule("CosineAnnealingLR", T_max=50)
        schedule.begin(0.1, None)
        assert [schedule.value(time) for time in times] == [expected[time] for time in times]

    in_any_order()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("StepLR", {"step_size": 0}, "StepLR cannot be used with these arguments: integer modulo by zero"),
        ("StepLR", {"step_size": "3"}, "StepLR cannot be used with these arguments: "),
        ("LinearLR", {"start_factor": 2.0}, "LinearLR cannot be used .*: Starting multiplicative factor expected"),
        ("OneCycleLR", {"max_lr": 0.1}, "OneCycleLR cannot be used .*: You must define either total_steps OR"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 3}, "OneCycleLR cannot be used .*: Tried to step 4 times"),
    ],
)
def test_what_torch_refuses_is_told_before_training(name, options, message):
    with pytest.raises(ValueError, match=message):
        TorchSchedule(name, **options).begin(0.1, 10)


# In a spec.

WARMUP = {"type": "linear_warmup", "length": 2, "by": "epoch"}


def schedule_of(schedule, model="mlp"):
    return Model(model=model, training={"schedule": schedule}).training.schedule["lr"]


def test_a_chain_is_written_out_with_the_defaults_of_its_parts():
    written = schedule_of({"type": "chain", "schedules": [WARMUP, "cosine"], "milestones": [2]}).to_dict()

    assert written == {
        "type": "chain",
        "schedules": [
            {"type": "linear_warmup", "length": 2, "initial": None, "start_factor": 0.0, "by": "epoch"},
            {"type": "cosine", "initial": None, "final": 0.0, "length": None, "by": "epoch"},
        ],
        "milestones": [2],
        "by": "epoch",
    }


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_parts_of_a_chain_that_do_not_say_otherwise_go_by_its_unit(by):
    inner = {"type": "chain", "schedules": [{"type": "linear_warmup", "length": 2}, "one_cycle"], "milestones": [2]}
    parts = [inner, {"type": "StepLR", "step_size": 2}, inverse, {"type": "constant"}]

    chain = schedule_of({"type": "chain", "schedules": parts, "milestones": [5, 7, 9], "by": by}).build()

    units = [vars(part).get("by") for part in [*chain.schedules[0].schedules, *chain.schedules]]
    assert units == [by, by, by, by, by, None]


def chained(*schedules, milestones=(5,), **more):
    return {"type": "chain", "schedules": list(schedules), "milestones": list(milestones), **more}


@pytest.mark.parametrize(
    ("schedule", "messages"),
    [
        (
            chained(WARMUP, {"type": "linear_warmup", "lenght": 5}),
            [r"\.schedules\[1\]\.lenght: unknown key; did you mean 'length'\?", r"\.schedules\[1\]\.length: missing"],
        ),
        (chained(WARMUP, "cosin"), [r"\.schedules\[1\]\.type: 'cosin' is not .*; did you mean 'cosine'"]),
        (
            chained(chained("cosine", {"type": "step", "step_size": 0}), "cosine"),
            [r"\.schedules\[0\]\.schedules\[1\]\.step_size: got 0; expected an integer of at least 1"],
        ),
        (chained("cosine", lambda time: 0.1), [r"\.schedules\[1\]\.type: .*<lambda> is not found by its name"]),
        (chained("cosine", "plateau"), [r": schedules\[1\] is a plateau"]),
        (chained("cosine", "cosine", milestones=["5"]), [r"\.milestones\[0\]: got '5'; expected an integer of at"]),
        (chained("cosine", "cosine", milestones=[0]), [r"\.milestones\[0\]: got 0; expected an integer of at least 1"]),
        (chained("cosine", "cosine", milestones=[]), [": got 2 schedules and 0 milestones"]),
        (chained({**WARMUP, "by": "step"}, "cosine"), [r": schedules\[0\] goes by step and the chain by epoch"]),
        (chained("cosine", "cosine", bye="step"), [r"\.bye: unknown key; did you mean 'by'"]),
        (chained("cosine", "cosine", by="hour"), [r"\.by: got 'hour'; expected 'epoch' or 'step'"]),
        (chained(milestones=[]), [r"\.schedules: got \[\]; expected a list of schedules, at least 1 of them"]),
        ({"type": "chain"}, [r"\.schedules: missing; expected a list of schedules", r"\.milestones: missing"]),
        (
            lambda time: 0.1,
            [r"\.type: .*<lambda> is not found by its name in a later process; move it out .*'schedule'"],
        ),
        ({"type": name_of(without_time), "rate": 1.0}, [r"\.type: .*without_time does not take the time; expected"]),
        ({"type": inverse, "powr": 2.0}, [r"\.powr: unknown key; did you mean 'power'"]),
        ({"type": inverse, "time": 2}, [r"\.time: unknown key; known: by, power, rate"]),
        ({"type": inverse, "by": "hour"}, [r"\.by: got 'hour'; expected 'epoch' or 'step'"]),
        ("math:log", [r"\.type: the arguments of .* cannot be told"]),
        ("StepLRR", [r"\.type: 'StepLRR' is not a registered schedule; did you mean 'StepLR'"]),
        ("StepLR", [r"\.step_size: missing; StepLR needs it"]),
        ({"type": "step_lr", "step_size": 2, "gama": 1.0}, [r"\.gama: unknown key; did you mean 'gamma'"]),
        ({"type": "StepLR", "step_size": 2, "gamma": "x"}, [r"\.gamma: got 'x'; expected a number"]),
        ({"type": "StepLR", "step_size": 2, "by": "hour"}, [r"\.by: got 'hour'; expected 'epoch' or 'step'"]),
        ({"type": "StepLR", "step_size": 2, "last_epoch": 3}, [r"\.last_epoch: unknown key; StepLR takes by, gamma"]),
        (
            {"type": "CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "cycle_momentum": True},
            [r"\.cycle_momentum: got True; a schedule changes one value, give the momentum a schedule of its own"],
        ),
        ({"type": "LambdaLR", "lr_lambda": math.sin}, [r"\.type: got 'LambdaLR'; use a function of the time"]),
        ("multiplicative_lr", [r"\.type: got 'multiplicative_lr'; use a function of the time"]),
        ({"type": "ReduceLROnPlateau", "patience": 3}, [r"\.type: got 'ReduceLROnPlateau'; use 'plateau'"]),
        ("SequentialLR", [r"\.type: got 'SequentialLR'; use 'chain'"]),
        ("ChainedScheduler", [r"\.type: got 'ChainedScheduler'; use 'chain'"]),
    ],
)
def test_a_composed_schedule_that_cannot_be_meant_is_refused(schedule, messages):
    with pytest.raises(SpecError, match="problem") as caught:
        schedule_of(schedule)

    assert len(caught.value.faults) == len(messages)
    for message in messages:
        expected = rf"^model\.training\.schedule\.lr{message}"
        assert any(re.search(expected, str(fault)) for fault in caught.value.faults), caught.value


@pytest.mark.parametrize(
    "schedule",
    [{"type": "LinearLR"}, chained("cosine", "LinearLR"), chained(chained("LinearLR", "cosine"), "cosine")],
)
def test_a_scheduler_of_torch_changes_the_learning_rate_alone(schedule):
    with pytest.raises(
        SpecError, match=r"schedule\.weight_decay\.\S*type: LinearLR of torch changes the learning rate"
    ):
        Model(model="mlp", training={"schedule": {"weight_decay": schedule}})


@pytest.fixture
def registered():
    before = dict(names._registered)
    yield
    names._registered.clear()
    names._registered.update(before)


def test_a_function_may_have_a_registered_name(registered):
    @register("schedule", "halves")
    def halves(epoch, rate=1.0):
        return rate / 2**epoch

    component = schedule_of({"type": halves})

    assert component.to_dict() == {"type": "halves", "rate": 1.0, "by": "epoch"}
    assert values_of(component.build(), length=3) == [1.0, 0.5, 0.25]


SCHEDULES = {
    "chain": chained({"type": "linear_warmup", "length": 2}, {"type": "cosine", "final": 1e-4}, milestones=[2]),
    "chain of all": chained(inverse, {"type": "StepLR", "step_size": 1}, "cosine", milestones=[1, 3]),
    "function": inverse,
    "function with arguments": {"type": inverse, "rate": 0.5, "power": 2.0},
    "function by name": name_of(inverse),
    **{name: {"type": name, **options} for name, options in OF_TORCH.items()},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_composed_schedule_reads_back_as_it_was(tiny, name):
    trainer = tiny(training={"schedule": SCHEDULES[name]})

    again = Trainer.from_dict(json.loads(json.dumps(trainer.to_dict())))

    assert again.to_dict() == trainer.to_dict()
    assert again.spec_sha256 == trainer.spec_sha256


class Stop(Callback):
    """Ends a training as a signal would, at the beginning of the third epoch."""

    def on_epoch_begin(self, state):
        if state.epoch == 3:
            raise KeyboardInterrupt


def going_by(by, schedule):
    return {**(schedule if isinstance(schedule, dict) else {"type": schedule}), "by": by}


def values_at_the_ends_of_epochs(schedule, epochs=4):
    """Return the last value of each epoch of `tiny`: 120 rows, in 4 batches."""
    planned = schedule_of(schedule).build()
    planned.begin(0.001, epochs if planned.by == "epoch" else 4 * epochs)
    return [planned.value(epoch if planned.by == "epoch" else 4 * epoch + 3) for epoch in range(epochs)]


@pytest.mark.parametrize("by", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_goes_by_its_schedule(tiny, name, by):
    schedule = going_by(by, SCHEDULES[name])

    result = tiny(training={"epochs": 4, "schedule": schedule}).train()

    assert result["metrics"]["lr"] == values_at_the_ends_of_epochs(schedule)


@pytest.mark.parametrize("by", ["epoch", "step"])
@pytest.mark.parametrize("name", ["chain of all", "function with arguments", "CyclicLR"])
def test_a_training_that_was_interrupted_goes_on_with_its_schedule(tiny, name, by):
    schedule = going_by(by, SCHEDULES[name])
    training = {"epochs": 4, "schedule": schedule, "checkpoint": {}}
    with pytest.raises(KeyboardInterrupt):
        tiny(training=training).train([Stop()])

    resumed = tiny(training=training).train(resume="auto")

    assert resumed["resumed_from"]
    assert resumed["metrics"]["lr"] == values_at_the_ends_of_epochs(schedule)


def test_a_training_of_more_epochs_goes_on_with_the_same_schedule(tiny):
    schedule = chained({"type": "LinearLR", "total_iters": 2}, {"type": "cosine", "length": 4}, milestones=[2])
    whole = tiny(training={"epochs": 6, "schedule": schedule}).train()["metrics"]["lr"]
    tiny(training={"epochs": 3, "schedule": schedule, "checkpoint": {}}).train()

    result = tiny(training={"epochs": 6, "schedule": schedule, "checkpoint": {}}).train(resume="auto")

    assert len(result["metrics"]["lr"]) == 6
    assert result["metrics"]["lr"] == whole


def test_a_function_is_not_asked_for_more_than_the_training_has(tiny):
    result = tiny(training={"epochs": 3, "schedule": three_values}).train()

    assert result["metrics"]["lr"] == [0.1, 0.01, 0.001]


def test_a_function_that_fails_in_a_training_is_told(tiny):
    with pytest.raises(TrainingError, match=r"late_nonsense returned nan for epoch 2; expected a finite number"):
        tiny(training={"epochs": 4, "schedule": late_nonsense}).train()


def test_a_scheduler_that_torch_refuses_is_told_with_its_place(tiny):
    with pytest.raises(SpecError, match=r"model\.training\.schedule\.lr: OneCycleLR cannot be used with these"):
        tiny(training={"epochs": 4, "schedule": {"type": "OneCycleLR", "max_lr": 0.1}}).train()


@pytest.mark.parametrize("where", ["alone", "in a chain"])
def test_a_file_does_not_decide_which_function_is_imported(tmp_path, monkeypatch, where):
    (tmp_path / "not_trusted.py").write_text("def rate(epoch):\n    return 0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    schedule = {"type": "not_trusted:rate", "by": "epoch"}
    schedule = schedule if where == "alone" else chained({"type": "constant", "initial": 1.0}, schedule, by="epoch")
    spec = {"dataset": {"dataset": "iris"}, "model": {"model": "mlp", "training": {"schedule": schedule}}}

    with Experiment.reading_a_file(trust=[]):
        read = Experiment(**spec)

    component = read.model.training.schedule["lr"]
    assert component.to_dict() == schedule
    assert Experiment(**{**spec, "model": read.model}).sha256 == read.sha256
    with pytest.raises(UnknownTypeError, match=r"a file may not decide what is imported; if you trust it, load"):
        component.build()
    assert "not_trusted" not in sys.modules


def test_a_bundle_is_read_where_its_function_of_the_time_is_not(tiny, tmp_path, flowers):
    trainer = tiny(training={"epochs": 1, "schedule": chained("cosine", inverse)})
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    loaded = Trainer.load(tmp_path / "model.zip")

    assert loaded.predict_proba(flowers[0]).tolist() == trainer.predict_proba(flowers[0]).tolist()
    assert loaded.spec_sha256 == trainer.spec_sha256


# What a model's own training step takes.


class Noisy(torch.nn.Module):
    def __init__(self, input_shape, output_size):
        super().__init__()
        self.last = torch.nn.Linear(input_shape[0], output_size)

    def forward(self, rows):
        return self.last(rows)

    def training_step(self, batch, noise=0.1, *, alpha=1.0):
        return self.last(batch.inputs).mean()


class Open(Noisy):
    def training_step(self, batch, **values):
        return self.last(batch.inputs).mean()


def test_keywords_of_a_training_step_may_be_scheduled():
    schedule = {"lr": "cosine", "alpha": {"type": "cosine", "initial": 1.0}, "noise": inverse}

    spec = Model(model=Noisy, training={"schedule": schedule})

    assert list(spec.training.schedule) == ["lr", "alpha", "noise"]
    assert list(Model(model=Open, training={"schedule": {"other": "cosine"}}).training.schedule) == ["other"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alpah", r"Adam has no value 'alpah' that can change; did you mean 'alpha'\?$"),
        ("weight_deca", r"Adam has no value 'weight_deca' that can change; did you mean 'weight_decay'\?$"),
        (
            "batch",
            r"no value 'batch' that can change; it has .*; the training step of \S*Noisy takes 'noise', 'alpha'$",
        ),
        ("self", r"Adam has no value 'self' that can change; it has 'eps', 'lr', 'weight_decay'; the training step"),
    ],
)
def test_a_value_that_neither_the_optimizer_nor_the_training_step_has_is_refused(name, message):
    with pytest.raises(SpecError, match=rf"model\.training\.schedule: .*{message}"):
        Model(model=Noisy, training={"schedule": {name: "cosine"}})


def test_a_model_without_a_training_step_has_the_values_of_the_optimizer_alone():
    with pytest.raises(
        SpecError, match=r"Adam has no value 'zzz' that can change; it has 'eps', 'lr', 'weight_decay'$"
    ):
        Model(model="mlp", training={"schedule": {"zzz": "cosine"}})
