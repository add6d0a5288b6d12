"""A progress bar in the terminal."""

from __future__ import annotations

from time import monotonic
from typing import Any

from gymtrain.training.callbacks import Callback, TrainingState


class ProgressBar(Callback):
    """Shows how far training is, the loss and the metrics of the last epoch, on stderr.

    Args:
        description: What stands before the bar.
    """

    # More often than that no eye can follow, and drawing costs more than a step of a small model.
    SECONDS_BETWEEN_DRAWINGS = 0.1

    def __init__(self, description: str = "training") -> None:
        self.description = description
        self._progress: Any = None
        self._drawn = 0.0

    def on_fit_model_begin(self, state: TrainingState) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._progress.start()
        self._task = self._progress.add_task(self.description, total=state.num_steps or None, status="")

    def on_step_end(self, state: TrainingState) -> None:
        """Move the bar, now and then."""
        now = monotonic()
        if now - self._drawn >= self.SECONDS_BETWEEN_DRAWINGS:
            self._drawn = now
            self._draw(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Show the metrics."""
        self._draw(state)

    def on_fit_model_end(self, state: TrainingState) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._draw(state)
            self._progress.stop()

    def _draw(self, state: TrainingState) -> None:
        epochs = f"epoch {state.epoch}/{state.num_epochs}" if state.num_epochs else f"epoch {state.epoch}"
        metrics = " ".join(f"{name} {value:.4f}" for name, value in state.metrics.items())
        self._progress.update(self._task, completed=state.step, status=f"{epochs} {metrics}")
        self._progress.refresh()
