"""Schedules made of something else: of other schedules, of a function of the time, of a scheduler of torch."""

from __future__ import annotations

import bisect
import inspect
import math
import numbers
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from gymtrain.errors import TrainingError
from gymtrain.specs.components import Component, check_component
from gymtrain.training.schedules import Count, Plateau, Schedule, Unit

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler


def _check_member(value: Any, info: pydantic.ValidationInfo) -> Component:
    """Check a schedule of a chain; one that does not say what its time counts goes by the unit of the chain."""
    component = check_component("schedule", value)
    given = dict(value) if isinstance(value, dict) else {"type": value}
    unit = (info.context or {}).get("by", Chain.by)
    if "by" in component.arguments and "by" not in given and unit in ("epoch", "step"):
        return check_component("schedule", {**given, "by": unit})
    return component


_ANY_COMPONENT = pydantic.WithJsonSchema({"title": "component", "anyOf": [{"type": "string"}, {"type": "object"}]})
# What the spec has as a component is a schedule when it gets here.
_Member = Annotated[Schedule, pydantic.PlainValidator(_check_member), _ANY_COMPONENT]


class Chain(Schedule):
    """One schedule after the other, each with a time of its own that begins at 0 (torch's SequentialLR).

    A schedule whose `length` is left open takes what is left until the next milestone or the end of the training.

    Args:
        schedules: What comes one after the other. They go by the unit of the chain.
        milestones: When each but the first begins, going up.
        by: Whether the milestones are epochs or steps.

    Raises:
        ValueError: The milestones do not fit the schedules, or a schedule cannot be part of a chain.

    Example:
        >>> from gymtrain.training.schedules import Cosine, LinearWarmup
        >>> chain = Chain([LinearWarmup(2, by="epoch"), Cosine()], [2])
        >>> chain.begin(1.0, 6)
        >>> [round(chain.value(time), 2) for time in range(6)]
        [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """

    def __init__(
        self,
        schedules: Annotated[list[_Member], pydantic.Field(min_length=1)],
        milestones: list[Count],
        by: Unit = "epoch",
    ) -> None:
        self.schedules, self.milestones, self.by = list(schedules), list(milestones), by
        if len(milestones) != len(schedules) - 1:
            raise ValueError(
                f"got {len(schedules)} schedules and {len(milestones)} milestones; expected a milestone for each "
                f"schedule but the first"
            )
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise ValueError(f"got the milestones {milestones}; expected them to go up")
        for position, schedule in enumerate(schedules):
            if isinstance(schedule, Plateau):
                raise ValueError(
                    f"schedules[{position}] is a plateau, which goes by a metric and has no time of its own; use it "
                    f"outside of a chain"
                )
            # Those that have no unit of their own, such as a constant, go by any.
            if vars(schedule).get("by", by) != by:
                raise ValueError(
                    f"schedules[{position}] goes by {schedule.by} and the chain by {by}; give both the same 'by'"
                )

    def begin(self, initial: float | None, length: int | None) -> None:
        """Tell each schedule how long it lasts.

        Raises:
            ValueError: One leaves something open that training does not know either.
        """
        self.length = length
        starts = [0, *self.milestones]
        ends = [*self.milestones, length]
        for position, (schedule, start, end) in enumerate(zip(self.schedules, starts, ends, strict=True)):
            try:
                # A training may be over before the last of them begin.
                schedule.begin(initial, None if end is None else max(end - start, 1))
            except ValueError as error:
                raise ValueError(f"schedules[{position}]: {error}") from error

    def value(self, time: int) -> float:
        """Return the value of the schedule whose turn it is."""
        position = bisect.bisect_right(self.milestones, time)
        return self.schedules[position].value(time - (self.milestones[position - 1] if position else 0))


class FunctionSchedule(Schedule):
    """What a function of the time returns.

    Args:
        function: Called with how many epochs or steps are over, from 0, and with the arguments by their names.
        arguments: For the function; and `by`, which says whether epochs or steps are counted, unless the function takes
            an argument of that name itself.

    Example:
        >>> schedule = FunctionSchedule(lambda epoch, rate: rate / (1 + epoch), rate=0.1)
        >>> schedule.begin(None, 10)
        >>> schedule.value(1)
        0.05
    """

    def __init__(self, function: Callable[..., Any], /, **arguments: Any) -> None:
        self._function, self._arguments = function, arguments
        if "by" not in inspect.signature(function).parameters:
            self.by = arguments.pop("by", "epoch")

    def begin(self, initial: float | None, length: int | None) -> None:
        """Learn how long training is; a function has values of its own from the beginning."""
        self.length = length

    def value(self, time: int) -> float:
        """Return what the function does.

        Raises:
            TrainingError: It fails, or returns no finite number.
        """
        if self.length is not None:
            # After the last epoch or step a value is still set, which a function may not have.
            time = min(time, self.length - 1)
        name = getattr(self._function, "__qualname__", repr(self._function))
        try:
            value: Any = self._function(time, **self._arguments)
        except Exception as error:
            message = f"model.training.schedule: {name} failed for {self.by} {time}: {error}"
            raise TrainingError(message) from error
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise TrainingError(
                f"model.training.schedule: {name} returned {value!r} for {self.by} {time}; expected a finite number"
            )
        return float(value)


class TorchSchedule(Schedule):
    """The learning rates that a scheduler of torch gives.

    The scheduler is driven over an optimizer of one parameter that learns nothing, and the values that it gave are
    remembered: so they are a function of the time, and a resumed training needs nothing but the time. 100,000 values
    take less than a second. Momentum is left alone: `cycle_momentum` would change it in that optimizer and not in the
    one that learns, so a spec has it false by default and may not ask for it.

    Args:
        scheduler: The name of its class in `torch.optim.lr_scheduler`.
        by: Whether it goes on after each epoch or after each step.
        arguments: Those of the scheduler.

    Example:
        >>> schedule = TorchSchedule("StepLR", step_size=2, gamma=0.5)
        >>> schedule.begin(0.1, 6)
        >>> [schedule.value(time) for time in range(6)]
        [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    """

    def __init__(self, scheduler: str, /, by: Unit = "epoch", **arguments: Any) -> None:
        self._name, self._arguments, self.by = scheduler, arguments, by

    def begin(self, initial: float | None, length: int | None) -> None:
        """Make the scheduler, and drive it to the end of the training.

        Raises:
            ValueError: torch refuses the arguments, or cannot go on with them.
        """
        super().begin(initial, length)
        try:
            self._scheduler = _driven(self._name, self._start, self._arguments)
            self._values = [_rate(self._scheduler)]
            # To the end at once: a scheduler that lasts for fewer steps than the training would end it with an error.
            self.value(length or 1)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{self._name} cannot be used with these arguments: {error}") from error

    def value(self, time: int) -> float:
        """Return the value that the scheduler gave after so many steps of its own."""
        while len(self._values) <= time:
            self._scheduler.step()
            self._values.append(_rate(self._scheduler))
        return self._values[time]


def _driven(name: str, initial: float, arguments: dict[str, Any]) -> LRScheduler:
    """Make a scheduler of torch for an optimizer that nobody uses."""
    import torch  # specs are checked against this module, and torch takes seconds to import

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=initial)
    scheduler: LRScheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    optimizer.step()  # or torch warns that the scheduler steps first
    return scheduler


def _rate(scheduler: LRScheduler) -> float:
    return float(scheduler.optimizer.param_groups[0]["lr"])
