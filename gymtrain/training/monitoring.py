"""Ready callbacks that watch a training."""

from __future__ import annotations

from time import monotonic

from gymtrain.training.callbacks import Callback, TrainingState
from gymtrain.training.expectations import check, integer


class LearningRateMonitor(Callback):
    """Logs the learning rate, and whatever else is scheduled, as `batch/lr` and so on.

    Args:
        every_n_steps: Steps from one value to the next.

    Raises:
        SpecError: It is no integer of at least 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check(self, every_n_steps=(every_n_steps, integer(1)))
        self.every_n_steps = every_n_steps

    def on_step_end(self, state: TrainingState) -> None:
        """Log the values."""
        if state.step % self.every_n_steps == 0:
            for name, value in state.values.items():
                state.log(name, value)


class Timing(Callback):
    """Measures how the time of an epoch is spent, and adds both to its metrics.

    `time/data_s` is what the gathering and augmenting of batches took, `time/compute_s` everything else. On a GPU, work
    that goes on beside the program counts where it is waited for.
    """

    def on_fit_model_begin(self, state: TrainingState) -> None:
        """Forget an earlier training."""
        self._began: float | None = None

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Begin to count."""
        self._began, self._data = monotonic(), state.data_seconds

    def on_epoch_end(self, state: TrainingState) -> None:
        """Add both to the metrics of the epoch."""
        if self._began is None:  # resumed in the middle of an epoch, whose beginning nobody measured
            return
        data = state.data_seconds - self._data
        state.metrics["time/data_s"] = data
        state.metrics["time/compute_s"] = monotonic() - self._began - data
