"""Runs whose process is gone: what their trackers missed is delivered from the journal."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .delivery import Cursor, Failure, first_run
from .entries import recipes_of
from .errors import TrackerError
from .files import RunLock
from .group import Group
from .journal import Journal, entries, start_entries
from .registry import load, name_of, tracker_names
from .run import JSON, Run
from .strict_json import plain
from .tracker import Tracker

logger = logging.getLogger(__name__)

PATIENCE = 30.0
REPAIR_PATIENCE = 5.0
TAIL_BYTES = 4096

_open_files: weakref.WeakSet[RunFiles] = weakref.WeakSet()


class RunFiles:
    """The journal of a run and the lock that says whose it is; in a forked child both are let go.

    Args:
        directory: The run's.
        report: Told what could not be written.
        task: What they are wanted for.

    Raises:
        RunBusyError: another process has them.
        OSError: they cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[str, OSError], None] | None = None,
        task: Literal["record", "deliver"] = "record",
    ) -> None:
        self._lock = RunLock(directory)
        self._lock.acquire(task)
        try:
            self.journal = Journal(directory / "journal.jsonl", report)
        except OSError:
            self._lock.release()
            raise
        _open_files.add(self)

    def close(self) -> None:
        """Close the journal, then give the lock back."""
        self.journal.close()
        self._lock.release()

    def let_go(self) -> None:
        """Close what a forked child has inherited; the parent keeps it."""
        self._lock.release()


def _let_go_in_child() -> None:
    # A child that outlives its parent would keep the lock, and nobody could repair the run.
    for files in list(_open_files):
        files.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


class Synced(NamedTuple):
    """What became of a run: its directory, by tracker what `Recorder.info` would say, and the entries still missing."""

    directory: Path
    trackers: dict[str, JSON]
    undelivered: dict[str, int]


def sync(directory: str | Path, trackers: Mapping[str, Tracker] | None = None, patience: float = PATIENCE) -> Synced:
    """Deliver what the trackers of a run have missed, from its journal, in order and exactly once.

    The directory may have been copied from another machine; stores that lay beside it are then made anew where it is
    now. A run whose process died without a word is ended as KILLED first.

    Args:
        directory: The run's.
        trackers: By name, where they cannot be made from what the journal says (classes of one's own) or are to
            store elsewhere.
        patience: Seconds that a tracker which does not get on is waited for.

    Raises:
        TrackerError: there is no journal, or it names no trackers.
        RunBusyError: the run is still going.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([load("jsonl")], Run.new(root)) as recorder:
        ...         recorder.log_params({"lr": 0.1})
        ...     sync(recorder.run.directory).undelivered
        {'jsonl': 0}
    """
    place = Path(directory).absolute()
    if not (place / "journal.jsonl").is_file():
        raise TrackerError(f"{str(place)!r} is not the directory of a run: it has no journal.jsonl")
    files = RunFiles(place, task="deliver")
    try:
        _end_if_dead(files.journal)
        run = first_run(files.journal, place)
        told, unknown = _made_again(files.journal, run, trackers or {})
        failures: deque[Failure] = deque()
        group = Group(told, files.journal, place, files.close, failures)
    except BaseException:
        files.close()
        raise
    group.start()
    left = group.finish(None, patience)
    for failure in failures:
        logger.warning("%s", failure.message)
    states = group.info() | {name: {"status": "degraded", "error": why} for name, why in unknown.items()}
    return Synced(place, states, left)


def unfinished(root: str | Path) -> list[Path]:
    """Return the directories under `root` of runs that died without a word, or whose trackers miss something.

    Runs that are still going are left out.

    Example:
        >>> unfinished("/nonexistent")
        []
    """
    return [place for place in _runs(Path(root)) if not _is_ended(place) or _is_behind(place)]


def repair_dead(root: Path) -> None:
    """End and deliver the runs under `root` whose process died, as far as their stores can be reached now."""
    for place in _runs(root):
        if _is_ended(place):
            continue
        try:
            sync(place, patience=REPAIR_PATIENCE)
        except (TrackerError, OSError) as error:  # another process was faster, or the directory is not ours to write
            logger.info("%s is not repaired: %s", place, error)


def recipes(trackers: Mapping[str, Tracker], run: Run) -> list[dict[str, JSON]]:
    """Return how the trackers are made again in another process; without those that end with this one."""
    return [
        {"name": name, "type": name_of(type(tracker)), "arguments": plain(tracker.arguments(run))}
        for name, tracker in trackers.items()
        if tracker.is_lasting
    ]


def _runs(root: Path) -> Iterator[Path]:
    for path in sorted(root.glob("*/*/journal.jsonl")):
        if not RunLock(path.parent).is_held_elsewhere():
            yield path.parent


def _is_ended(directory: Path) -> bool:
    path = directory / "journal.jsonl"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        tail = file.read()
    found = [entry for entry, _ in entries(tail[: tail.rfind(b"\n") + 1], 0) if entry is not None]
    return bool(found) and found[-1]["verb"] == "end"


def _is_behind(directory: Path) -> bool:
    size = (directory / "journal.jsonl").stat().st_size
    return any(Cursor.read(directory / "delivery" / f"{name}.json").offset < size for name in _recipes_in(directory))


def _recipes_in(directory: Path) -> dict[str, dict[str, Any]]:
    """Return by name how the trackers are made again, and under which root; the last process that had one knows."""
    return {
        recipe["name"]: {**recipe, "root": start["root"]}
        for start in start_entries(directory / "journal.jsonl")
        for recipe in recipes_of(start)
    }


def _end_if_dead(journal: Journal) -> None:
    if _is_ended(journal.path.parent):
        return
    now = time.time()
    journal.append({"verb": "log_tags", "tags": {"gymtrain.ended": "process died"}, "time": now})
    journal.append({"verb": "end", "status": "KILLED", "time": now})


def _made_again(journal: Journal, run: Run, given: Mapping[str, Tracker]) -> tuple[dict[str, Tracker], dict[str, str]]:
    """Return the trackers of a run by name, and of those that cannot be made again why."""
    made = dict(given)
    unknown: dict[str, str] = {}
    for name, recipe in _recipes_in(journal.path.parent).items():
        kind, arguments_, before = recipe["type"], recipe["arguments"], recipe["root"]
        if name in given:
            continue
        # A journal must not choose what is imported: it may have come from anywhere.
        if kind not in tracker_names() or arguments_ is None:
            unknown[name] = (
                f"{kind!r} cannot be made again from the journal; call sync(..., trackers={{{name!r}: ...}})"
            )
        else:
            made[name] = load(kind, **{key: moved(value, before, run.root) for key, value in arguments_.items()})
    return made, unknown


def moved(value: Any, before: str, root: Path) -> Any:
    """Return an argument of a tracker as it is after the root of its run was moved from `before` to `root`.

    Example:
        >>> moved("sqlite:////tmp/runs/mlflow.db", "/tmp/runs", Path("/mnt"))
        'sqlite:////mnt/mlflow.db'
        >>> moved("/tmp/runs2", "/tmp/runs", Path("/mnt"))
        '/tmp/runs2'
    """
    if isinstance(value, str):
        for scheme in ("sqlite:///", "file://", ""):
            place = value.removeprefix(scheme)
            if value.startswith(scheme) and f"{place}/".startswith(f"{before}/"):
                return f"{scheme}{root}{place[len(before) :]}"
    return value
