"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn

from gymtrain.data.randomness import mix
from gymtrain.errors import NonFiniteLossError
from gymtrain.training.batches import Batches

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]


class StepEnd(NamedTuple):
    """An optimizer step was taken. `loss` is a tensor on the device: reading it waits for the device."""

    epoch: int
    step: int
    loss: torch.Tensor


class EpochEnd(NamedTuple):
    """A pass over the train part is over."""

    epoch: int
    step: int
    metrics: dict[str, float]
    seconds: float


def fit(
    module: nn.Module,
    batches: Batches,
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    validate: Callable[[], dict[str, float]],
    *,
    epochs: int | None,
    max_steps: int | None,
    seed: int,
    start: tuple[int, int] = (0, 0),
    accumulate: int = 1,
    clip_grad_norm: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepEnd | EpochEnd]:
    """Train a module in place, yielding what happened; the caller's `for` logs, calls the callbacks, keeps the best.

        for each epoch:
            for each window of batches:
                zero_grad
                for each batch of it:  forward, loss, backward
                step
            validate
            yield EpochEnd

    Epochs and steps are counted from 1; `start` has those that are over when a training is resumed. Training ends
    after `epochs` or `max_steps`, whichever comes first, or once `should_stop()`; an epoch that ends early is validated
    and reported like the others.

    Raises:
        NonFiniteLossError: The loss of a step was NaN or infinite; found at the end of a block of steps.
    """
    epoch, step = start
    while epoch != epochs and step != max_steps and not should_stop():
        epoch += 1
        started = perf_counter()
        torch.manual_seed(mix(seed, epoch))  # so that dropout depends on nothing that came before
        module.train()
        losses = Losses()
        for window in windows(batches.epoch(epoch), accumulate):
            optimizer.zero_grad(set_to_none=True)
            rows = sum(len(targets) for _, targets in window)
            parts = []
            for inputs, targets in window:
                loss = loss_of(module(inputs), targets)
                if len(window) > 1:
                    loss = loss * (len(targets) / rows)  # so that every row counts the same
                loss.backward()  # type: ignore[no-untyped-call]
                parts.append(loss.detach())
            if clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), clip_grad_norm)
            optimizer.step()
            step += 1
            mean = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
            losses.add(mean, rows, step)
            yield StepEnd(epoch, step, mean)
            if step == max_steps or should_stop():
                break
        metrics = {"train/loss": losses.mean(), **validate()}
        yield EpochEnd(epoch, step, metrics, perf_counter() - started)


def windows(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Gather batches in lists of so many, the last one shorter: each is one step of the optimizer."""
    while window := list(islice(batches, size)):
        yield window


class Losses:
    """The losses of an epoch, left on the device and fetched in blocks: fetching one would wait for each step."""

    BLOCK = 1000

    def __init__(self) -> None:
        self._pending: list[torch.Tensor] = []
        self._rows: list[int] = []
        self._sum = 0.0
        self._count = 0
        self._step = 0

    def add(self, loss: torch.Tensor, rows: int, step: int) -> None:
        """Take in the mean loss of a batch of so many rows."""
        self._pending.append(loss)
        self._rows.append(rows)
        self._step = step
        if len(self._pending) == self.BLOCK:
            self._fetch()

    def mean(self) -> float:
        """Return the mean over all rows."""
        self._fetch()
        return self._sum / self._count

    def _fetch(self) -> None:
        values = torch.stack(self._pending).tolist() if self._pending else []
        first = self._step - len(values) + 1
        for step, (value, rows) in enumerate(zip(values, self._rows, strict=True), first):
            check_finite(value, step)
            self._sum += value * rows
            self._count += rows
        self._pending.clear()
        self._rows.clear()


def check_finite(loss: float, step: int) -> None:
    """Refuse a loss that nothing can be learned from.

    Raises:
        NonFiniteLossError: It is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the loss became {loss} at step {step}; try a smaller learning rate (model.training.optimizer.lr), scaled "
            f"features (a preprocessor such as standard_scaler), or targets of moderate size"
        )
