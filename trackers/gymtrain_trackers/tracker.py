"""The contract between what reports a run and what stores it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .images import decode_png, figure_png
from .run import JSON, DatasetInput, Metric, Run, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tracker:
    """Stores what a run reports; this base class stores nothing and can stand where no tracker is wanted.

    A subclass overrides what it supports, sets `name`, and lists in `requires` the packages that it imports inside
    its methods (never at the top of its module: reading the signature of a tracker must not load them).

    The order of calls is: the constructor once; `prepare` once; `start` once; any of the `log_*` in any order; `end`
    once. `end` is always called if `start` returned, whatever failed in between, so that no run is left open. `info`
    may be called at any time after `start`.

    All calls come from one thread, which is not the one that trains. A method may therefore take its time, needs no
    locks and must not depend on thread-local state of other threads; nor may it change process-wide state (the
    working directory, the environment, "current run" globals), which belongs to the caller.

    A method may raise anything. The caller reports it and goes on without this tracker; what it did before stays. An
    argument that one call cannot store (a key with a forbidden character, a value that is too long) is no reason to
    raise: store it as near as possible and say so with `logging`. The constructor checks its arguments, raises
    `ArgumentError` and touches neither disk nor network.

    Arguments belong to the caller and must not be changed.

    Example:
        >>> tracker = Tracker()
        >>> tracker.start(Run.new("/tmp/runs"))
        >>> tracker.log_metric("train/loss", 0.5, step=1)
        >>> tracker.end("FINISHED")
    """

    name: ClassVar[str] = "tracker"
    requires: ClassVar[tuple[str, ...]] = ()

    def prepare(self) -> None:
        """Import the packages that the tracker needs, which may take seconds; `start` reports a missing one."""

    def start(self, run: Run) -> None:
        """Open the run. On return it is visible to whoever looks at the store."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Store what was chosen before the run: flat keys, JSON-able values."""

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Store what describes the run; a later value of the same key replaces the earlier one."""

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Store points of curves, in order; values may be NaN or infinite."""

    def log_asset(self, path: Path, name: str) -> None:
        """Store a copy of the file or directory at `path` under `name`, a relative path with `/`."""

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        """Store a uint8 array of shape `(height, width)` or `(height, width, 3)`."""

    def log_figure(self, figure: Any, name: str, step: int) -> None:
        """Store a `matplotlib.figure.Figure` as an image."""
        self.log_image(decode_png(figure_png(figure)), name, step)

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        """Store which data the run uses."""

    def end(self, status: Status) -> None:
        """Store everything that is still buffered, then the status, and close the run."""

    def info(self) -> dict[str, JSON]:
        """Return where the run is: ids, locations, and as `ui` the shell command that shows it."""
        return {}

    def log_param(self, key: str, value: Any) -> None:
        """Store one param."""
        self.log_params({key: value})

    def log_tag(self, key: str, value: Any) -> None:
        """Store one tag."""
        self.log_tags({key: value})

    def log_metric(self, key: str, value: float, step: int) -> None:
        """Store one point, measured now."""
        self.log_metrics([Metric(key, float(value), step, time.time())])
