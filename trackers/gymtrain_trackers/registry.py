"""Names of trackers, and the classes behind them, which are imported when somebody asks."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .errors import ArgumentError, MissingPackageError
from .tracker import Tracker

ENTRY_POINTS = "gymtrain.trackers"

_known: dict[str, str | type[Tracker]] = {
    "comet": "gymtrain_trackers.comet:CometTracker",
    "history": "gymtrain_trackers.history:HistoryTracker",
    "jsonl": "gymtrain_trackers.jsonl:JSONLinesTracker",
    "mlflow": "gymtrain_trackers.mlflow:MLflowTracker",
    "tensorboard": "gymtrain_trackers.tensorboard:TensorBoardTracker",
    "wandb": "gymtrain_trackers.wandb:WandbTracker",
}

T = TypeVar("T", bound=type[Tracker])


def register(name: str) -> Callable[[T], T]:
    """Make a tracker known to `load` in this process.

    An installed package does the same for every process with an entry point of the group `gymtrain.trackers`.

    Raises:
        ArgumentError: the name already means another class.

    Example:
        >>> @register("nowhere")
        ... class NowhereTracker(Tracker):
        ...     name = "nowhere"
        >>> type(load("nowhere")).__name__
        'NowhereTracker'
    """

    def decorate(tracker: T) -> T:
        taken = _known.get(name)
        # A notebook cell that runs again defines the same class anew.
        if taken is not None and getattr(taken, "__qualname__", taken) != tracker.__qualname__:
            raise ArgumentError(f"the name {name!r} already means the tracker {taken!r}; choose another name")
        _known[name] = tracker
        return tracker

    return decorate


def tracker_names() -> list[str]:
    """Return the names that `load` knows, sorted."""
    return sorted({*_known, *_installed()})


def tracker_class(name: str) -> type[Tracker]:
    """Return the class behind a name, without importing the library behind the class.

    Raises:
        ArgumentError: there is no such tracker.

    Example:
        >>> list(inspect.signature(tracker_class("tensorboard")).parameters)
        ['directory', 'histograms', 'graph']
    """
    found = _known.get(name) or _installed().get(name)
    if found is None:
        known = tracker_names()
        raise ArgumentError(f"there is no tracker {name!r}{_did_you_mean(name, known)}; known are {known}")
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise ArgumentError(f"tracker {name!r}: got {found!r}; expected a subclass of gymtrain_trackers.Tracker")
    return found


def name_of(tracker: type[Tracker]) -> str:
    """Return the name that `load` knows for a class; for any other, where it is defined.

    Example:
        >>> name_of(tracker_class("mlflow")), name_of(Tracker)
        ('mlflow', 'gymtrain_trackers.tracker:Tracker')
    """
    place = f"{tracker.__module__}:{tracker.__qualname__}"
    for name, known in {**_installed(), **_known}.items():
        if known is tracker or known == place:
            return name
    return place


def load(tracker: str | type[Tracker], **arguments: Any) -> Tracker:
    """Return a new tracker; nothing is opened or imported before its `prepare` and `start`.

    Args:
        tracker: Its name, or its class.
        arguments: Those of its constructor.

    Raises:
        ArgumentError: there is no such tracker, or it takes no such argument or value.
        MissingPackageError: the package behind it is not installed.

    Example:
        >>> load("history").name
        'history'
        >>> load("mlfow")
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: there is no tracker 'mlfow'; did you mean 'mlflow'?; known are [...]
    """
    made, name = (tracker_class(tracker), tracker) if isinstance(tracker, str) else (tracker, tracker.name)
    missing = [requirement for requirement in made.requires if not _is_installed(requirement)]
    if missing:
        packages = " ".join(f"'{requirement}'" for requirement in missing)
        raise MissingPackageError(f"the tracker {name!r} needs what is not installed: pip install {packages}")
    known = list(inspect.signature(made).parameters)
    for argument in arguments:
        if argument not in known:
            near = _did_you_mean(argument, known)
            raise ArgumentError(f"tracker {name!r}: unknown argument {argument!r}{near}; it takes {known}")
    return made(**arguments)


def _installed() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def _is_installed(requirement: str) -> bool:
    package = re.split(r"[^\w.]", requirement, maxsplit=1)[0]
    return importlib.util.find_spec(package) is not None


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
