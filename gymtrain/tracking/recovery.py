"""Runs whose trackers miss something: found, and delivered from their journals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gymtrain.errors import TrainingError
from gymtrain_trackers import RunBusyError, TrackerError, destinations, sync, unfinished

Announce = Callable[[Path, dict[str, dict[str, Any] | None]], None]


class Delivered(NamedTuple):
    """What became of a run: for each tracker None, or why it still misses something; and what is never delivered."""

    directory: Path
    missing: dict[str, str | None]
    left_out: list[str]

    @property
    def is_complete(self) -> bool:
        """Whether every tracker has everything."""
        return not self.left_out and not any(self.missing.values())


def deliver(directory: Path, *, trust: bool = False, announce: Announce | None = None) -> Delivered:
    """Deliver what the trackers of a run have missed; a run whose process died is ended as KILLED first.

    Args:
        directory: The run's.
        trust: Do all that the journal says, also where the run was not recorded here.
        announce: Told, before anything is delivered, with which arguments the trackers are made.

    Raises:
        TrainingError: The directory holds no run, or the run is still going.
    """
    try:
        if announce is not None:
            announce(directory, destinations(directory))
        synced = sync(directory, trust=trust)
    except TrackerError as error:
        raise TrainingError(str(error)) from error
    missing: dict[str, str | None] = {}
    for name, state in synced.trackers.items():
        why = state.get("error") if isinstance(state, dict) else None
        count = synced.undelivered.get(name, 0)
        missing[name] = f"{count} entries are not delivered: {why}" if count else None if why is None else str(why)
    return Delivered(synced.directory, missing, synced.left_out)


def deliver_all(root: Path, *, trust: bool = False, announce: Announce | None = None) -> list[Delivered]:
    """Deliver every run under `root` that died without a word or whose trackers miss something, but those still going.

    Raises:
        TrainingError: A run cannot be read.
    """
    delivered: list[Delivered] = []
    for directory in unfinished(root):
        try:
            delivered.append(deliver(directory, trust=trust, announce=announce))
        except TrainingError as error:
            if not isinstance(error.__cause__, RunBusyError):  # somebody else is at it, since a moment ago
                raise
    return delivered
