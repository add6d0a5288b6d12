"""What is told of single steps, without waiting for the device at each, and how fast they went by."""

from __future__ import annotations

import time

import torch

from gymtrain.tracking import Report
from gymtrain.training.loop import EpochEnd, StepEnd


class StepLog:
    """The losses of every n-th step, fetched from the device together: one alone would wait for it.

    They are told at the first step that ends a second or more after that of the oldest, before a checkpoint, and at the
    end of an epoch.

    Args:
        every: Steps from one that is logged to the next; 0 for none.
        report: Told of them.
    """

    SECONDS_BETWEEN_FETCHES = 1.0

    def __init__(self, every: int, report: Report) -> None:
        self._every, self._report = every, report
        self._losses: list[torch.Tensor] = []
        self._when: list[tuple[int, int | None, float]] = []

    def add(self, event: StepEnd, steps_in_epoch: int) -> None:
        """Take in a step, and how many its epoch has had with it, those before a resume too."""
        if self._every and event.step % self._every == 0:
            is_first = steps_in_epoch <= self._every
            self._losses.append(event.loss.detach())
            self._when.append((event.step, event.epoch if is_first else None, time.time()))
        if self._when and time.time() - self._when[0][2] >= self.SECONDS_BETWEEN_FETCHES:
            self.flush()

    def flush(self) -> None:
        """Report what is waiting."""
        if self._losses:
            losses = torch.stack(self._losses).tolist()
            self._report.steps(
                [(step, epoch, loss, when) for (step, epoch, when), loss in zip(self._when, losses, strict=True)]
            )
            self._losses.clear()
            self._when.clear()


class Speed:
    """How many rows a second went through the epochs that are over.

    Args:
        rows_per_epoch: Rows in a whole epoch.
        rows_per_step: Rows in a step, but for the last of an epoch.
        step: The steps that were over before.
    """

    def __init__(self, rows_per_epoch: int, rows_per_step: int, step: int) -> None:
        self._rows_per_epoch, self._rows_per_step, self._step = rows_per_epoch, rows_per_step, step
        self._rows = 0
        self._seconds = 0.0

    def of(self, event: EpochEnd) -> float:
        """Return the mean over the epochs so far."""
        steps, self._step = event.step - self._step, event.step
        self._rows += min(steps * self._rows_per_step, self._rows_per_epoch)
        self._seconds += event.seconds
        return self._rows / self._seconds
