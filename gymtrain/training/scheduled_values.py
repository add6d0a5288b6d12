"""Values that change while a model learns, as their schedules say: the optimizers', and the training step's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from gymtrain.errors import Fault, SpecError, TrainingError
from gymtrain.training.best import check_known
from gymtrain.training.schedules import Plateau, Schedule


class ScheduledValues:
    """Values that change while a model learns.

    Args:
        schedules: By the name of the value: one that an optimizer has, or a keyword of the model's training step.
        optimizers: Those that have such values; groups of parameters that begin with another value than the first keep
            their ratio to it.
        epochs: How many epochs are planned.
        steps: How many optimizer steps are planned.

    Raises:
        SpecError: A schedule leaves something open that training does not know either.
    """

    def __init__(
        self,
        schedules: Mapping[str, Schedule],
        optimizers: Sequence[Optimizer],
        *,
        epochs: int,
        steps: int,
    ) -> None:
        self._schedules = dict(schedules)
        self.step_values: dict[str, float] = {}
        """Keywords of the training step, always as they are now."""
        # Who has a value: the optimizer, the number of the group, and how much of the value it takes.
        self._groups: dict[str, list[tuple[Optimizer, int, float]]] = {}
        for name, schedule in self._schedules.items():
            initial = next((each.param_groups[0][name] for each in optimizers if name in each.defaults), None)
            self._groups[name] = [
                (optimizer, position, group[name] / initial if initial else 1.0)
                for optimizer in optimizers
                for position, group in enumerate(optimizer.param_groups)
                if name in group
            ]
            try:
                schedule.begin(initial, steps if schedule.by == "step" else epochs)
            except ValueError as error:
                raise SpecError([Fault(f"model.training.schedule.{name}", str(error))]) from error
        self.by_step = any(schedule.by == "step" for schedule in self._schedules.values())
        """Whether any changes from step to step."""

    def watch(self, monitor: str, known: Collection[str], higher_is_better: Callable[[str], bool]) -> None:
        """Tell those that look at a metric which one, where they do not say.

        Args:
            monitor: The name of the metric.
            known: The names of the metrics that there will be.
            higher_is_better: Tells the direction of a metric by its name.

        Raises:
            SpecError: One looks at a metric that is not among them.
        """
        for name, schedule in self._schedules.items():
            if isinstance(schedule, Plateau):
                schedule.monitor = schedule.monitor or monitor
                schedule.mode = schedule.mode or ("max" if higher_is_better(schedule.monitor) else "min")
                check_known(schedule.monitor, known, f"model.training.schedule.{name}.monitor")

    def set(self, epochs: int, steps: int) -> dict[str, float]:
        """Give everyone the values for what comes after so many epochs and steps, and return them."""
        values = self.at(epochs, steps)
        if values.get("lr", 0.0) < 0.0:
            raise TrainingError(
                f"model.training.schedule.lr: it gives {values['lr']} after {epochs} epochs and {steps} steps; a "
                f"learning rate is at least 0"
            )
        for name, value in values.items():
            for optimizer, position, ratio in self._groups[name]:
                optimizer.param_groups[position][name] = value * ratio
            if not self._groups[name]:
                self.step_values[name] = value
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return what those have seen that look at a metric."""
        return {name: each.state_dict() for name, each in self._schedules.items() if isinstance(each, Plateau)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what they had seen."""
        for name, schedule in self._schedules.items():
            if isinstance(schedule, Plateau):
                schedule.load_state_dict(state[name])

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an epoch to those that look at one that is there: not every epoch is validated."""
        for schedule in self._schedules.values():
            if isinstance(schedule, Plateau) and str(schedule.monitor) in metrics:
                schedule.observe(metrics[str(schedule.monitor)])

    def at(self, epochs: int, steps: int) -> dict[str, float]:
        """Return the values for what comes after so many epochs and steps."""
        return {
            name: schedule.value(steps if schedule.by == "step" else epochs)
            for name, schedule in self._schedules.items()
        }
