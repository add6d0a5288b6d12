"""Runs whose process is gone: what their trackers missed is delivered from the journal."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from .delivery import Cursor, Failure
from .errors import TrackerError
from .files import RunLock
from .group import Group
from .journal import Journal, entries
from .origin import check_links, is_ours
from .registry import load, name_of, tracker_names
from .run import JSON, Run
from .starts import recipes_in, run_at
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

    Attributes:
        foreign_end: Up to which offset of the journal anybody may have written it; 0 for a run that was recorded here.

    Raises:
        RunBusyError: another process has them.
        TrackerError: the run was not recorded here, and has links where files of its own belong.
        OSError: they cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[str, OSError], None] | None = None,
        task: Literal["record", "deliver"] = "record",
    ) -> None:
        is_foreign = (directory / "journal.jsonl").is_file() and not is_ours(directory)
        if is_foreign:
            check_links(directory)
        self._lock = RunLock(directory)
        self._lock.acquire(task)
        try:
            self.journal = Journal(directory / "journal.jsonl", report)
        except OSError:
            self._lock.release()
            raise
        self.foreign_end = self.journal.end if is_foreign else 0
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
    """What became of a run.

    Args:
        directory: The run's.
        trackers: By tracker what `Recorder.info` would say.
        undelivered: By tracker how many entries are still missing.
        left_out: What was passed over, each with the reason: it is not delivered later either.
    """

    directory: Path
    trackers: dict[str, JSON]
    undelivered: dict[str, int]
    left_out: list[str]


def sync(
    directory: str | Path,
    trackers: Mapping[str, Tracker] | None = None,
    patience: float = PATIENCE,
    *,
    trust: bool = False,
) -> Synced:
    """Deliver what the trackers of a run have missed, from its journal, in order and exactly once.

    The directory may have been copied from another machine; stores that lay beside it are then made anew where it is
    now. A run whose process died without a word is ended as KILLED first.

    Of a run that was not recorded in this very directory, by this user, anybody may have written the journal. Of its
    files only those in the directory are delivered, no models, and only to trackers that store beside the run or where
    the environment says (`Tracker.stays_beside`). What is passed over is in `left_out`.

    Args:
        directory: The run's.
        trackers: By name, where they cannot be made from what the journal says (classes of one's own) or are to
            store elsewhere.
        patience: Seconds that a tracker which does not get on is waited for.
        trust: Do all that the journal of a run says which was not recorded here.

    Raises:
        TrackerError: there is no journal, it does not say which run it is of, or the run was not recorded here and has
            links where files of its own belong.
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
    place = _checked(directory)
    files = RunFiles(place, task="deliver")
    try:
        _end_if_dead(files.journal)
        run = run_at(place)
        foreign_end = 0 if trust else files.foreign_end
        told, unknown = _made_again(run, trackers or {}, is_foreign=foreign_end > 0)
        failures: deque[Failure] = deque()
        group = Group(told, files.journal, run, files.close, failures, foreign_end)
    except BaseException:
        files.close()
        raise
    group.start()
    left = group.finish(None, patience)
    states = group.info() | {name: {"status": "degraded", "error": why} for name, why in unknown.items()}
    return Synced(place, states, left, [failure.message for failure in failures if not failure.outcome])


def destinations(directory: str | Path) -> dict[str, dict[str, JSON] | None]:
    """Return by name the arguments with which `sync` would make the trackers of a run; None where it cannot.

    Raises:
        TrackerError: there is no journal, or it does not say which run it is of.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([load("jsonl", path="/tmp/lines.jsonl")], Run.new(root)) as recorder:
        ...         pass
        ...     destinations(recorder.run.directory)
        {'jsonl': {'path': '/tmp/lines.jsonl'}}
    """
    place = _checked(directory)
    recipes = recipes_in(place, run_at(place).root)
    return {name: recipe["arguments"] for name, recipe in recipes.items()}


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
        # Of one that came from elsewhere nobody has asked for the delivery.
        if _is_ended(place) or not is_ours(place):
            continue
        try:
            sync(place, patience=REPAIR_PATIENCE)
        except (TrackerError, OSError) as error:  # another process was faster, or the directory is not ours to write
            logger.info("%s is not repaired: %s", place, error)


def _checked(directory: str | Path) -> Path:
    place = Path(directory).absolute()
    if not (place / "journal.jsonl").is_file():
        raise TrackerError(f"{str(place)!r} is not the directory of a run: it has no journal.jsonl")
    return place


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
    names = recipes_in(directory, directory)
    return any(Cursor.read(directory / "delivery" / f"{name}.json").offset < size for name in names)


def _end_if_dead(journal: Journal) -> None:
    if _is_ended(journal.path.parent):
        return
    now = time.time()
    journal.append({"verb": "log_tags", "tags": {"gymtrain.ended": "process died"}, "time": now})
    journal.append({"verb": "end", "status": "KILLED", "time": now})


def _made_again(
    run: Run, given: Mapping[str, Tracker], *, is_foreign: bool
) -> tuple[dict[str, Tracker], dict[str, str]]:
    """Return the trackers of a run by name, and of those that cannot be made again why."""
    made = dict(given)
    unknown: dict[str, str] = {}
    for name, recipe in recipes_in(run.directory, run.root).items():
        kind, given_then = recipe["type"], recipe["arguments"]
        if name in given:
            continue
        # A journal must not choose what is imported: it may have come from anywhere.
        if kind not in tracker_names() or given_then is None:
            unknown[name] = (
                f"{kind!r} cannot be made again from the journal; call sync(..., trackers={{{name!r}: ...}})"
            )
            continue
        try:
            tracker = load(kind, **given_then)
            is_allowed = not is_foreign or tracker.stays_beside(run)
        except (TrackerError, TypeError, ValueError, AttributeError) as error:
            unknown[name] = f"{kind!r} cannot be made again from the journal: {error}"
            continue
        if is_allowed:
            made[name] = tracker
        else:
            unknown[name] = (
                f"the run was not recorded here, and only its journal says where to send it: {given_then}; "
                "`gymtrain sync --trust` does so (trust=True)"
            )
    return made, unknown
