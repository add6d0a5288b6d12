from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .run import JSON
from .tracker import Tracker

logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """What went wrong, in words, and the error itself."""

    message: str
    error: BaseException


@dataclass
class Sink:
    """A tracker and how it is doing."""

    name: str
    tracker: Tracker
    is_started: bool = False
    is_ended: bool = False
    info: dict[str, JSON] = field(default_factory=dict)
    error: str | None = None

    def takes(self, verb: str) -> bool:
        """Whether the call should be tried: a tracker that failed only gets its `end`, lest its run stay open."""
        return (verb == "start" and self.error is None) or (self.is_started and (self.error is None or verb == "end"))


class Group:
    """Passes each call on to several trackers; one that fails does not keep it from the others.

    Attributes:
        failures: What went wrong and was not reported yet, oldest first; safe to empty from another thread.

    Example:
        >>> from gymtrain_trackers import Run, load
        >>> first, second = load("history"), load("history")
        >>> group = Group([first, second])
        >>> group.each("start", Run.new("/tmp/runs"))
        >>> group.each("log_params", {"lr": 0.1})
        >>> group.each("end", "FINISHED")
        >>> second.params, list(group.info())
        ({'lr': 0.1}, ['history', 'history-2'])
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._sinks: list[Sink] = []
        for tracker in trackers:
            same = sum(sink.tracker.name == tracker.name for sink in self._sinks)
            self._sinks.append(Sink(f"{tracker.name}-{same + 1}" if same else tracker.name, tracker))
        self.failures: deque[Failure] = deque()

    def prepare(self) -> None:
        """Let every tracker import what it needs; never raises. A missing package is reported by `start`."""
        for sink in self._sinks:
            try:
                sink.tracker.prepare()
            except ImportError as error:
                logger.debug("tracker %s: %s", sink.name, error)
            except Exception as error:
                self._failed(sink, f"prepare raised {type(error).__name__}: {error}", error)

    def each(self, verb: str, *arguments: Any) -> None:
        """Call the method `verb` of every tracker that still works; never raises."""
        for sink in self._sinks:
            if not sink.takes(verb):
                continue
            try:
                getattr(sink.tracker, verb)(*arguments)
                if verb == "start":
                    sink.is_started = True
                    sink.info = sink.tracker.info()
                sink.is_ended = verb == "end"
            except Exception as error:
                self._failed(sink, f"{verb} raised {type(error).__name__}: {error}", error)

    def give_up(self, seconds: float) -> None:
        """Mark every tracker that has not come to its end as failed, because nobody waits for it any longer."""
        for sink in self._sinks:
            if not sink.is_ended:
                late = TimeoutError(f"still busy {seconds:g} s after the end of the run")
                self._failed(sink, str(late), late)

    def info(self) -> dict[str, JSON]:
        """Return what each tracker says of itself, with `status` "ok" or "degraded" and then `error`."""
        return {
            sink.name: {**sink.info, "status": "degraded", "error": sink.error}
            if sink.error is not None
            else {**sink.info, "status": "ok"}
            for sink in self._sinks
        }

    def _failed(self, sink: Sink, what: str, error: Exception) -> None:
        logger.debug("tracker %s failed", sink.name, exc_info=error)
        if sink.error is None:
            sink.error = what
            self.failures.append(Failure(f"tracker {sink.name!r}: {what}; the run goes on without it", error))
