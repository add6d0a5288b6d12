"""The ready callback that says when a training is written down."""

from __future__ import annotations

from time import monotonic

from gymtrain.errors import Fault, SpecError
from gymtrain.training.callbacks import Callback, TrainingState
from gymtrain.training.expectations import check, integer, number


class ModelCheckpoint(Callback):
    """Asks for checkpoints; `training.checkpoint` makes one of these, and says how many are kept.

    Args:
        every_epochs: Epochs from one to the next; None for none at the ends of epochs.
        every_steps: Optimizer steps from one to the next, also within an epoch.
        every_minutes: Minutes from one to the next; written after the step that is running then.

    Raises:
        SpecError: One is no such number, or none is given.
    """

    def __init__(
        self, every_epochs: int | None = None, every_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        check(
            self,
            every_epochs=(every_epochs, integer(1).or_none()),
            every_steps=(every_steps, integer(1).or_none()),
            every_minutes=(every_minutes, number(above=0).or_none()),
        )
        if every_epochs is every_steps is every_minutes is None:
            choice = "give every_epochs, every_steps or every_minutes"
            raise SpecError([Fault("ModelCheckpoint", f"it would never ask for a checkpoint; {choice}")])
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
