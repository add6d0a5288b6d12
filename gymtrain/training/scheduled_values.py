"""Values of an optimizer that change while a model learns, as their schedules say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from gymtrain.errors import Fault, SpecError, did_you_mean
from gymtrain.training.schedules import Plateau, Schedule


class ScheduledValues:
    """Values of an optimizer that change while a model learns.

    Args:
        schedules: By the name of the value.
        optimizer: Whose values they are.
        epochs: How many epochs are planned.
        steps: How many optimizer steps are planned.
        monitor: The metric that a plateau looks at when it names none.
        higher_is_better: Tells the direction of a metric by its name.

    Raises:
        SpecError: A schedule leaves something open that training does not know either.
    """

    def __init__(
        self,
        schedules: Mapping[str, Schedule],
        optimizer: Optimizer,
        *,
        epochs: int,
        steps: int,
        monitor: str,
        higher_is_better: Callable[[str], bool],
    ) -> None:
        self._schedules, self._optimizer = dict(schedules), optimizer
        for name, schedule in self._schedules.items():
            if isinstance(schedule, Plateau):
                schedule.monitor = schedule.monitor or monitor
                schedule.mode = schedule.mode or ("max" if higher_is_better(schedule.monitor) else "min")
            try:
                schedule.begin(optimizer.param_groups[0][name], steps if schedule.by == "step" else epochs)
            except ValueError as error:
                raise SpecError([Fault(f"model.training.schedule.{name}", str(error))]) from error
        self.by_step = any(schedule.by == "step" for schedule in self._schedules.values())
        """Whether any changes from step to step."""

    def set(self, epochs: int, steps: int) -> None:
        """Give the optimizer its values for what comes after so many epochs and steps."""
        for name, value in self.at(epochs, steps).items():
            for group in self._optimizer.param_groups:
                group[name] = value

    def state_dict(self) -> dict[str, Any]:
        """Return what those have seen that look at a metric."""
        return {name: each.state_dict() for name, each in self._schedules.items() if isinstance(each, Plateau)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what they had seen."""
        for name, schedule in self._schedules.items():
            if isinstance(schedule, Plateau):
                schedule.load_state_dict(state[name])

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an epoch to those that look at one.

        Raises:
            SpecError: The metric is not there.
        """
        for name, schedule in self._schedules.items():
            if isinstance(schedule, Plateau):
                monitor = str(schedule.monitor)
                if monitor not in metrics:
                    hint = did_you_mean(monitor, metrics) or f"; there are {', '.join(sorted(metrics))}"
                    path = f"model.training.schedule.{name}.monitor"
                    raise SpecError([Fault(path, f"there is no metric {monitor!r}{hint}")])
                schedule.observe(metrics[monitor])

    def at(self, epochs: int, steps: int) -> dict[str, float]:
        """Return the values for what comes after so many epochs and steps."""
        return {
            name: schedule.value(steps if schedule.by == "step" else epochs)
            for name, schedule in self._schedules.items()
        }
