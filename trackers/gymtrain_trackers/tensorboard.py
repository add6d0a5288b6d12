# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import ArgumentError, RejectedError
from .event_file import EventFile
from .images import encode_png
from .run import ENDING_TAGS, JSON, Metric, Run, Status, folder_of, path_part
from .strict_json import as_text
from .tracker import Tracker, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tensorboard.compat.proto.event_pb2 import Event


Outcome: TypeAlias = Literal["SUCCESS", "FAILURE", "RUNNING"]


class TensorBoardTracker(Tracker):
    """Writes one event file per run, in `<directory>/<experiment>/<run name>-<first 8 characters of the run id>`.

    Params become the HParams of the run (TensorBoard has one set per run: those that came before the first metric) and,
    like tags, a table under Text. Assets and inputs have no place in TensorBoard. A run told again goes on behind the
    last complete event of its file. The status that HParams show is that of its last end.

    Args:
        directory: What is given to `tensorboard --logdir`; None means `tensorboard` in the root of the run. A relative
            path is taken from the working directory at construction.
        histograms: Whether to ask for histograms of the parameters and their gradients after each epoch.
        graph: Whether to ask for the graph of the model.

    Raises:
        ArgumentError: the directory is a file.

    Example:
        >>> TensorBoardTracker("/dev/null")
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: tensorboard directory: '/dev/null' is a file; expected a directory
    """

    name = "tensorboard"
    requires = ("tensorboard>=2.21",)

    def __init__(self, directory: str | None = None, histograms: bool = False, graph: bool = False) -> None:
        self._logdir = None if directory is None else Path(directory).absolute()
        if self._logdir is not None and self._logdir.exists() and not self._logdir.is_dir():
            raise ArgumentError(f"tensorboard directory: {directory!r} is a file; expected a directory")
        asked: dict[Wanted, bool] = {"histograms": histograms, "graph": graph}
        self.wants = frozenset(what for what, is_asked in asked.items() if is_asked)
        self._params: dict[str, Any] = {}
        self._tables: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
        self._changed: set[str] = set()
        self._has_session = False
        self._started = 0.0
        self._told = 0
        self._end_number: int | None = None
        self._events: list[Event] = []
        self._to_pass_over = 0
        self._directory: Path
        self._file: EventFile | None = None

    def prepare(self) -> None:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.plugins.histogram.metadata
        import tensorboard.plugins.hparams.metadata
        import tensorboard.plugins.text.metadata
        import tensorboard.util.tensor_util  # noqa: F401

    def start(self, run: Run) -> None:
        self._logdir = self._logdir or run.root / "tensorboard"
        self._directory = self._logdir / folder_of(run.experiment) / f"{path_part(run.name)}-{run.id[:8]}"
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._file is not None:
            self._file.close()
        self._file = EventFile(self._directory / f"events.out.tfevents.{run.started:.0f}.{run.id[:8]}.gymtrain")
        self._to_pass_over = self._file.count
        self._params, self._tables, self._changed, self._has_session = {}, {"params": {}, "tags": {}}, set(), False
        self._started, self._told, self._end_number = run.started, 0, None
        with self._batch():
            self._add(run.started, file_version="brain.Event:2")

    def reopen(self) -> None:
        for key in ENDING_TAGS:
            self._tables["tags"].pop(key, None)
        self._changed.add("tags")
        self._rewrite_end("RUNNING")

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._params.update(params)
        self._fill("params", params)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        self._fill("tags", tags)

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        with self._batch():
            self._open_session()
            for metric in metrics:
                self._write(metric.step, metric.timestamp, tag=metric.key, simple_value=metric.value)

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        picture = Summary.Image(
            height=image.shape[0],
            width=image.shape[1],
            colorspace=1 if image.ndim == 2 else 3,
            encoded_image_string=encode_png(image),
        )
        with self._batch():
            self._write(step, self._time(), tag=name, image=picture)

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        import numpy as np
        from tensorboard.plugins.histogram import metadata
        from tensorboard.util import tensor_util

        bins = tensor_util.make_tensor_proto(np.stack([edges[:-1], edges[1:], counts.astype(np.float64)], axis=1))
        kind = metadata.create_summary_metadata(display_name=name, description="")
        with self._batch():
            self._write(step, self._time(), tag=name, metadata=kind, tensor=bins)

    def log_graph(self, path: Path) -> None:
        try:
            graph = path.read_bytes()
        except FileNotFoundError as error:
            raise RejectedError([f"graph: {error}"]) from error
        with self._batch():
            self._add(self._time(), graph_def=graph)

    def end(self, status: Status) -> None:
        outcome: Outcome = "SUCCESS" if status == "FINISHED" else "FAILURE"
        end_number = self._end_number
        with self._batch():
            self._open_session()
            if end_number is None:
                end_number = self._told + len(self._events)
                self._write_end(outcome)
            self._write_tables()
        if self._end_number is None:
            self._end_number = end_number
        else:
            self._rewrite_end(outcome)
        assert self._file is not None, "start() comes first"
        self._file.close()

    def info(self) -> dict[str, JSON]:
        return {
            "directory": str(self._directory),
            "ui": f"tensorboard --logdir {shlex.quote(str(self._logdir))}",
        }

    def arguments(self, run: Run) -> dict[str, JSON]:
        asked: dict[str, JSON] = {what: what in self.wants for what in ("histograms", "graph")}
        return {"directory": str(self._logdir or run.root / "tensorboard"), **asked}

    def stays_beside(self, run: Run) -> bool:
        return self._logdir in (None, run.root / "tensorboard")

    @contextlib.contextmanager
    def _batch(self) -> Iterator[None]:
        """Write the events that are added meanwhile at once; after a failure it is as if there had been no call."""
        assert self._file is not None, "start() comes first"
        before = self._has_session, set(self._changed)
        try:
            yield
            there = min(self._to_pass_over, len(self._events))
            self._file.write(self._events[there:])
            self._to_pass_over -= there
            self._told += len(self._events)
        except BaseException:
            self._has_session, self._changed = before
            raise
        finally:
            self._events = []

    def _fill(self, table: str, rows: Mapping[str, Any]) -> None:
        self._tables[table].update((str(key), as_text(value)) for key, value in rows.items())
        self._changed.add(table)

    def _open_session(self) -> None:
        if self._has_session:
            return
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        # No experiment proto: TensorBoard would take that of one run for all of them and hide the params that only
        # others have. Without it, the columns are gathered from all runs.
        beginning = plugin_data_pb2.SessionStartInfo(start_time_secs=self._started)
        for key, value in self._params.items():
            match hparam(value):
                case bool(truth):
                    beginning.hparams[key].bool_value = truth
                case float(number):
                    beginning.hparams[key].number_value = number
                case text:
                    beginning.hparams[key].string_value = text
        self._write_hparams(
            metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=beginning)
        )
        self._has_session = True
        self._write_tables()

    def _write_end(self, outcome: Outcome) -> None:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        # Both are always there, so that another outcome takes the same room in the file.
        ending = plugin_data_pb2.SessionEndInfo(
            status=api_pb2.Status.Value(f"STATUS_{outcome}"), end_time_secs=self._time()
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=ending)
        self._write_hparams(metadata.SESSION_END_INFO_TAG, data)

    def _rewrite_end(self, outcome: Outcome) -> None:
        """Change the end that the file has: of several, TensorBoard shows the first."""
        if self._end_number is None:
            return
        assert self._file is not None, "start() comes first"
        try:
            self._write_end(outcome)
            self._file.overwrite(self._end_number, self._events.pop())
        finally:
            self._events = []

    def _write_hparams(self, tag: str, data: Any) -> None:
        from tensorboard.plugins.hparams import metadata

        summary_metadata = metadata.create_summary_metadata(data)
        self._write(0, self._time(), tag=tag, metadata=summary_metadata, tensor=metadata.NULL_TENSOR)

    def _write_tables(self) -> None:
        from tensorboard.plugins.text import metadata
        from tensorboard.util import tensor_util

        for table in sorted(self._changed):
            cells = [f"| {_cell(key)} | {_cell(text)} |" for key, text in self._tables[table].items()]
            markdown = "\n".join(["| key | value |", "| --- | --- |", *cells])
            summary_metadata = metadata.create_summary_metadata(table, "")
            tensor = tensor_util.make_tensor_proto(markdown)
            self._write(0, self._time(), tag=table, metadata=summary_metadata, tensor=tensor)
        self._changed = set()

    def _write(self, step: int, timestamp: float, **value: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(timestamp, step=step, summary=Summary(value=[Summary.Value(**value)]))

    def _add(self, timestamp: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._events.append(Event(wall_time=timestamp, **content))

    def _time(self) -> float:
        return self.now or time.time()


def hparam(value: object) -> bool | float | str:
    """Return a param in the three types that HParams have, so that a key has one type in all runs.

    Example:
        >>> [hparam(value) for value in (True, 3, "adam", None, [64, 64])]
        [True, 3.0, 'adam', 'none', '[64, 64]']
    """
    if isinstance(value, bool | str):
        return value
    if value is None:
        return "none"
    text = as_text(value)
    try:
        return float(text)
    except ValueError:
        return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
