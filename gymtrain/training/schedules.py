"""Schedules: values that change while a model learns.

A schedule is a function of how far training is, counted in epochs or in steps from 0, and holds no state, so that a
resumed training goes on with the same value; only `plateau` looks at a metric, and what it has seen is saved. The
formulas are those of torch.optim.lr_scheduler where it has the same schedule, in closed form: torch multiplies from
step to step, which differs in the last bits.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import pydantic

Unit = Literal["epoch", "step"]
Positive = Annotated[float, pydantic.Field(gt=0)]
Count = Annotated[int, pydantic.Field(ge=1)]
Table = dict[str, float]


class Schedule(ABC):
    """Base for schedules.

    Args:
        by: What `time` counts.
        initial: The value at the beginning; None for the one that the optimizer has, which `begin` tells.
    """

    words: ClassVar[str] = "schedules"
    """What to expect where there are several, for messages."""

    by: Unit = "epoch"
    initial: float | None = None

    def begin(self, initial: float | None, length: int | None) -> None:
        """Learn what the spec leaves open.

        Args:
            initial: The value that the optimizer has.
            length: How many epochs or steps are planned; None when that is not known.

        Raises:
            ValueError: Something is left open that training does not know either.
        """
        if self.initial is None:
            self.initial = initial
        if self.initial is None:
            raise ValueError("initial is missing; only a value of the optimizer has one of its own")
        self.length = length

    @abstractmethod
    def value(self, time: int) -> float:
        """Return the value after so many epochs or steps, from 0."""

    @property
    def _start(self) -> float:
        if self.initial is None:
            raise ValueError("begin() comes first")
        return self.initial


class Constant(Schedule):
    """The same value throughout.

    Args:
        initial: The value; null for the optimizer's own.
    """

    def __init__(self, initial: float | None = None) -> None:
        self.initial = initial

    def value(self, time: int) -> float:
        """Return the initial value."""
        return self._start


class Exponential(Schedule):
    """Multiply by a factor again and again: `initial * multiplier ** (time / step_length)`.

    Args:
        initial: The first value; null for the optimizer's own.
        multiplier: The factor.
        step_length: How many epochs or steps one multiplication takes.
        continuous: Let the value change in between too, instead of in stairs.
        min: No value is below this.
        max: No value is above this.
        by: Whether `step_length` counts epochs or steps.
    """

    def __init__(
        self,
        initial: float | None = None,
        multiplier: Positive = 0.95,
        step_length: Count = 1,
        continuous: bool = False,
        min: float | None = None,
        max: float | None = None,
        by: Unit = "epoch",
    ) -> None:
        self.initial, self.multiplier, self.step_length, self.continuous = initial, multiplier, step_length, continuous
        self.min, self.max, self.by = min, max, by

    def value(self, time: int) -> float:
        """Return the value within its bounds."""
        power = time / self.step_length if self.continuous else time // self.step_length
        value = self._start * self.multiplier**power
        value = value if self.min is None else max(value, self.min)
        return value if self.max is None else min(value, self.max)


class Step(Schedule):
    """Multiply by `gamma` every `step_size` epochs or steps (torch's StepLR).

    Args:
        initial: The first value; null for the optimizer's own.
        step_size: How long each value lasts.
        gamma: The factor.
        by: Whether `step_size` counts epochs or steps.
    """

    def __init__(
        self, step_size: Count, initial: float | None = None, gamma: Positive = 0.1, by: Unit = "epoch"
    ) -> None:
        self.step_size, self.initial, self.gamma, self.by = step_size, initial, gamma, by

    def value(self, time: int) -> float:
        """Return the value of the stair."""
        return self._start * self.gamma ** (time // self.step_size)


class Multistep(Schedule):
    """Multiply at given times (torch's MultiStepLR; with a factor for each time, dpipe's Schedule).

    Args:
        milestones: The times, in a list that goes up, or a table of a factor for each.
        initial: The first value; null for the optimizer's own.
        gamma: The factor for the times of a list.
        by: Whether the times are epochs or steps.
    """

    def __init__(
        self, milestones: list[int] | Table, initial: float | None = None, gamma: Positive = 0.1, by: Unit = "epoch"
    ) -> None:
        table = milestones if isinstance(milestones, dict) else {str(time): gamma for time in milestones}
        self.initial, self.by = initial, by
        self._times, self._factors = _table(table)

    def value(self, time: int) -> float:
        """Return the product of the factors whose time has come."""
        return self._start * math.prod(self._factors[: bisect.bisect_right(self._times, time)])


class Switch(Schedule):
    """Take a new value at given times.

    Args:
        values: A table of the value from each time on.
        initial: The value before the first of them; null for the optimizer's own.
        by: Whether the times are epochs or steps.
    """

    def __init__(self, values: Table, initial: float | None = None, by: Unit = "epoch") -> None:
        self.initial, self.by = initial, by
        self._times, self._values = _table(values)

    def value(self, time: int) -> float:
        """Return the value of the last time that has come."""
        position = bisect.bisect_right(self._times, time)
        return self._values[position - 1] if position else self._start


class Cosine(Schedule):
    """Fall along half a cosine (torch's CosineAnnealingLR), then stay at the end.

    Args:
        initial: The first value; null for the optimizer's own.
        final: The last value.
        length: How many epochs or steps the fall takes; null for the whole training.
        by: Whether `length` counts epochs or steps.
    """

    def __init__(
        self, initial: float | None = None, final: float = 0.0, length: Count | None = None, by: Unit = "epoch"
    ) -> None:
        self.initial, self.final, self._length, self.by = initial, final, length, by

    def begin(self, initial: float | None, length: int | None) -> None:
        """Learn how long training is."""
        super().begin(initial, self._length or length)
        if self.length is None:
            raise ValueError("length is missing, and how long training will be is not known")

    def value(self, time: int) -> float:
        """Return the value on the cosine."""
        return _cosine(self._start, self.final, min(time / (self.length or 1), 1.0))


class CosineRestarts(Schedule):
    """Fall along half a cosine, begin anew, longer each time (SGDR, https://arxiv.org/abs/1608.03983).

    Args:
        period: How many epochs or steps the first fall takes.
        initial: The first value; null for the optimizer's own.
        final: The last value of each fall.
        period_multiplier: How much longer each fall is than the one before.
        restart_multiplier: How much of the initial value each fall begins with, compared with the one before.
        by: Whether `period` counts epochs or steps.
    """

    def __init__(
        self,
        period: Count,
        initial: float | None = None,
        final: float = 0.0,
        period_multiplier: Count = 1,
        restart_multiplier: Positive = 1.0,
        by: Unit = "epoch",
    ) -> None:
        self.period, self.initial, self.final, self.by = period, initial, final, by
        self.period_multiplier, self.restart_multiplier = period_multiplier, restart_multiplier

    def value(self, time: int) -> float:
        """Return the value on the cosine of the fall that is going on."""
        period, begin = self.period, self._start
        if self.period_multiplier == 1:
            restarts, time = divmod(time, period)
            begin *= self.restart_multiplier**restarts
        else:
            while time >= period:
                time -= period
                period *= self.period_multiplier
                begin *= self.restart_multiplier
        return _cosine(begin, self.final, time / period)


class OneCycle(Schedule):
    """Rise to a maximum, then fall far below the first value (torch's OneCycleLR, https://arxiv.org/abs/1708.07120).

    Args:
        max: The highest value; null for ten times the optimizer's own.
        rising: The fraction of the training in which the value rises.
        div_factor: The first value is the highest one divided by this.
        final_div_factor: The last value is the first one divided by this.
        length: How many steps or epochs it takes; null for the whole training.
        by: Whether `length` counts epochs or steps.
    """

    def __init__(
        self,
        max: Positive | None = None,
        rising: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.3,
        div_factor: Positive = 25.0,
        final_div_factor: Positive = 1e4,
        length: Count | None = None,
        by: Unit = "step",
    ) -> None:
        self.max, self.rising, self.div_factor, self.final_div_factor = max, rising, div_factor, final_div_factor
        self._length, self.by = length, by

    def begin(self, initial: float | None, length: int | None) -> None:
        """Learn how long training is, and the optimizer's own value."""
        if self.max is None and initial is not None:
            self.max = 10 * initial
        super().begin(self.max / self.div_factor if self.max is not None else None, self._length or length)
        if self.length is None:
            raise ValueError("length is missing, and how long training will be is not known")

    def value(self, time: int) -> float:
        """Return the value on the cycle."""
        top, length = self._start * self.div_factor, self.length or 1
        peak, last = self.rising * length - 1, length - 1
        if time <= peak:
            return _cosine(self._start, top, time / peak if peak > 0 else 1.0)
        passed = min((time - peak) / (last - peak), 1.0) if last > peak else 1.0
        return _cosine(top, self._start / self.final_div_factor, passed)


class LinearWarmup(Schedule):
    """Rise in a straight line from a fraction of the value to the value, then stay (torch's LinearLR).

    Args:
        length: How many steps or epochs the rise takes.
        initial: The value at the end of the rise; null for the optimizer's own.
        start_factor: The fraction of it that the rise begins with.
        by: Whether `length` counts epochs or steps.
    """

    def __init__(
        self,
        length: Count,
        initial: float | None = None,
        start_factor: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0,
        by: Unit = "step",
    ) -> None:
        self.warmup, self.initial, self.start_factor, self.by = length, initial, start_factor, by

    def value(self, time: int) -> float:
        """Return the value on the line."""
        passed = min(time / self.warmup, 1.0)
        return self._start * (self.start_factor + (1.0 - self.start_factor) * passed)


class Plateau(Schedule):
    """Multiply when a metric no longer gets better (torch's ReduceLROnPlateau, dpipe's DecreasingOnPlateau).

    Args:
        initial: The first value; null for the optimizer's own.
        multiplier: The factor.
        patience: How many epochs without a better value are borne.
        rtol: How much better counts, as a fraction of the best value.
        atol: How much better counts, in the metric's own unit.
        cooldown: How many epochs after a change nothing is counted.
        min: No value is below this.
        monitor: The metric; null for the one that training monitors.
        mode: Whether less or more is better; null for what the metric says of itself.
    """

    def __init__(
        self,
        initial: float | None = None,
        multiplier: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1,
        patience: Annotated[int, pydantic.Field(ge=0)] = 10,
        rtol: Annotated[float, pydantic.Field(ge=0)] = 1e-4,
        atol: Annotated[float, pydantic.Field(ge=0)] = 0.0,
        cooldown: Annotated[int, pydantic.Field(ge=0)] = 0,
        min: Annotated[float, pydantic.Field(ge=0)] = 0.0,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        self.initial, self.multiplier, self.patience, self.cooldown = initial, multiplier, patience, cooldown
        self.rtol, self.atol, self.min, self.monitor, self.mode = rtol, atol, min, monitor, mode
        self._best: float | None = None
        self._bad = self._rest = self._reductions = 0

    def observe(self, metric: float) -> None:
        """Look at the metric of an epoch."""
        if self._is_better(metric):
            self._best, self._bad = metric, 0
        else:
            self._bad += 1
        if self._rest:
            self._rest, self._bad = self._rest - 1, 0
        if self._bad > self.patience:
            self._reductions, self._rest, self._bad = self._reductions + 1, self.cooldown, 0

    def _is_better(self, metric: float) -> bool:
        if self._best is None:
            return not math.isnan(metric)
        margin = self.atol + self.rtol * abs(self._best)
        return metric > self._best + margin if self.mode == "max" else metric < self._best - margin

    def value(self, time: int) -> float:
        """Return the value after the reductions so far."""
        return max(self._start * self.multiplier**self._reductions, self.min)

    def state_dict(self) -> dict[str, Any]:
        """Return what it has seen."""
        return {"best": self._best, "bad": self._bad, "rest": self._rest, "reductions": self._reductions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what it had seen."""
        self._best, self._bad, self._rest, self._reductions = (
            state[name] for name in ("best", "bad", "rest", "reductions")
        )


def _cosine(begin: float, end: float, passed: float) -> float:
    return end + (begin - end) * (1.0 + math.cos(math.pi * passed)) / 2.0


def _table(table: Table) -> tuple[list[int], list[float]]:
    """Return the times of a table, going up, and what belongs to each; JSON has its keys as text."""
    odd = [key for key in table if not str(key).isdigit()]
    if odd:
        raise ValueError(f"got the time {odd[0]!r}; expected a whole number of epochs or steps")
    pairs = sorted((int(key), float(value)) for key, value in table.items())
    return [time for time, _ in pairs], [value for _, value in pairs]
