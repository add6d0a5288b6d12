"""What the lines of a journal mean: calls of a tracker, and back."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, TrackerError
from .images import decode_png
from .journal import Entry
from .run import JSON, DatasetInput, Metric, ModelFile, Run
from .strict_json import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
# In the year 5138.
_LAST_TIME = 1e11


def start_entry(run: Run, trackers: Sequence[dict[str, JSON]]) -> Entry:
    """Return the first entry of a run; `trackers` is what `sync` needs to make them again."""
    entry: Entry = {
        "verb": "start",
        "id": run.id,
        "experiment": run.experiment,
        "name": run.name,
        "root": str(run.root),
    }
    entry |= {"directory": str(run.directory), "started": run.started, "version": VERSION}
    if run.default_experiment:
        entry["default_experiment"] = True
    return entry | {"pid": os.getpid(), "host": socket.gethostname(), "trackers": list(trackers)}


def inputs_entry(inputs: Sequence[DatasetInput]) -> Entry:
    """Return the entry of the data of a run."""
    return {"verb": "log_inputs", "inputs": [plain(asdict(each)) for each in inputs]}


def model_entry(model: ModelFile, path: str) -> Entry:
    """Return the entry of a model whose file is at `path`, relative to the run's directory where it lies in there."""
    return {"verb": "log_model", "model": plain({**asdict(model), "path": path})}


def is_time(value: object) -> bool:
    """Tell whether a value is a unix time that a calendar has.

    Example:
        >>> is_time(1763750000.0), is_time(1e300), is_time("soon")
        (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LAST_TIME


def started_run(entry: Entry, directory: Path) -> Run:
    """Return the run that a start entry names, at the place where its directory is now.

    Example:
        >>> entry = start_entry(Run.new("/home/a/runs", "digits", "mlp"), [])
        >>> started_run(entry, Path("/mnt/copy/digits") / Path(entry["directory"]).name).root
        PosixPath('/mnt/copy')

    Raises:
        ArgumentError: it names none: a journal may have come from anywhere, or be damaged.
    """
    texts = [entry.get(name) for name in ("id", "experiment", "name", "root", "directory")]
    started = entry.get("started")
    if not all(isinstance(text, str) for text in texts) or not is_time(started):
        raise ArgumentError(f"the entry that starts a run: got {texts} at {started!r}; expected texts, and a unix time")
    root, own = Path(entry["root"]), Path(entry["directory"])
    is_default = entry.get("default_experiment", False)
    run = Run(entry["id"], entry["experiment"], entry["name"], root, own, entry["started"], is_default)
    if own == directory:
        return run
    levels = len(own.relative_to(root).parts) if own.is_relative_to(root) else 1
    if not 1 <= levels <= len(directory.parents):
        raise ArgumentError(f"{str(directory)!r}: a run of {str(own)!r} below {str(root)!r} cannot lie there")
    return replace(run, root=directory.parents[levels - 1], directory=directory)


def recipes_of(start: Entry) -> Iterator[dict[str, Any]]:
    """Yield how trackers are made again, from the entry that starts a run; what is no such thing is left out."""
    recipes = start.get("trackers")
    for recipe in recipes if isinstance(recipes, list) else ():
        match recipe:
            case {"name": str(), "type": str(), "arguments": dict() | None}:
                yield recipe


def arguments(entry: Entry, directory: Path) -> tuple[Any, ...]:
    """Return what the tracker's method `entry["verb"]` takes.

    Args:
        entry: As given to the journal or read from it.
        directory: The run's, from which relative paths are taken.

    Raises:
        TrackerError: the verb is unknown.
        OSError: the file of an image or a model is gone.
    """
    match entry["verb"]:
        case "start":
            return (started_run(entry, directory),)
        case "log_params":
            return (entry["params"],)
        case "log_tags":
            return (entry["tags"],)
        case "log_metrics":
            return ([Metric(key, float(value), step, timestamp) for key, value, step, timestamp in entry["metrics"]],)
        case "log_asset":
            return (directory / entry["path"], entry["name"])
        case "log_image":
            return (decode_png((directory / entry["path"]).read_bytes()), entry["name"], entry["step"])
        case "log_histogram":
            return entry["name"], *_arrays(entry), entry["step"]
        case "log_graph":
            return (directory / entry["path"],)
        case "log_inputs":
            return ([DatasetInput(**each) for each in entry["inputs"]],)
        case "log_model":
            return (_model(entry["model"], directory),)
        case "end":
            return (entry["status"],)
        case verb:
            raise TrackerError(f"{directory}: the journal has the unknown verb {verb!r}; a newer version wrote it")


def _model(content: dict[str, Any], directory: Path) -> ModelFile:
    path = directory / content["path"]
    if not path.is_file():
        raise FileNotFoundError(f"the file {str(path)!r} is gone")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != content["sha256"]:
            raise TrackerError(f"the file {str(path)!r} is not the one that was logged: its SHA-256 is another")
    return ModelFile(**{**content, "path": path, "requirements": tuple(content["requirements"])})


def _arrays(entry: Entry) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    import numpy as np

    return np.array(entry["counts"], np.int64), np.array(entry["edges"], np.float64)


def merged(found: Iterable[tuple[Entry | None, int]]) -> Iterator[tuple[Entry | None, int]]:
    """Yield entries with consecutive metrics as one, because stores take many points as fast as one.

    Example:
        >>> [(entry["verb"], end) for entry, end in merged([
        ...     ({"verb": "log_metrics", "metrics": [["a", 1.0, 1, 0.0]]}, 10),
        ...     ({"verb": "log_metrics", "metrics": [["a", 2.0, 2, 0.0]]}, 20),
        ...     ({"verb": "end", "status": "FINISHED"}, 30),
        ... ])]
        [('log_metrics', 20), ('end', 30)]
    """
    metrics: list[Any] = []
    behind = 0
    for entry, end in found:
        if entry is not None and entry["verb"] == "log_metrics":
            metrics += entry["metrics"]
            behind = end
            continue
        if metrics:
            yield {"verb": "log_metrics", "metrics": metrics}, behind
            metrics = []
        yield entry, end
    if metrics:
        yield {"verb": "log_metrics", "metrics": metrics}, behind
