# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError
from .files import AppendFile, is_within
from .run import JSON, DatasetInput, Metric, Run, Status
from .strict_json import dumps, plain
from .tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class JSONLinesTracker(Tracker):
    """Appends one strict JSON object per line to a file, for other programs to read.

    Each object has a `kind`: `start`, `params`, `tags`, `metric`, `histogram`, `asset`, `input` or `end`. A value
    that is not finite is the string `NaN`, `Infinity` or `-Infinity`. Images, models and graphs are left out. A run
    that is told again goes on behind its last complete line.

    Args:
        path: The file; None means `metrics.jsonl` in the directory of the run. A relative path is taken from the
            working directory at construction.

    Raises:
        ArgumentError: the path is a directory.

    Example:
        >>> JSONLinesTracker("/tmp")
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: jsonl path: '/tmp' is a directory; expected the path of a file
    """

    name = "jsonl"

    def __init__(self, path: str | None = None) -> None:
        self._path = None if path is None else Path(path).absolute()
        if self._path is not None and self._path.is_dir():
            raise ArgumentError(f"jsonl path: {path!r} is a directory; expected the path of a file")
        self._file: AppendFile | None = None
        self._lines_there = 0

    def start(self, run: Run) -> None:
        if self._path is None:
            self._path = run.directory / "metrics.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._file is not None:
            self._file.close()
        self._file = AppendFile(self._path)
        self._lines_there = _lines_of(self._path, run.id)
        self._write(
            {"kind": "start", "run_id": run.id, "experiment": run.experiment, "name": run.name, "time": run.started}
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._write({"kind": "params", "params": params})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        self._write({"kind": "tags", "tags": tags})

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        self._write(*({"kind": "metric", **metric._asdict()} for metric in metrics))

    def log_asset(self, path: Path, name: str) -> None:
        self._write({"kind": "asset", "name": name, "path": path})

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        bins = {"counts": counts.tolist(), "edges": edges.tolist()}
        self._write({"kind": "histogram", "name": name, "step": step, **bins})

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self._write(*({"kind": "input", **asdict(each)} for each in inputs))

    def end(self, status: Status) -> None:
        self._write({"kind": "end", "status": status})
        if self._file is not None:
            self._file.close()

    def info(self) -> dict[str, JSON]:
        return {"path": plain(self._path), "ui": f"tail -f {shlex.quote(str(self._path))}"}

    def arguments(self, run: Run) -> dict[str, JSON]:
        return {"path": plain(self._path)}

    def stays_beside(self, run: Run) -> bool:
        return is_within(self._path or run.directory / "metrics.jsonl", run.directory)

    def _write(self, *objects: Mapping[str, Any]) -> None:
        assert self._file is not None, "start() comes first"
        there = min(self._lines_there, len(objects))
        if there < len(objects):
            self._file.write("".join(dumps(each) + "\n" for each in objects[there:]).encode())
        self._lines_there -= there


def _lines_of(path: Path, run_id: str) -> int:
    """Cut off a last line that a kill left incomplete; return how many lines the run has already."""
    whole, count = 0, 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)
                break
            whole += len(line)
            if b'"kind":"start"' in line:
                count = int(json.loads(line).get("run_id") == run_id)
            elif count:
                count += 1
    return count
