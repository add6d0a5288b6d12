"""What the lines of a journal mean: calls of a tracker, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, TrackerError
from .images import decode_png
from .journal import Entry
from .origin import checked_file
from .run import DatasetInput, Metric, ModelFile
from .starts import started_run
from .strict_json import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def inputs_entry(inputs: Sequence[DatasetInput]) -> Entry:
    """Return the entry of the data of a run."""
    return {"verb": "log_inputs", "inputs": [plain(asdict(each)) for each in inputs]}


def model_entry(model: ModelFile, path: str) -> Entry:
    """Return the entry of a model whose file is at `path`, relative to the run's directory where it lies in there."""
    return {"verb": "log_model", "model": plain({**asdict(model), "path": path})}


def checked_name(name: str) -> str:
    """Return the name of a file in a store, in its simplest form.

    Raises:
        ArgumentError: it is absolute or leaves its folder.

    Example:
        >>> checked_name("plots//roc.png")
        'plots/roc.png'
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or parts == PurePosixPath():
        raise ArgumentError(f"asset name: got {name!r}; expected a relative path such as 'plots/roc.png'")
    return str(parts)


def arguments(entry: Entry, directory: Path, *, is_foreign: bool = False) -> tuple[Any, ...]:
    """Return what the tracker's method `entry["verb"]` takes.

    Args:
        entry: As given to the journal or read from it.
        directory: The run's, from which relative paths are taken.
        is_foreign: Whether anybody may have written the entry, so that only files in the directory are read.

    Raises:
        TrackerError: the verb is unknown, or the entry names what is not to be read or served.
        OSError: the file of an image or a model is gone.
    """

    def file() -> Path:
        path = directory / entry["path"]
        return checked_file(path, directory) if is_foreign else path

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
            return file(), checked_name(entry["name"])
        case "log_image":
            if is_foreign:
                checked_name(entry["name"])  # some stores make a file of that name
            return decode_png(file().read_bytes()), entry["name"], entry["step"]
        case "log_histogram":
            return entry["name"], *_arrays(entry), entry["step"]
        case "log_graph":
            return (file(),)
        case "log_inputs":
            return ([DatasetInput(**each) for each in entry["inputs"]],)
        case "log_model" if is_foreign:
            raise TrackerError(
                "a model names a module that is imported where it is served, and the run was not recorded here"
            )
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
