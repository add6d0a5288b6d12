"""What the thread that trains talks to: a journal on disk, from which the trackers are told."""

from __future__ import annotations

import os
import shlex
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from .addresses import without_password
from .delivery import Failure
from .entries import checked_name, inputs_entry, model_entry
from .errors import ArgumentError, TrackerError, TrackingWarning
from .files import replace
from .group import Group, named
from .images import encode_png, figure_png
from .journal import Entry
from .origin import inode_of
from .recorded import Recorded
from .run import JSON, DatasetInput, Metric, ModelFile, Run, Status, path_part
from .starts import start_entry
from .strict_json import number, plain
from .syncing import RunFiles, recipes, repair_dead
from .tracker import Tracker, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLUSH_POINTS = 10_000


class Recorder:
    """Records a run, and tells every tracker, without ever waiting for one.

    Each call appends one entry to `<run directory>/journal.jsonl` and returns; the entry is then safe from the death of
    this process. Each tracker is told from there by a daemon thread of its own, in order and in batches (consecutive
    metrics of up to 2 s). Calls may come from several threads.

    A store that cannot be reached, or is busy, gets everything when it is back; `TrackingWarning` says once that it is
    behind. What it has not got when the run ends is delivered by `sync`. A tracker that fails for good gets no further
    call but its `end`; the others go on. Warnings are issued in the caller's thread, by the next call or by `close`;
    with `on_error="raise"` they are raised there as `TrackerError`. While another exception leaves the `with` block,
    failures are only ever warned of.

    How the block is left decides the status: FINISHED; FAILED on an exception (the asset `error.txt` has its traceback,
    the tag `gymtrain.error` its message); KILLED on KeyboardInterrupt, SystemExit and the like. Runs under the same
    root whose processes died without a word are looked for, ended as KILLED and delivered.

    A run that is there already (`recorded_run` finds it) is gone on with: it is shown as running again, and points,
    images and inputs that its journal holds are passed over, so that a program that does again what it had done since
    it last saved its state stores nothing twice.

    In a child made by `fork`, a recorder of its parent does nothing but warn once, for the run belongs to the parent.

    Args:
        trackers: Not yet started.
        run: Its directory is created.
        on_error: What a failing tracker leads to.
        close_timeout: Seconds that `close` waits for a tracker that does not get on; one that does may take longer, and
            one that is still opening its store gets six times as long.

    Raises:
        ArgumentError: `on_error` is neither.
        OSError: the run's directory cannot be written.
        RunBusyError: another process is at work on the run.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import load
        >>> history = load("history")
        >>> with tempfile.TemporaryDirectory() as root, Recorder([history], Run.new(root)) as recorder:
        ...     recorder.log_params({"lr": 0.1})
        ...     recorder.log_metrics({"train/loss": 0.5}, step=1)
        >>> history.metrics, history.status
        ({'train/loss': [(1, 0.5)]}, 'FINISHED')
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        run: Run,
        on_error: Literal["warn", "raise"] = "warn",
        close_timeout: float = 10.0,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise ArgumentError(f"on_error: got {on_error!r}; expected 'warn' or 'raise'")
        self.run = run
        self._on_error = on_error
        self._close_timeout = close_timeout
        self._trackers = named(trackers)
        self._failures: deque[Failure] = deque()
        self._files: RunFiles | None = None
        self._group: Group | None = None
        self._repair = threading.Thread(target=self._repair_others, name=f"repair-{run.id[:8]}", daemon=True)
        self._lock = threading.Lock()
        self._recorded: Recorded | None = None
        self._new_points = 0
        self._is_open = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        """Start the journal and the threads; return at once, while the trackers are being started."""
        self.run.directory.mkdir(parents=True, exist_ok=True)
        self._files = RunFiles(self.run.directory, self._journal_failed)
        try:
            recorded = Recorded(self._files.journal)
        except BaseException:  # a journal that is damaged in a way of its own; the lock must not stay
            self._files.close()
            raise
        self._recorded = recorded if recorded.starts else None
        self._group = Group(
            self._trackers,
            self._files.journal,
            self.run,
            self._files.close,
            self._failures,
            self._files.foreign_end,
        )
        self._is_open = True
        self._append(start_entry(self.run, recipes(self._trackers, self.run), inode_of(self.run.directory)))
        self._group.start()
        self._repair.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("FINISHED")
        elif self._is_open and self._is_mine():
            if isinstance(error, Exception):
                self._log_error(error)
            self._finish("FAILED" if isinstance(error, Exception) else "KILLED")
            if isinstance(error, TrackerError):  # what else a tracker missed belongs to what was raised already
                for failure in self._taken():
                    error.add_note(_told(failure))
            self._report(may_raise=False)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what was chosen before the run: flat keys, JSON-able values."""
        self._record({"verb": "log_params", "params": plain(params)})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Log what describes the run; a later value replaces an earlier one."""
        self._record({"verb": "log_tags", "tags": plain(tags)})

    @property
    def starts(self) -> int:
        """How many processes have recorded the run before; 0 for a new one."""
        return 0 if self._recorded is None else self._recorded.starts

    def last_step(self, key: str) -> int | None:
        """Return the last step of a metric that an earlier process has recorded; None if there is none."""
        return None if self._recorded is None else self._recorded.last_steps.get(key)

    def log_metrics(self, metrics: Mapping[str, float], step: int, *, again: bool = False) -> None:
        """Log one point per key, measured now.

        Args:
            metrics: The value by key.
            step: Of all of them.
            again: Log also what an earlier process has logged for that step, because it has changed.

        Raises:
            ArgumentError: a value is not a number, or the step not an integer.
        """
        now = time.time()
        self.log_metric_points([Metric(key, value, step, now) for key, value in metrics.items()], again=again)

    def log_metric_points(self, points: Sequence[Metric], *, again: bool = False) -> None:
        """Log points that were measured earlier; `timestamp` is unix time in seconds.

        Raises:
            ArgumentError: a value is not a number, or a step not an integer.
        """
        if self._recorded is not None and not again:
            points = self._recorded.new(points)
        if points:
            self._record({"verb": "log_metrics", "metrics": _json_points(points)})

    def log_asset(self, path: str | Path, name: str | None = None) -> None:
        """Log a file or directory, which must stay as it is until `close`.

        Args:
            path: Of the file or directory.
            name: Relative path with `/` under which it is stored; None means the name of the file.

        Raises:
            ArgumentError: the name is absolute or leaves its folder.
            FileNotFoundError: there is nothing at `path`.
        """
        path = Path(path).absolute()
        if not path.exists():
            raise FileNotFoundError(f"asset {str(path)!r} does not exist")
        inside = checked_name(path.name if name is None else name)
        self._record({"verb": "log_asset", "path": self._reference(path), "name": inside})

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        """Log a uint8 array of shape `(height, width)` or `(height, width, 3)`; it is written to `figures/` at once.

        Raises:
            ArgumentError: the array has another shape or dtype.
        """
        self._log_png(encode_png(image), name, step)

    def log_figure(self, figure: Any, name: str, step: int) -> None:
        """Log a `matplotlib.figure.Figure` as it is now; it may be changed or closed afterwards.

        It is an image by its step, and the newest one also an asset, `figures/<name>.png`, which people find by name.
        """
        path = self._log_png(figure_png(figure), name, step)
        if path is not None:
            folders = [path_part(part) for part in name.split("/")]
            self.log_asset(path, "/".join(["figures", *folders]) + ".png")

    def log_histogram(self, name: str, counts: Sequence[int], edges: Sequence[float], step: int) -> None:
        """Log how many values lie between edges; worth the time where `wants` has `"histograms"`.

        Args:
            name: Such as `gradients/0.weight`.
            counts: Whole numbers, shape `(bins,)`; also an array.
            edges: Finite numbers that grow, shape `(bins + 1,)`; also an array.
            step: As for metrics.

        Raises:
            ArgumentError: the counts or edges are not of these shapes, or not such numbers.
        """
        try:
            whole, limits = [index(count) for count in counts], [float(edge) for edge in edges]
        except TypeError as error:
            raise ArgumentError(f"histogram {name!r}: {error}; expected whole numbers and edges") from error
        grow = all(low < high for low, high in pairwise(limits)) and all(isfinite(edge) for edge in limits)
        if not whole or len(limits) != len(whole) + 1 or not grow:
            raise ArgumentError(
                f"histogram {name!r}: got {len(whole)} counts and {len(limits)} edges, {limits[:1]} to {limits[-1:]}; "
                "expected one edge more than counts, finite and growing"
            )
        self._record({"verb": "log_histogram", "name": name, "counts": whole, "edges": limits, "step": index(step)})

    def log_graph(self, path: str | Path) -> None:
        """Log a model that a file shows, a serialized `GraphDef`; worth the time where `wants` has `"graph"`.

        The file must stay as it is until `close`.

        Raises:
            FileNotFoundError: there is nothing at `path`.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise FileNotFoundError(f"graph {str(path)!r} does not exist")
        self._record({"verb": "log_graph", "path": self._reference(path)})

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        """Log which data the run uses."""
        entry = inputs_entry(list(inputs))
        if self._recorded is not None:
            entry["inputs"] = self._recorded.new_inputs(entry["inputs"])
        if entry["inputs"]:
            self._record(entry)

    def log_model(self, model: ModelFile) -> None:
        """Log a trained model, whose file must stay as it is until `close`, for the trackers that store models.

        Raises:
            FileNotFoundError: there is no file at its path.
        """
        if not model.path.is_file():
            raise FileNotFoundError(f"the file {str(model.path)!r} of the model {model.name!r} does not exist")
        self._record(model_entry(model, self._reference(model.path)))

    @property
    def is_lasting(self) -> bool:
        """Whether some tracker stores what outlives the process."""
        return any(tracker.is_lasting for tracker in self._trackers.values())

    def close(self, status: Status) -> None:
        """End the run, and wait until the trackers were told; for one that does not get on, `close_timeout` seconds.

        Only the first call does anything.

        Raises:
            TrackerError: a tracker failed and `on_error` is "raise".
        """
        if not self._is_mine():
            return
        if self._is_open:
            self._finish(status)
        self._report(may_raise=True)

    @property
    def wants(self) -> frozenset[Wanted]:
        """What a tracker of this run asks for: `"histograms"`, `"graph"`, `"models"`."""
        return frozenset[Wanted]().union(*(tracker.wants for tracker in self._trackers.values()))

    def info(self) -> dict[str, JSON]:
        """Return by tracker where the run is, with `status` "ok" or "degraded" and then `error`.

        Ids and locations are there once the trackers have started.
        """
        return {} if self._group is None else self._group.info()

    def wait_prepared(self, timeout: float | None = None) -> bool:
        """Wait until the packages of the trackers are imported; return False if `timeout` seconds were not enough.

        Libraries look into `sys.modules` to recognise each other's objects, and trip over a package whose import
        another thread has not finished (scikit-learn 1.9 over pandas and polars, which MLflow imports). Call this
        before code that may do so.
        """
        return self._group is None or self._group.wait_prepared(timeout)

    def wait_started(self, timeout: float | None = None) -> bool:
        """Wait until every tracker has started or failed; return False if `timeout` seconds were not enough."""
        return self._group is None or self._group.wait_started(timeout)

    def _is_mine(self) -> bool:
        if os.getpid() == self._process:
            return True
        if self._is_open:
            self._is_open = False
            warnings.warn(
                f"the run {self.run.name!r} belongs to process {self._process}; what this child of it (process "
                f"{os.getpid()}) logs is not recorded: return it to the parent and log it there",
                TrackingWarning,
                stacklevel=4,
            )
        return False

    def _record(self, entry: Entry) -> None:
        if not self._is_mine():
            return
        self._report(may_raise=True)
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        is_points = entry["verb"] == "log_metrics"
        if not is_points:
            entry["time"] = time.time()
        with self._lock:  # nothing may follow the end
            if not self._is_open or self._files is None or self._group is None:
                raise TrackerError(
                    f"{entry['verb']}: the recorder of run {self.run.name!r} is not open; call it in its `with` block"
                )
            self._is_open = entry["verb"] != "end"
            self._files.journal.append(entry)
            self._new_points = self._new_points + len(entry["metrics"]) if is_points else FLUSH_POINTS
            is_due = self._new_points >= FLUSH_POINTS
        if is_due:
            self._new_points = 0
            self._group.wake()

    def _log_png(self, png: bytes, name: str, step: int) -> Path | None:
        """Write an image and record it; return where, None where it was recorded before."""
        step = index(step)
        *folders, last = [path_part(part) for part in name.split("/")]
        folder = self.run.directory.joinpath("figures", *folders)
        folder.mkdir(parents=True, exist_ok=True)
        path, count = folder / f"{last}_{step:06d}.png", 1
        while path.exists():
            is_recorded = self._recorded is not None and self._reference(path) in self._recorded.images
            if is_recorded and path.read_bytes() == png:
                return None
            count += 1
            path = folder / f"{last}_{step:06d}_{count}.png"
        replace(path, png)
        self._record({"verb": "log_image", "path": self._reference(path), "name": name, "step": step})
        return path

    def _reference(self, path: Path) -> str:
        # Relative, so that the directory of a run can be moved.
        inside = path.is_relative_to(self.run.directory)
        return path.relative_to(self.run.directory).as_posix() if inside else str(path)

    def _log_error(self, error: Exception) -> None:
        self._append(
            {"verb": "log_tags", "tags": {"gymtrain.error": without_password(f"{type(error).__name__}: {error}")[:500]}}
        )
        path = self.run.directory / "error.txt"
        try:
            text = without_password("".join(traceback.format_exception(error)))
            replace(path, text.encode("utf-8", errors="backslashreplace"))
        except OSError as failure:  # the error of the run matters more than where its traceback is kept
            self._failures.append(Failure(f"{path}: {failure}", failure))
        else:
            self._append({"verb": "log_asset", "path": path.name, "name": path.name})

    def _finish(self, status: Status) -> None:
        self._append({"verb": "end", "status": status})
        assert self._group is not None, "the recorder is open"
        self._group.finish(status, self._close_timeout, is_patient=self._on_error == "warn")
        if all(state["status"] == "ok" for state in self._group.info().values() if isinstance(state, dict)):
            self._repair.join(self._close_timeout)

    def _report(self, *, may_raise: bool) -> None:
        if not self._failures:
            return
        failures = self._taken()
        if failures and may_raise and self._on_error == "raise":
            raise TrackerError("\n".join(map(_told, failures))) from failures[0].error
        place = shlex.quote(str(self.run.directory))
        for failure in failures:
            hint = f"{_told(failure)} (`gymtrain sync {place}` delivers what is missing)"
            warnings.warn(hint, TrackingWarning, stacklevel=4)

    def _taken(self) -> list[Failure]:
        failures: list[Failure] = []
        while self._failures:
            failures.append(self._failures.popleft())
        return failures

    def _journal_failed(self, message: str, error: OSError) -> None:
        self._failures.append(Failure(message, error))

    def _repair_others(self) -> None:
        """Deliver runs under the same root whose process died; the trackers of this run come first."""
        assert self._group is not None, "the recorder is open"
        self._group.wait_started(None)
        if self.is_lasting:
            repair_dead(self.run.root)


def _told(failure: Failure) -> str:
    return "; ".join(filter(None, (failure.message, failure.outcome)))


def _json_points(points: Sequence[Metric]) -> list[list[Any]]:
    try:
        return [
            [key, value if isfinite(value := float(number_)) else number(value), index(step), _time(timestamp)]
            for key, number_, step, timestamp in points
        ]
    except (TypeError, ValueError):
        return [_json_point(point) for point in points]


def _json_point(point: Metric) -> list[Any]:
    try:
        return [point.key, number(float(point.value)), index(point.step), _time(point.timestamp)]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"metric {point.key!r}: got the value {point.value!r} at step {point.step!r}, time {point.timestamp!r}; "
            "expected a number, an integer and a finite number"
        ) from error


def _time(timestamp: float) -> float:
    if not isfinite(timestamp):
        raise ValueError(timestamp)
    return float(timestamp)
