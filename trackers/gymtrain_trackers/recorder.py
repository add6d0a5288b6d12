"""What the thread that trains talks to: a journal on disk, and one writer thread that tells the trackers."""

from __future__ import annotations

import operator
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from .errors import ArgumentError, TrackerError, TrackingWarning
from .group import Failure, Group
from .images import encode_png, figure_png
from .journal import Entry, Journal, arguments, inputs_entry, merged, start_entry
from .run import JSON, DatasetInput, Metric, Run, Status, path_part
from .strict_json import number, plain
from .tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLUSH_SECONDS = 2.0
FLUSH_ENTRIES = 1000


class Recorder:
    """Records a run, and tells every tracker, without ever waiting for one.

    Each call appends one entry to `<run directory>/journal.jsonl` and returns; the entry is then safe from the death of
    this process. One daemon thread starts the trackers, batches consecutive metrics (for up to 2 s) and passes
    everything on, in order. Calls may come from several threads.

    A tracker that raises gets no further call but its `end`; the others go on and the journal has everything. With
    `on_error="warn"` the failure is issued as a `TrackingWarning` in the caller's thread, by the next call or by
    `close`; with `"raise"` it is raised there as `TrackerError`. While another exception leaves the `with` block,
    failures are only ever warned of.

    How the block is left decides the status: FINISHED; FAILED on an exception (the asset `error.txt` has its traceback,
    the tag `gymtrain.error` its message); KILLED on KeyboardInterrupt, SystemExit and the like.

    Args:
        trackers: Not yet started.
        run: Its directory is created.
        on_error: What a failing tracker leads to.
        close_timeout: Seconds that `close` waits for the trackers.

    Raises:
        ArgumentError: `on_error` is neither.
        OSError: the run's directory cannot be written.

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
        close_timeout: float = 60.0,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise ArgumentError(f"on_error: got {on_error!r}; expected 'warn' or 'raise'")
        self.run = run
        self._on_error = on_error
        self._close_timeout = close_timeout
        self._group = Group(trackers)
        self._journal: Journal | None = None
        self._lock = threading.Lock()
        self._pending: list[Entry] = []
        self._wake = threading.Event()
        self._prepared = threading.Event()
        self._started = threading.Event()
        self._writer = threading.Thread(target=self._write, name=f"trackers-{run.id[:8]}", daemon=True)
        self._is_open = False

    def __enter__(self) -> Self:
        """Start the journal and the writer thread; return at once, while the trackers are being started."""
        self.run.directory.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.run.directory / "journal.jsonl")
        self._is_open = True
        self._append(start_entry(self.run))
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("FINISHED")
        elif self._is_open:
            if isinstance(error, Exception):
                self._log_error(error)
            self._finish("FAILED" if isinstance(error, Exception) else "KILLED")
            self._report(may_raise=False)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what was chosen before the run: flat keys, JSON-able values."""
        self._record({"verb": "log_params", "params": plain(params)})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Log what describes the run; a later value replaces an earlier one."""
        self._record({"verb": "log_tags", "tags": plain(tags)})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one point per key, measured now.

        Raises:
            ArgumentError: a value is not a number, or the step not an integer.
        """
        now = time.time()
        self.log_metric_points([Metric(key, value, step, now) for key, value in metrics.items()])

    def log_metric_points(self, points: Sequence[Metric]) -> None:
        """Log points that were measured earlier; `timestamp` is unix time in seconds.

        Raises:
            ArgumentError: a value is not a number, or a step not an integer.
        """
        if points:
            self._record({"verb": "log_metrics", "metrics": [_json_point(point) for point in points]})

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
        parts = PurePosixPath(path.name if name is None else name)
        if parts.is_absolute() or ".." in parts.parts or parts == PurePosixPath():
            raise ArgumentError(f"asset name: got {name!r}; expected a relative path such as 'plots/roc.png'")
        self._record({"verb": "log_asset", "path": self._reference(path), "name": str(parts)})

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        """Log a uint8 array of shape `(height, width)` or `(height, width, 3)`; it is written to `figures/` at once.

        Raises:
            ArgumentError: the array has another shape or dtype.
        """
        self._log_png(encode_png(image), name, step)

    def log_figure(self, figure: Any, name: str, step: int) -> None:
        """Log a `matplotlib.figure.Figure` as it is now; it may be changed or closed afterwards."""
        self._log_png(figure_png(figure), name, step)

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        """Log which data the run uses."""
        self._record(inputs_entry(list(inputs)))

    def close(self, status: Status) -> None:
        """Pass on what is pending, end every tracker once, and wait for that at most `close_timeout` seconds.

        Only the first call does anything.

        Raises:
            TrackerError: a tracker failed and `on_error` is "raise".
        """
        if self._is_open:
            self._finish(status)
        self._report(may_raise=True)

    def info(self) -> dict[str, JSON]:
        """Return by tracker where the run is, with `status` "ok" or "degraded" and then `error`.

        Ids and locations are there once the trackers have started.
        """
        return self._group.info()

    def wait_prepared(self, timeout: float | None = None) -> bool:
        """Wait until the packages of the trackers are imported; return False if `timeout` seconds were not enough.

        Libraries look into `sys.modules` to recognise each other's objects, and trip over a package whose import
        another thread has not finished (scikit-learn 1.9 over pandas and polars, which MLflow imports). Call this
        before code that may do so.
        """
        return self._prepared.wait(timeout)

    def wait_started(self, timeout: float | None = None) -> bool:
        """Wait until every tracker has started or failed; return False if `timeout` seconds were not enough."""
        return self._started.wait(timeout)

    def _record(self, entry: Entry) -> None:
        self._report(may_raise=True)
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        with self._lock:  # the trackers are told in the order of the journal
            if not self._is_open:
                raise TrackerError(
                    f"{entry['verb']}: the recorder of run {self.run.name!r} is not open; call it in its `with` block"
                )
            self._is_open = entry["verb"] != "end"
            self._write_down(entry)
            self._pending.append(entry)
            due = entry["verb"] != "log_metrics" or len(self._pending) >= FLUSH_ENTRIES
        if due:
            self._wake.set()

    def _write_down(self, entry: Entry) -> None:
        if self._journal is None:
            return
        try:
            self._journal.append(entry)
        except OSError as error:  # a full disk; a journal with a hole in it would be worse than one that ends
            self._journal = None
            self._group.failures.append(
                Failure(f"journal of {self.run.directory}: {error}; it ends here, the trackers go on", error)
            )

    def _log_png(self, png: bytes, name: str, step: int) -> None:
        step = operator.index(step)
        *folders, last = [path_part(part) for part in name.split("/")]
        folder = self.run.directory.joinpath("figures", *folders)
        folder.mkdir(parents=True, exist_ok=True)
        path, count = folder / f"{last}_{step:06d}.png", 1
        while path.exists():
            count += 1
            path = folder / f"{last}_{step:06d}_{count}.png"
        path.write_bytes(png)
        self._record({"verb": "log_image", "path": self._reference(path), "name": name, "step": step})

    def _reference(self, path: Path) -> str:
        # Relative, so that the directory of a run can be moved.
        inside = path.is_relative_to(self.run.directory)
        return path.relative_to(self.run.directory).as_posix() if inside else str(path)

    def _log_error(self, error: Exception) -> None:
        self._append({"verb": "log_tags", "tags": {"gymtrain.error": f"{type(error).__name__}: {error}"[:500]}})
        path = self.run.directory / "error.txt"
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
        except OSError as failure:  # the error of the run matters more than where its traceback is kept
            self._group.failures.append(Failure(f"{path}: {failure}", failure))
        else:
            self._append({"verb": "log_asset", "path": path.name, "name": path.name})

    def _finish(self, status: Status) -> None:
        self._append({"verb": "end", "status": status})
        self._writer.join(self._close_timeout)
        if self._writer.is_alive():
            self._group.give_up(self._close_timeout)
        if self._journal is not None:
            self._journal.close()

    def _report(self, *, may_raise: bool) -> None:
        failures: list[Failure] = []
        while self._group.failures:
            failures.append(self._group.failures.popleft())
        if failures and may_raise and self._on_error == "raise":
            raise TrackerError("\n".join(failure.message for failure in failures)) from failures[0].error
        for failure in failures:
            warnings.warn(f"{failure.message} (run {self.run.directory})", TrackingWarning, stacklevel=4)

    def _write(self) -> None:
        """Tell the trackers what was recorded, until the end of the run; this is the writer thread."""
        try:
            self._group.prepare()
        finally:
            self._prepared.set()
        while True:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            with self._lock:
                entries, self._pending = self._pending, []
            for entry in merged(entries):
                self._tell(entry)
                if entry["verb"] == "start":
                    self._started.set()
                if entry["verb"] == "end":
                    return

    def _tell(self, entry: Entry) -> None:
        try:
            told = arguments(entry, self.run.directory)
        except Exception as error:  # the file of an image was deleted; the rest of the run is still worth telling
            self._group.failures.append(Failure(f"{entry['verb']} of {entry.get('name')!r}: {error}", error))
            return
        self._group.each(entry["verb"], *told)


def _json_point(point: Metric) -> list[Any]:
    try:
        return [point.key, number(float(point.value)), operator.index(point.step), float(point.timestamp)]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"metric {point.key!r}: got the value {point.value!r} at step {point.step!r}; "
            "expected a number and an integer"
        ) from error
