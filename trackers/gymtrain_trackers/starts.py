"""The entries of a journal that begin a run or go on with it: which run it is, and how its trackers are made again."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import ArgumentError, TrackerError
from .journal import Entry, entries
from .run import JSON, Run, is_time, path_part

VERSION = 1
# As the journal writes it, so that the other entries need not be read.
_STARTING = b'{"verb":"start"'


def start_entry(run: Run, trackers: Sequence[dict[str, JSON]], inode: int | None = None) -> Entry:
    """Return the first entry of a run; `trackers` is what `sync` needs to make them again, `inode` of the directory."""
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
    if inode is not None:
        entry["inode"] = inode
    return entry | {"pid": os.getpid(), "host": socket.gethostname(), "trackers": list(trackers)}


def start_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal that begin the run or go on with it, without reading the others.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_STARTING):
                yield from (entry for entry, _ in entries(line, 0) if entry is not None)


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
    if ".." in (*root.parts, *own.parts):
        raise ArgumentError(f"the entry that starts a run: got {str(own)!r} below {str(root)!r}; expected no '..'")
    is_default = entry.get("default_experiment", False)
    run = Run(entry["id"], entry["experiment"], entry["name"], root, own, entry["started"], is_default)
    if own == directory:
        return run
    levels = len(own.relative_to(root).parts) if own.is_relative_to(root) else 1
    if not 1 <= levels <= len(directory.parents):
        raise ArgumentError(f"{str(directory)!r}: a run of {str(own)!r} below {str(root)!r} cannot lie there")
    return replace(run, root=directory.parents[levels - 1], directory=directory)


def run_at(directory: Path) -> Run:
    """Return the run whose journal lies in a directory.

    Raises:
        TrackerError: There is no journal, or it is no run's.
    """
    try:
        entry = next(start_entries(directory / "journal.jsonl"), None)
    except OSError as error:
        raise TrackerError(f"{str(directory)!r} is not the directory of a run: {error}") from error
    if entry is None:
        raise TrackerError(f"{directory / 'journal.jsonl'} has no entry that starts a run")
    return started_run(entry, directory)


def recorded_run(directory: str | Path) -> Run:
    """Return the run whose journal lies in a directory, for a `Recorder` that goes on with it.

    A directory that was moved is the run; one that was copied is not, while the original is there.

    Raises:
        TrackerError: There is no journal, it is no run's, or the directory is a copy.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([], Run.new(root)) as recorder:
        ...         pass
        ...     recorded_run(recorder.run.directory) == recorder.run
        True
    """
    place = Path(directory).absolute()
    run = run_at(place)
    original = Path(next(start_entries(place / "journal.jsonl"))["directory"])
    if original.exists() and not original.samefile(place):
        raise TrackerError(f"{str(place)!r} is a copy of the run in {str(original)!r}")
    return run


def recipes_of(start: Entry, root: Path) -> Iterator[dict[str, Any]]:
    """Yield how trackers are made again, from the entry that starts a run; what is no such thing is left out.

    Args:
        start: The entry.
        root: Of the run, as it is now: what lay under the one of the entry is named there.
    """
    recipes = start.get("trackers")
    for recipe in recipes if isinstance(recipes, list) else ():
        match recipe:
            case {"name": str(name), "type": str(), "arguments": dict() | None as given}:
                if path_part(name) == name:  # it is that of a file, too
                    now = given and {key: moved(value, start.get("root"), root) for key, value in given.items()}
                    yield {**recipe, "arguments": now}


def recipes_in(directory: Path, root: Path) -> dict[str, dict[str, Any]]:
    """Return by name how the trackers of a run are made again; the last process that had one knows."""
    starts = start_entries(directory / "journal.jsonl")
    return {recipe["name"]: recipe for start in starts for recipe in recipes_of(start, root)}


def moved(value: Any, before: Any, root: Path) -> Any:
    """Return an argument of a tracker as it is after the root of its run was moved from `before` to `root`.

    What leaves the root by `..` did not move with it.

    Example:
        >>> moved("sqlite:////tmp/runs/mlflow.db", "/tmp/runs", Path("/mnt"))
        'sqlite:////mnt/mlflow.db'
        >>> moved("/tmp/runs2", "/tmp/runs", Path("/mnt"))
        '/tmp/runs2'
    """
    # A journal may have come from anywhere, and the root that it names be none.
    if isinstance(value, str) and isinstance(before, str) and before.startswith("/"):
        for scheme in ("sqlite:///", "file://", ""):
            place = value.removeprefix(scheme)
            is_below = f"{place}/".startswith(f"{before}/") and ".." not in Path(place).parts
            if value.startswith(scheme) and is_below:
                return f"{scheme}{root}{place[len(before) :]}"
    return value
