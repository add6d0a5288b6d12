"""Ready callbacks that watch a training, and one that decides when it is written down."""

from __future__ import annotations

from time import monotonic

from gymtrain.training.callbacks import Callback, TrainingState


class ModelCheckpoint(Callback):
    """Asks for checkpoints; `training.checkpoint` makes one of these, and says how many are kept.

    Args:
        every_epochs: Epochs from one to the next; None for none at the ends of epochs.
        every_steps: Optimizer steps from one to the next, also within an epoch.
        every_minutes: Minutes from one to the next; written after the step that is running then.
    """

    def __init__(
        self, every_epochs: int | None = None, every_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        self.every_epochs, self.every_steps, self.every_minutes = every_epochs, every_steps, every_minutes
        self._last = monotonic()

    def on_fit_model_begin(self, state: TrainingState) -> None:
        """Begin to count the minutes."""
        self._last = monotonic()

    def on_step_end(self, state: TrainingState) -> None:
        """Look at the count of the steps, and at the clock."""
        if self.every_steps is not None and state.step % self.every_steps == 0:
            state.checkpoint()
        if self.every_minutes is not None and monotonic() - self._last >= 60 * self.every_minutes:
            self._last = monotonic()
            state.checkpoint()

    def on_epoch_end(self, state: TrainingState) -> None:
        """Look at the count of the epochs."""
        if self.every_epochs is not None and state.epoch % self.every_epochs == 0:
            state.checkpoint()


class LearningRateMonitor(Callback):
    """Logs the learning rate, and whatever else is scheduled, as `batch/lr` and so on.

    Args:
        every_n_steps: Steps from one value to the next.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
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

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Begin to count."""
        self._began, self._data = monotonic(), state.data_seconds

    def on_epoch_end(self, state: TrainingState) -> None:
        """Add both to the metrics of the epoch."""
        if not hasattr(self, "_began"):  # resumed in the middle of an epoch, whose beginning nobody measured
            return
        data = state.data_seconds - self._data
        state.metrics["time/data_s"] = data
        state.metrics["time/compute_s"] = monotonic() - self._began - data
