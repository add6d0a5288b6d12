"""Ready callbacks that end training: when it no longer helps, when it goes wrong, when time is up."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any, Literal

from gymtrain.training.callbacks import Callback, TrainingState
from gymtrain.training.expectations import Expected, check, integer, number, one_of

_METRIC = Expected("the name of a metric such as 'val/loss'", lambda value: isinstance(value, str) and bool(value))


class EarlyStopping(Callback):
    """Stops when a metric no longer gets better, is good enough, or goes wrong.

    Args:
        monitor: The metric, such as `"val/loss"`.
        mode: Whether less or more is better.
        patience: How many epochs without a better value are borne.
        min_delta: How much better counts, in the metric's own unit.
        threshold: Stop once the metric is as good as this; None for never.
        divergence_ratio: Stop when the metric is this many times its best value (for `mode="min"`); None for never.

    Raises:
        SpecError: An argument is nothing of the kind.

    Example:
        >>> stopping = EarlyStopping("val/loss", patience=0)
        >>> state = TrainingState(metrics={"val/loss": 0.5})
        >>> stopping.on_epoch_end(state)
        >>> stopping.on_epoch_end(state)
        >>> state.stop_reason
        'early_stopping'
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 10,
        min_delta: float = 0.0,
        threshold: float | None = None,
        divergence_ratio: float | None = None,
    ) -> None:
        check(
            self,
            monitor=(monitor, _METRIC),
            mode=(mode, one_of("min", "max")),
            patience=(patience, integer(0)),
            min_delta=(min_delta, number(least=0)),
            threshold=(threshold, number().or_none()),
            divergence_ratio=(divergence_ratio, number(above=1).or_none()),
        )
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.threshold, self.divergence_ratio = threshold, divergence_ratio
        self._best = math.inf if mode == "min" else -math.inf
        self._waited = 0
        self._last: float | None = None

    def on_epoch_end(self, state: TrainingState) -> None:
        """Look at the metric."""
        if self.monitor not in state.metrics:
            if self.monitor.startswith("val/") and state.was_validated is False:
                return
            raise KeyError(f"there is no metric {self.monitor!r}; there are {', '.join(sorted(state.metrics))}")
        value = state.metrics[self.monitor]
        sign = 1.0 if self.mode == "min" else -1.0
        if sign * value < sign * self._best - self.min_delta:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        self._last = value
        reason = self.verdict()
        if reason is not None:
            state.stop(reason)

    def verdict(self) -> str | None:
        """Return why training is to stop after what was seen so far, also before a resume; None to go on."""
        value, sign = self._last, 1.0 if self.mode == "min" else -1.0
        if value is None:
            return None
        if math.isnan(value):
            return "nan"
        if self.threshold is not None and sign * value <= sign * self.threshold:
            return "threshold"
        if self.divergence_ratio is not None and value > self.divergence_ratio * self._best:
            return "divergence"
        return "early_stopping" if self._waited > self.patience else None

    def state_dict(self) -> dict[str, Any]:
        """Return what it has seen."""
        return {"best": self._best, "waited": self._waited, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what it had seen."""
        self._best, self._waited = float(state["best"]), int(state["waited"])
        self._last = None if state["last"] is None else float(state["last"])


class TimeLimit(Callback):
    """Stops after so many minutes of training, those before a resume included.

    Args:
        minutes: The limit.

    Raises:
        SpecError: It is no number above 0.
    """

    def __init__(self, minutes: float) -> None:
        check(self, minutes=(minutes, number(above=0)))
        self.minutes = minutes
        self._spent = 0.0

    def on_fit_model_begin(self, state: TrainingState) -> None:
        """Begin to count."""
        self._began = monotonic()

    def on_step_end(self, state: TrainingState) -> None:
        """Look at the clock."""
        if self._elapsed() > 60 * self.minutes:
            state.stop("time_limit")

    def _elapsed(self) -> float:
        return self._spent + monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        """Return how long it has been."""
        return {"spent": self._elapsed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back how long it had been."""
        self._spent = float(state["spent"])
