"""What a training is made of goes through a checkpoint as it is, and any training can be interrupted after any step."""

from __future__ import annotations

import copy
import itertools
import json
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import user_torch_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gymtrain import Callback, Trainer
from gymtrain.data.augmentors import Augmentation, Flip
from gymtrain.data.randomness import draw, order
from gymtrain.training.averaging import Average
from gymtrain.training.batches import Batches
from gymtrain.training.loop import Plan, windows
from gymtrain.training.position import Position
from gymtrain.training.state_tree import flatten, unflatten
from gymtrain.training.update import Update

CPU = torch.device("cpu")


def through_a_checkpoint(state: Any) -> Any:
    """Return a state as a checkpoint gives it back."""
    tree, tensors = flatten(state)
    return unflatten(json.loads(json.dumps(tree)), {name: each.clone() for name, each in tensors.items()})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


# Batches.


def batches_of(rows: int, batch_size: int, width: int, *, drawn: bool, weighed: bool, augmented: bool) -> Batches:
    inputs = torch.arange(float(rows * width * width)).reshape(rows, width, width)
    weights = torch.arange(1.0, rows + 1)
    which = partial(draw, 3, weights=weights) if drawn else partial(order, 3, size=rows, shuffle=True)
    return Batches(
        inputs,
        torch.arange(rows),
        which,
        batch_size=batch_size,
        device=CPU,
        weights=weights if weighed else None,
        augmentation=Augmentation([Flip()], seed=1) if augmented else None,
    )


@given(
    rows=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    width=st.sampled_from([1, 3, 700]),  # the widest batches are gathered one by one
    drawn=st.booleans(),
    weighed=st.booleans(),
    augmented=st.booleans(),
    first=st.integers(0, 200),
)
@settings(max_examples=60)
def test_a_stream_that_begins_later_is_the_same_stream(rows, batch_size, width, drawn, weighed, augmented, first):
    if width == 700:
        rows, batch_size, first = min(rows, 5), min(batch_size, 3), min(first, 12)
    options = {"drawn": drawn, "weighed": weighed, "augmented": augmented}

    skipped = itertools.islice(batches_of(rows, batch_size, width, **options).stream(0), first, first + 5)
    begun = itertools.islice(batches_of(rows, batch_size, width, **options).stream(first), 5)

    assert all(same(tuple(one), tuple(other)) for one, other in zip(skipped, begun, strict=True))


@given(
    rows=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    accumulate=st.integers(1, 4),
    steps_per_epoch=st.none() | st.integers(1, 9),
    max_steps=st.none() | st.integers(1, 12),
    stop=st.integers(0, 12),
)
def test_a_plan_that_is_taken_up_in_the_middle_goes_through_the_same_windows(
    rows, batch_size, accumulate, steps_per_epoch, max_steps, stop
):
    batches = batches_of(rows, batch_size, 1, drawn=False, weighed=False, augmented=False)
    plan = Plan(3, max_steps, accumulate, steps_per_epoch)

    def follow(position: Position, limit: int) -> list[tuple[int, list[int]]]:
        """Take steps without learning, up to the limit."""
        seen = []
        while not plan.is_over(position):
            for window in windows(plan.batches_left(batches, position), plan.accumulate):
                if position.step == limit:
                    return seen
                position.take(torch.zeros(()), 1)
                targets = torch.cat([batch.targets for batch in window])
                seen.append((position.epochs, targets.tolist()))
            position.end_epoch()
        return seen

    whole = follow(Position(), -1)
    position = Position()
    before = follow(position, stop)
    resumed = Position()
    resumed.load_state_dict(through_a_checkpoint(position.state_dict()))

    assert before + follow(resumed, -1) == whole
    assert len(whole) == resumed.step
    if max_steps is not None:
        assert len(whole) <= max_steps
    if steps_per_epoch is not None and max_steps is None:
        assert len(whole) == 3 * steps_per_epoch


# The position.

NUMBERS = st.floats(-1e6, 1e6, width=32)
STEPS = st.lists(st.tuples(NUMBERS, st.integers(1, 64), st.dictionaries(st.sampled_from("ab"), NUMBERS)), max_size=12)


@given(steps=STEPS, cut=st.integers(0, 12), weighed=st.booleans())
def test_a_position_goes_through_its_state_and_means_stay_the_same_bits(steps, cut, weighed):
    whole, first = Position(), Position()

    def follow(position: Position, taken: Any) -> None:
        for loss, size, noted in taken:
            counts = torch.tensor(size / 7) if weighed else size
            position.losses.note({name: torch.tensor(value) for name, value in noted.items()}, counts)
            position.take(torch.tensor(loss), counts)

    follow(whole, steps)
    follow(first, steps[:cut])
    second = Position()
    second.load_state_dict(through_a_checkpoint(first.state_dict()))
    follow(second, steps[cut:])

    assert same(second.state_dict(), whole.state_dict())
    assert second.losses.means() == whole.losses.means()
    assert second.losses.means() == {} or not steps


# The update.


@given(
    optimizer=st.sampled_from(
        [
            partial(torch.optim.SGD, lr=0.1),
            partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
            partial(torch.optim.Adam, lr=0.1, amsgrad=True),
            partial(torch.optim.AdamW, lr=0.1, fused=True),
            partial(torch.optim.RMSprop, lr=0.1, centered=True),
            partial(torch.optim.Adagrad, lr=0.1),
            partial(torch.optim.RAdam, lr=0.1, foreach=True),
            partial(torch.optim.Adamax, lr=0.1),
        ]
    ),
    averaged=st.booleans(),
    scaled=st.booleans(),
    clips=st.sampled_from([{}, {"clip_grad_norm": 0.1}, {"clip_grad_value": 0.01}]),
    groups=st.booleans(),
    cut=st.integers(0, 5),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=60)
def test_an_update_goes_through_its_state_and_takes_the_same_steps(
    optimizer, averaged, scaled, clips, groups, cut, dtype
):
    torch.manual_seed(0)
    rows = torch.randn(6, 8, 3, dtype=dtype)

    def make(weights: Any = None) -> tuple[nn.Module, Update]:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to(dtype)
        if weights is not None:
            module.load_state_dict(weights)
        halves: Any = [{"params": module[0].parameters()}, {"params": module[1:].parameters(), "lr": 0.01}]
        made = optimizer(halves if groups else list(module.parameters()))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0) if scaled else None
        average = Average(module, decay=0.5) if averaged else None
        return module, Update({"loss": made}, scaler=scaler, average=average, **clips)

    def follow(module: nn.Module, update: Update, taken: torch.Tensor) -> None:
        for batch in taken:
            update.zero_grad()
            update.backward(module(batch).float().square().mean())
            update.step()

    module, update = make()
    follow(module, update, rows)
    first, begun = make()
    follow(first, begun, rows[:cut])
    second, resumed = make(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(through_a_checkpoint(begun.state_dict()))
    follow(second, resumed, rows[cut:])

    assert same(dict(second.state_dict()), dict(module.state_dict()))
    assert same(through_a_checkpoint(resumed.state_dict()), through_a_checkpoint(update.state_dict()))


# Whole trainings.


class Interrupt(Callback):
    """Ends a training after a step, as a signal would, or at the first hook of a name from there on."""

    def __init__(self, step: int, hook: str = "on_step_end") -> None:
        self.step, self.hook, self.counted = step, hook, 0

    def on_step_end(self, state):
        self.counted += 1
        self._raise("on_step_end", state)

    def on_validation_end(self, state):
        self.counted += 100
        self._raise("on_validation_end", state)

    def on_epoch_begin(self, state):
        self._raise("on_epoch_begin", state)  # it is called again
        self.counted += 10_000

    def on_epoch_end(self, state):
        state.metrics["counted"] = self.counted
        self._raise("on_epoch_end", state)

    def _raise(self, hook, state):
        if hook == self.hook and state.step >= self.step > 0:
            raise KeyboardInterrupt

    def state_dict(self):
        return {"counted": self.counted}

    def load_state_dict(self, state):
        self.counted = state["counted"]


def run(tiny: Any, training: dict[str, Any], interruptions: list[Interrupt], model: str = "Noisy") -> Trainer:
    """Train on little data, interrupted and resumed again and again."""
    spec = {
        "epochs": 3,
        "batch_size": 9,
        "schedule": {"noise": {"type": "cosine", "initial": 0.3, "by": "step"}, "lr": {"type": "plateau"}},
        "early_stopping": {"patience": 3},
        "checkpoint": {"every_epochs": 99},
        **training,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has batch norm")
        for interruption in [*interruptions, Interrupt(0)]:
            trainer = tiny(
                model={"type": f"user_torch_models:{model}"}, training=spec, samples={"train": 40, "val": 20, "test": 9}
            )
            try:
                trainer.train([interruption], resume="auto" if interruptions else False)
            except KeyboardInterrupt:
                assert interruption.step
    return trainer


def outcome(trainer: Trainer) -> tuple[Any, ...]:
    result = trainer.result
    module = trainer._predictor.learner.module
    tensors = {name: each.numpy().tobytes() for name, each in module.float().state_dict().items()}
    return result["metrics"], result["best"], result["stop_reason"], tensors


GRID = list(
    itertools.product(
        [
            {"type": "SGD", "lr": 0.05, "momentum": 0.9},
            {"type": "Adam", "lr": 0.01},
            {"type": "AdamW", "lr": 0.01, "amsgrad": True},
            {"type": "RMSprop", "lr": 0.01},
        ],
        [1, 3],
        [None, {"decay": 0.8}],
        ["32", "bf16"],
        [None, 2, 7],
    )
)


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "ema", "precision", "steps_per_epoch"),
    # Each pair of values is somewhere among every seventh.
    [pytest.param(*each, marks=[] if index % 7 == 0 else [pytest.mark.slow]) for index, each in enumerate(GRID)],
    ids=lambda value: value["type"] if isinstance(value, dict) and "type" in value else str(value),
)
def test_a_training_that_was_interrupted_after_any_step_ends_with_the_same_bits(
    tiny, tmp_path, optimizer, accumulate, ema, precision, steps_per_epoch
):
    training = {
        "optimizer": optimizer,
        "accumulate": accumulate,
        "ema": ema,
        "precision": precision,
        "steps_per_epoch": steps_per_epoch,
    }
    whole = run(tiny, training, [])
    steps = 3 * (steps_per_epoch or -(-5 // accumulate))

    # One run that is interrupted again after every step that it has.
    resumed = run(tiny, training, [Interrupt(step) for step in range(1, steps + 1)])

    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("hook", ["on_step_end", "on_validation_end", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 9, 10, 11])
@pytest.mark.parametrize(
    "training",
    [
        {"validate_every_steps": 2},
        {"validate_every_epochs": 2, "max_steps": 11},
        {"validate_every_steps": 5, "validate_every_epochs": 3, "sampling": "balanced"},
    ],
    ids=["within epochs", "every second epoch", "both"],
)
def test_a_training_that_was_interrupted_around_a_validation_ends_with_the_same_bits(tiny, training, step, hook):
    training = {**training, "monitor": "val/size", "early_stopping": {"monitor": "val/loss", "patience": 1}}

    whole = run(tiny, training, [], "Measuring")
    resumed = run(tiny, training, [Interrupt(step, hook)], "Measuring")

    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("validation", [1, 2, 3, 4])
def test_a_signal_within_a_validation_ends_it_between_two_blocks_and_changes_no_bit(tiny, validation):
    generator = np.random.default_rng(0)
    data = {"type": "arrays", "X": generator.random((17_000, 2)), "y": np.arange(17_000) % 2}
    training = {"epochs": 2, "batch_size": 60, "validate_every_steps": 2, "checkpoint": {"every_epochs": 9}}
    options = {"samples": {"train": 240, "val": 16_700}, "model": {"type": "user_torch_models:Interrupted"}}
    whole, first, resumed = (tiny(data, training=training, **options) for _ in range(3))
    whole.train()

    # The first of two blocks: the second is not begun. Before the first validation there is a rehearsal.
    user_torch_models.Interrupted.validations_left = 2 * validation
    with pytest.raises(KeyboardInterrupt):
        first.train()
    resumed.train(resume="auto")

    assert first.result["status"] == "KILLED"
    assert resumed.result["resumed_from"] is not None
    assert outcome(resumed) == outcome(whole)


@given(
    optimizer=st.sampled_from(["SGD", "Adam", "Adagrad", "NAdam", {"type": "ASGD", "lr": 0.1}]),
    accumulate=st.integers(1, 3),
    batch_size=st.integers(3, 50).filter(lambda size: 40 % size != 1),
    steps_per_epoch=st.none() | st.integers(1, 4),
    ema=st.sampled_from([None, {"decay": 0.5}, {"decay": 0.9, "warmup": False}]),
    validate=st.fixed_dictionaries(
        {}, optional={"validate_every_steps": st.integers(1, 4), "validate_every_epochs": st.integers(1, 3)}
    ),
    clip=st.sampled_from([{}, {"clip_grad_norm": 0.3}, {"clip_grad_value": 0.1}]),
    sampling=st.sampled_from(["shuffle", "balanced"]),
    checkpoint=st.sampled_from([{}, {"every_steps": 2}, {"every_epochs": 1, "keep_best": 1}]),
    steps=st.lists(st.integers(1, 15), min_size=1, max_size=3, unique=True).map(sorted),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.slow
def test_any_training_can_be_interrupted_anywhere(
    tmp_path_factory,
    optimizer,
    accumulate,
    batch_size,
    steps_per_epoch,
    ema,
    validate,
    clip,
    sampling,
    checkpoint,
    steps,
):
    def tiny(model: Any, training: Any, samples: Any) -> Trainer:
        return Trainer(
            dataset={"dataset": "iris", "samples": samples},
            model={"model": model, "training": training},
            tracking={"root": str(root)},
        )

    training = {
        "optimizer": optimizer,
        "accumulate": accumulate,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "ema": ema,
        "sampling": sampling,
        "checkpoint": checkpoint,
        **validate,
        **clip,
    }
    root = tmp_path_factory.mktemp("whole")
    whole = run(tiny, training, [])
    root = tmp_path_factory.mktemp("resumed")
    resumed = run(tiny, training, [Interrupt(step) for step in steps])

    assert outcome(resumed) == outcome(whole)
