"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn

from gymtrain.data.batch import Batch
from gymtrain.data.randomness import mix
from gymtrain.models.seeding import reseed
from gymtrain.models.torch_model import Outcome
from gymtrain.training.batches import Batches
from gymtrain.training.position import Position, check_weights
from gymtrain.training.update import Update

# Below it, the smallest normal float32, the weights of a window are none.
_TINY = 2.0**-126


class StepEnd(NamedTuple):
    """An optimizer step was taken. `loss` is a tensor on the device: reading it waits for the device."""

    epoch: int
    step: int
    loss: torch.Tensor


class ValidationEnd(NamedTuple):
    """The model was validated within an epoch."""

    epoch: int
    step: int
    metrics: dict[str, float]


class EpochEnd(NamedTuple):
    """An epoch is over. Metrics of the val part are there only where it was validated."""

    epoch: int
    step: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Plan:
    """How long training goes on, and what happens how often.

    Args:
        epochs: How many epochs; None for no limit.
        max_steps: How many optimizer steps; None for no limit.
        accumulate: Batches in a step.
        steps_per_epoch: Steps in an epoch; None for one pass over the rows.
        validate_every_epochs: Epochs from one validation to the next; the last epoch is always validated.
        validate_every_steps: Steps from one validation to the next, also within an epoch; None for none.
    """

    epochs: int | None
    max_steps: int | None = None
    accumulate: int = 1
    steps_per_epoch: int | None = None
    validate_every_epochs: int = 1
    validate_every_steps: int | None = None

    def is_over(self, position: Position) -> bool:
        """Tell whether all planned epochs or steps were taken."""
        has_epochs = self.epochs is not None and position.epochs >= self.epochs
        has_steps = self.max_steps is not None and position.step >= self.max_steps
        return has_epochs or (has_steps and position.steps_in_epoch == 0)  # an epoch that has begun is ended

    def batches_left(self, batches: Batches, position: Position) -> Iterator[Batch]:
        """Return the batches that the running epoch still has to go through."""
        each = len(batches) if self.steps_per_epoch is None else self.steps_per_epoch * self.accumulate
        passed = min(position.steps_in_epoch * self.accumulate, each)
        left = each - passed
        if self.max_steps is not None:
            left = min(left, max(self.max_steps - position.step, 0) * self.accumulate)
        return islice(batches.stream(position.epochs * each + passed), left)

    def is_validation_due(self, position: Position) -> bool:
        """Tell whether the model is to be validated before the next step of the running epoch."""
        return position.steps_in_epoch > 0 and position.validated != position.step and self._is_of_steps(position)

    def is_last_validation_due(self, position: Position) -> bool:
        """Tell whether the model is to be validated at the end of the running epoch."""
        epoch = position.epochs + 1
        is_last = epoch == self.epochs or position.step == self.max_steps
        return epoch % self.validate_every_epochs == 0 or is_last or self._is_of_steps(position)

    def _is_of_steps(self, position: Position) -> bool:
        return self.validate_every_steps is not None and position.step % self.validate_every_steps == 0


def fit(
    module: nn.Module,
    training_step: Callable[[Batch], Outcome],
    batches: Batches,
    update: Update,
    validate: Callable[[], dict[str, float]],
    plan: Plan,
    *,
    seed: int,
    position: Position | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    train_mode: Callable[[], object] | None = None,
) -> Iterator[StepEnd | ValidationEnd | EpochEnd]:
    """Train a module in place, yielding what happened; the caller's `for` logs, calls the callbacks, keeps the best.

        for each epoch:
            for each window of batches:
                validate, if it is due within the epoch
                zero_grad
                for each batch of it:  forward and loss, backward
                step
            validate
            yield EpochEnd

    Epochs and steps are counted from 1. `position` says where to begin, and is kept up to date: between two steps it
    holds all that the loop would need to go on from there. Training ends as planned, or once `should_stop()`; an epoch
    that ends early is validated and reported like the others. `train_mode` puts the module in training mode, where not
    all of it is to be.

    Raises:
        NonFiniteLossError: The loss of a step was NaN or infinite; found at the end of a block of steps.
    """
    position = Position() if position is None else position
    train_mode = module.train if train_mode is None else train_mode
    while not plan.is_over(position) and not should_stop():
        epoch, started = position.epochs + 1, perf_counter()
        if position.steps_in_epoch == 0:
            reseed(mix(seed, epoch), batches.device)  # so that dropout depends on nothing that came before
        train_mode()
        for window in windows(plan.batches_left(batches, position), plan.accumulate):
            if plan.is_validation_due(position):
                validated = validate()
                position.validated = position.step
                yield ValidationEnd(epoch, position.step, validated)
                if should_stop():
                    break
                train_mode()
            position.begin_step()
            update.zero_grad()
            shares = shares_of(window)
            losses = []
            for batch, share in zip(window, shares, strict=True):
                outcome = training_step(batch)
                losses.append(update.backward(outcome, share))
                if not isinstance(outcome, torch.Tensor):
                    position.losses.note(outcome, batch.size)
            update.step()
            loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
            position.take(loss, sum(batch.size for batch in window))
            yield StepEnd(epoch, position.step, loss)
            if should_stop():
                break
        position.losses.fetch()  # a loss that is not finite is an error, and not worth a validation
        check_weights(module, position.step)
        validated = validate() if plan.is_last_validation_due(position) or should_stop() else {}
        metrics = {f"train/{name}": value for name, value in position.losses.means().items()} | validated
        position.end_epoch()
        yield EpochEnd(epoch, position.step, metrics, perf_counter() - started)


def windows(batches: Iterator[Batch], size: int) -> Iterator[Sequence[Batch]]:
    """Gather batches in windows of so many, the last one shorter: each is one step of the optimizer."""
    if size == 1:
        return zip(batches)
    return _gathered(batches, size)


def _gathered(batches: Iterator[Batch], size: int) -> Iterator[Sequence[Batch]]:
    while window := list(islice(batches, size)):
        yield window


def shares_of(window: Sequence[Batch]) -> Sequence[float | torch.Tensor | None]:
    """Return how much of its window each batch is, so that every row counts as it should; None for all of it."""
    if len(window) == 1:
        return (None,)
    if window[0].weights is None:
        rows = sum(len(batch.targets) for batch in window)
        return [len(batch.targets) / rows for batch in window]
    sums = torch.stack([batch.weights.sum() for batch in window if batch.weights is not None])
    return list((sums / sums.sum().clamp_min(_TINY)).unbind())
