"""The journal: every call of a run, one strict JSON object per line, in order.

Each line has the `verb` and its arguments. What is in the journal can be told to trackers again, so it is the
record of a run that does not depend on any store. Images lie in files beside it.

    {"verb":"start","id":"…","experiment":"digits","name":"mlp","started":1763750000.0,"version":1}
    {"verb":"log_params","params":{"model/type":"mlp"}}
    {"verb":"log_metrics","metrics":[["train/loss",0.25,1,1763750001.5]]}
    {"verb":"log_image","path":"figures/confusion_000001.png","name":"confusion","step":1}
    {"verb":"end","status":"FINISHED"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from .errors import TrackerError
from .images import decode_png
from .run import DatasetInput, Metric, Run
from .strict_json import plain

VERSION = 1

Entry: TypeAlias = dict[str, Any]


class Journal:
    """An append-only file; each entry has left the process when `append` returns.

    Args:
        path: The file; its directory must exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     journal = Journal(Path(directory) / "journal.jsonl")
        ...     journal.append({"verb": "log_tags", "tags": {"team": "a"}})
        ...     journal.close()
        ...     list(read_journal(journal.path))
        [{'verb': 'log_tags', 'tags': {'team': 'a'}}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="ascii")

    def append(self, entry: Entry) -> None:
        """Write one entry and hand it to the operating system, which keeps it even if this process is killed."""
        self._file.write(json.dumps(entry, allow_nan=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal; a last line that a kill cut short is left out.

    Raises:
        TrackerError: a line is not an entry.
    """
    with path.open(encoding="ascii") as file:
        for count, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise TrackerError(f"{path}, line {count}: got {line[:80]!r}; expected a JSON object") from error


def start_entry(run: Run) -> Entry:
    """Return the first entry of a run."""
    entry = {"verb": "start", "id": run.id, "experiment": run.experiment, "name": run.name, "root": str(run.root)}
    return entry | {"directory": str(run.directory), "started": run.started, "version": VERSION}


def inputs_entry(inputs: list[DatasetInput]) -> Entry:
    """Return the entry of the data of a run."""
    return {"verb": "log_inputs", "inputs": [plain(asdict(each)) for each in inputs]}


def arguments(entry: Entry, directory: Path) -> tuple[Any, ...]:
    """Return what the tracker's method `entry["verb"]` takes.

    Args:
        entry: As given to the journal or read from it.
        directory: The run's, from which relative paths are taken.

    Raises:
        TrackerError: the verb is unknown.
        OSError: the file of an image is gone.
    """
    match entry["verb"]:
        case "start":
            root, own = Path(entry["root"]), Path(entry["directory"])
            return (Run(entry["id"], entry["experiment"], entry["name"], root, own, entry["started"]),)
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
        case "log_inputs":
            return ([DatasetInput(**each) for each in entry["inputs"]],)
        case "end":
            return (entry["status"],)
        case verb:
            raise TrackerError(f"{directory}: the journal has the unknown verb {verb!r}; a newer version wrote it")


def merged(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries with consecutive metrics as one, because stores take many points as fast as one.

    Example:
        >>> [entry["verb"] for entry in merged([
        ...     {"verb": "log_metrics", "metrics": [["a", 1.0, 1, 0.0]]},
        ...     {"verb": "log_metrics", "metrics": [["a", 2.0, 2, 0.0]]},
        ...     {"verb": "end", "status": "FINISHED"},
        ... ])]
        ['log_metrics', 'end']
    """
    metrics: list[Any] = []
    for entry in entries:
        if entry["verb"] == "log_metrics":
            metrics += entry["metrics"]
            continue
        if metrics:
            yield {"verb": "log_metrics", "metrics": metrics}
            metrics = []
        yield entry
    if metrics:
        yield {"verb": "log_metrics", "metrics": metrics}
