"""The contract between what reports a run and what stores it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from .errors import TemporaryError
from .images import decode_png, figure_png
from .run import JSON, DatasetInput, Metric, ModelFile, Run, Status
from .strict_json import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Wanted: TypeAlias = Literal["histograms", "graph", "models"]

_FOR_GOOD = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, ImportError)


class Tracker:
    """Stores what a run reports; this base class stores nothing and can stand where no tracker is wanted.

    A subclass overrides what it supports, sets `name`, and lists in `requires` the packages that it imports inside
    its methods (never at the top of its module: reading the signature of a tracker must not load them).

    The order of calls is: the constructor once; `prepare` once; `start` once; any of the `log_*` in any order; `end`
    once. `end` is always called if `start` returned, whatever failed in between, so that no run is left open. `info`
    may be called at any time after `start`.

    All calls come from one thread, which is not the one that trains and tells no other tracker. A method may therefore
    take its time, needs no locks and must not depend on thread-local state of other threads; nor may it change
    process-wide state (the working directory, the environment, "current run" globals), which belongs to the caller.

    What a method raises decides what comes next:

    - a temporary error (`is_temporary`): the same call is made again, after a pause that grows, until it succeeds or
      nobody waits any longer; `TemporaryError` may say how long to pause. A call that failed this way may have been
      stored in part or in whole: made again, it must not store anything twice.
    - `RejectedError`: all but the named items is stored; they are reported, and the next call is made.
    - anything else: reported; no further call is made but `end`. What was done before stays.

    An argument that one call cannot store (a key with a forbidden character, a value that is too long) is no reason to
    raise: store it as near as possible and say so with `logging`. The constructor checks its arguments, raises
    `ArgumentError` and touches neither disk nor network.

    A run outlives its process: it is delivered later, by `sync`, to a new tracker that `arguments` made. That one is
    asked to `resume`. If it cannot, it is told everything from the beginning, `start` first; a store that kept what it
    was told before must then overwrite it or pass over it, never hold it twice.

    Arguments belong to the caller and must not be changed.

    Attributes:
        name: What people call the tracker.
        requires: The packages that it imports, as `pip install` takes them.
        is_lasting: Whether what is stored outlives the process.
        got_on_at: When a call that takes long last got on, in the time of `time.monotonic`, so that nobody takes the
            tracker for stuck; 0.0 where no call does.
        wants: What it asks for beyond what every run reports: what costs time is not computed where nobody wants it. It
            is told of these all the same if another tracker of the run wants them.
        now: When what is told was logged, in unix time; 0.0 means at this moment.

    Example:
        >>> tracker = Tracker()
        >>> tracker.start(Run.new("/tmp/runs"))
        >>> tracker.log_metric("train/loss", 0.5, step=1)
        >>> tracker.end("FINISHED")
    """

    name: ClassVar[str] = "tracker"
    requires: ClassVar[tuple[str, ...]] = ()
    is_lasting: ClassVar[bool] = True
    got_on_at: float = 0.0
    wants: frozenset[Wanted] = frozenset()
    now: float = 0.0
    _given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        """Remember what the constructor is given, for `arguments`."""
        tracker = super().__new__(cls)
        tracker._given = (arguments, keywords)
        return tracker

    def prepare(self) -> None:
        """Import the packages that the tracker needs, which may take seconds; `start` reports a missing one."""

    def start(self, run: Run) -> None:
        """Open the run. On return it is visible to whoever looks at the store.

        A run with this id that is there already is gone on with.
        """

    def resume(self, run: Run, state: JSON) -> bool:
        """Open a run again whose delivery another process broke off.

        Args:
            run: As it was given to `start`.
            state: What `state` returned after the last call that succeeded.

        Returns:
            Whether the store has everything up to that call. False means that all is told from the beginning.
        """
        return False

    def reopen(self) -> None:
        """Show the run as going on again, after its end or the death of its process.

        Where tags can be removed, those of `gymtrain_trackers.run.ENDING_TAGS` are.
        """

    def state(self) -> JSON:
        """Return what `resume` needs to go on behind the last call; it is kept on disk beside the journal."""
        return None

    def arguments(self, run: Run) -> dict[str, JSON] | None:
        """Return the arguments with which `load` makes a tracker for the same store in another process.

        No secrets, for they are written into the journal. None means that there is no way; by default, where an
        argument is not of a type of JSON.
        """
        positional, keywords = self._given
        try:
            bound = inspect.signature(type(self)).bind(*positional, **keywords).arguments
        except TypeError:
            return None
        return dict(bound) if plain(bound) == bound else None

    def stays_beside(self, run: Run) -> bool:
        """Whether it stores where it would without arguments: beside the run, or where the environment says.

        Only then does `sync` make it from the journal of a run that was not recorded here, which anybody may have
        written: what it is told must not go into any file, nor to anybody, that a stranger chose.
        """
        return False

    def is_temporary(self, error: Exception) -> bool:
        """Whether the call that raised `error` may succeed later.

        By default `TemporaryError`, what the network does (refused, reset, timed out, no such host) and what the
        operating system does, but for files and directories that are not there or not allowed.
        """
        return isinstance(error, TemporaryError | OSError) and not isinstance(error, _FOR_GOOD)

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

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        """Store how many values, int64 of shape `(bins,)`, lie between the edges, float64 of shape `(bins + 1,)`."""

    def log_graph(self, path: Path) -> None:
        """Store the model that the file shows: a `GraphDef` of TensorBoard, serialized."""

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        """Store which data the run uses."""

    def log_model(self, model: ModelFile) -> None:
        """Store a copy of the model, so that others find it and can call it."""

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
