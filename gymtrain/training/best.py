"""The weights of the best epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from torch import nn

from gymtrain.errors import Fault, SpecError, did_you_mean


class BestWeights:
    """Keeps the weights of the epoch whose monitored metric is the best so far.

    Args:
        monitor: The name of the metric; None to keep none by a metric, so that the last epoch's stay.
        known: The names of the metrics that there will be.
        higher_is_better: Tells the direction of a metric by its name.
        has_improved: Asked first, with the metrics of an epoch and those of the best: None leaves it to the metric.

    Raises:
        SpecError: The monitored metric is not among them.
    """

    def __init__(
        self,
        monitor: str | None,
        known: Collection[str],
        higher_is_better: Callable[[str], bool],
        has_improved: Callable[[dict[str, float], dict[str, float]], bool | None] = lambda metrics, best: None,
    ) -> None:
        if monitor is not None:
            check_known(monitor, known, "model.training.monitor")
        self.monitor = monitor
        is_upward = monitor is not None and higher_is_better(monitor.partition("/")[2])
        self.mode: Literal["min", "max"] = "max" if is_upward else "min"
        self._has_improved = has_improved
        self.epoch: int | None = None
        self.value = 0.0
        self.metrics: dict[str, float] = {}
        self._state: dict[str, Any] = {}

    def update(self, epoch: int, metrics: dict[str, float], module: nn.Module) -> None:
        """Look at the metrics of an epoch, and copy the weights if it is the best; a metric has to be a number."""
        value = metrics.get(str(self.monitor), math.nan)
        is_better = self._has_improved(metrics, self.metrics)
        if is_better is None:
            is_better = math.isfinite(value) and self._is_better(value)
        if is_better:
            self.epoch, self.value = epoch, value
            self.metrics = dict(metrics)
            self._copy(module.state_dict())

    def _is_better(self, value: float) -> bool:
        if self.epoch is None or not math.isfinite(self.value):
            return True
        return value > self.value if self.mode == "max" else value < self.value

    def _copy(self, state: dict[str, Any]) -> None:
        """Copy in place where there is a copy: two of them beside the weights would be one too many."""
        if not self._state:
            self._state = copy.deepcopy(state)
            return
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                self._state[name].copy_(value)
            else:
                self._state[name] = copy.deepcopy(value)

    def check(self, module: nn.Module) -> None:
        """See whether the weights that were taken back are of a module.

        Raises:
            ValueError: They are not.
        """
        own = module.state_dict()
        for name, value in self._state.items():
            if name not in own or getattr(value, "shape", None) != getattr(own[name], "shape", None):
                raise ValueError(f"best: {name!r} is no tensor of this model")

    def restore(self, module: nn.Module) -> None:
        """Put the best weights back."""
        if self._state:
            module.load_state_dict(self._state)

    def to_dict(self) -> dict[str, Any] | None:
        """Return which epoch it was; None when none was the best: nothing was monitored, or never was a number."""
        if self.epoch is None:
            return None
        return {"epoch": self.epoch, "metric": self.monitor, "value": self.value, "mode": self.mode}

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far, the weights included."""
        return {"epoch": self.epoch, "value": self.value, "metrics": self.metrics, "state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what was seen."""
        self.epoch = None if state["epoch"] is None else int(state["epoch"])
        self.value, self._state = float(state["value"]), state["state"]
        self.metrics = {str(name): float(value) for name, value in state["metrics"].items()}


def check_known(monitor: str, known: Collection[str], path: str) -> None:
    """Refuse a metric that there will not be.

    Raises:
        SpecError: It is not among the known ones.
    """
    if monitor not in known:
        hint = did_you_mean(monitor, known) or f"; there are {', '.join(sorted(known))}"
        raise SpecError([Fault(path, f"there is no metric {monitor!r}{hint}")])
