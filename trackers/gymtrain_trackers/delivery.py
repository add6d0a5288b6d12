"""One tracker, told what the journal holds: in order, again after a failure, and further on in another process."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .addresses import without_password
from .entries import arguments, merged
from .errors import RejectedError, TemporaryError
from .files import replace
from .journal import Entry, Journal, entries
from .run import JSON, Run, Status
from .strict_json import dumps
from .tracker import Tracker

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0

# Two threads that import packages with parts in common may each see the other's half.
_importing = threading.Lock()


def _new_lock_in_child() -> None:
    global _importing
    _importing = threading.Lock()


os.register_at_fork(after_in_child=_new_lock_in_child)


class Failure(NamedTuple):
    """What went wrong, in words, the error itself, and what follows for the tracker; "" where one item was left out."""

    message: str
    error: BaseException
    outcome: str = ""


@dataclass
class Cursor:
    """How far a tracker has been told: everything before `offset`, and what it needs to go on there.

    Args:
        path: The file that holds it; None for what ends with the process.
        offset: In bytes of the journal.
        state: Of the tracker.
    """

    path: Path | None
    offset: int = 0
    state: JSON = None

    @classmethod
    def read(cls, path: Path) -> Cursor:
        """Return what the file holds; the beginning if there is none or it is damaged."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, int(content["offset"]), content["state"])
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s); everything is told from the beginning", path, error)
            return cls(path)

    def write(self) -> None:
        """Keep it on disk; where that fails, what follows is told again later, which does no harm."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(exist_ok=True)
            replace(self.path, dumps({"offset": self.offset, "state": self.state}))
        except OSError as error:
            logger.debug("%s: %s", self.path, error)


def _logged_at(entry: Entry) -> float:
    return float(entry["metrics"][0][3] if entry["verb"] == "log_metrics" else entry.get("time", 0.0))


class Delivery:
    """A tracker, its place in the journal, and the thread that tells it.

    Each tracker has a thread of its own, because a call of one may block for as long as its network lets it, and that
    must not delay the others. A thread costs some 30 kB and sleeps while there is nothing to tell.

    Args:
        name: Of the tracker in this run.
        tracker: Not yet prepared.
        journal: What it is told.
        run: The run.
        report: Takes failures; called in the thread of the delivery.
        finished: Called in that thread as its last act.
        foreign_end: Up to which offset of the journal anybody may have written it.

    Attributes:
        info: What the tracker says of itself, once it has started.
        error: Why it is behind, or None.
        sign_of_life: When it last got on, in the time of `time.monotonic`.
    """

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        journal: Journal,
        run: Run,
        report: Callable[[Failure], None],
        finished: Callable[[], None],
        foreign_end: int = 0,
    ) -> None:
        self.name = name
        self.tracker = tracker
        self.info: dict[str, JSON] = {}
        self.error: str | None = None
        self.sign_of_life = time.monotonic()
        self.prepared, self.started = threading.Event(), threading.Event()
        self._journal = journal
        self._told_run = run
        self._report = report
        self._finished = finished
        self._foreign_end = foreign_end
        self._cursor = Cursor.read(run.directory / "delivery" / f"{name}.json") if tracker.is_lasting else Cursor(None)
        # The journal is shorter where the process died before a full disk had room again.
        self._cursor.offset = min(self._cursor.offset, journal.end)
        self._is_open = False
        self._failures_in_a_row = 0
        self._verb = "prepare"
        self._status: Status | None = None
        self._wake, self._closing, self._abandoned = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"trackers-{run.directory.name[-8:]}-{name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Tell what is new now and not at the next turn."""
        self._wake.set()

    def close(self, status: Status | None) -> None:
        """Say that nothing more comes; `status` is for a tracker that failed and is only told its end."""
        self._status = status
        self._closing.set()
        self._wake.set()

    def abandon(self) -> None:
        """Say that nobody waits any longer: the call in progress is the last."""
        self._abandoned.set()
        self.close(self._status)

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; return whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def is_failing(self) -> bool:
        """Whether its last call failed."""
        return self._failures_in_a_row > 0

    def undelivered(self) -> int:
        """Return how many lines of the journal the tracker was not told."""
        count, offset = 0, self._cursor.offset
        while data := self._journal.read(offset):
            count += data.count(b"\n")
            offset += len(data)
        return count

    def _run(self) -> None:
        try:
            self._prepare()
            self._deliver()
        except Exception as error:
            logger.debug("tracker %s failed", self.name, exc_info=error)
            self.error = without_password(f"{self._verb} raised {type(error).__name__}: {error}")
            self._report(Failure(f"tracker {self.name!r}: {self.error}", error, "the run goes on without it"))
            self.prepared.set()
            self.started.set()
            self._end_anyway()
        finally:
            self.prepared.set()
            self.started.set()
            self._finished()

    def _prepare(self) -> None:
        try:
            with _importing:
                self.tracker.prepare()
        except ImportError as error:
            logger.debug("tracker %s: %s", self.name, error)  # `start` meets it again and says so
        self.prepared.set()
        self.sign_of_life = time.monotonic()

    def _deliver(self) -> None:
        while not self._abandoned.is_set():
            is_last_turn = self._closing.is_set()
            try:
                while self._tell_some() and not self._abandoned.is_set():
                    pass
            except Exception as error:
                if not self.tracker.is_temporary(error):
                    raise
                self._wait_after(error)
                continue
            if is_last_turn:
                return
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()

    def _tell_some(self) -> bool:
        if self._cursor.offset and not self._is_open:
            self._reopen()
        data = self._journal.read(self._cursor.offset)
        for entry, end in merged(entries(data, self._cursor.offset)):
            if self._abandoned.is_set():
                break
            if entry is not None and entry["verb"] == "start" and self._is_open:
                self._call("reopen", 0.0)
            else:
                self._tell(entry, is_foreign=end <= self._foreign_end)
            self._cursor.offset = end
            self._keep_cursor()
        return bool(data)

    def _tell(self, entry: Entry | None, *, is_foreign: bool) -> None:
        if entry is None:
            self._reject("a damaged line of the journal was passed over", ValueError("no JSON object"))
            return
        self._verb = entry["verb"]
        try:
            told = arguments(entry, self._told_run.directory, is_foreign=is_foreign)
        except Exception as error:  # the file of an image was deleted; the rest of the run is still worth telling
            self._reject(f"{self._verb} of {entry.get('name')!r}: {error}", error)
            return
        try:
            self._call(self._verb, _logged_at(entry), *told)
        except RejectedError as error:
            self._reject(f"{self._verb}: {error}", error)
        if self._verb == "start":
            self._opened()

    def _reopen(self) -> None:
        self._verb = "resume"
        if self._call("resume", 0.0, self._told_run, self._cursor.state):
            self._opened()
        else:
            self._cursor.offset, self._cursor.state = 0, None

    def _call(self, verb: str, now: float, *told: Any) -> Any:
        self.tracker.now = now
        answer = getattr(self.tracker, verb)(*told)
        self._failures_in_a_row, self.error = 0, None
        self.sign_of_life = time.monotonic()
        return answer

    def _opened(self) -> None:
        self._is_open = True
        self.info = self.tracker.info()
        self.started.set()

    def _keep_cursor(self) -> None:
        if self._cursor.path is not None:
            self._cursor.state = self.tracker.state()
            self._cursor.write()

    def _reject(self, what: str, error: Exception) -> None:
        self._report(Failure(without_password(f"tracker {self.name!r}: {what}"), error))

    def _wait_after(self, error: Exception) -> None:
        """Pause before the next attempt; the second failure in a row is reported, for one may be a hiccup."""
        self._failures_in_a_row += 1
        count = self._failures_in_a_row
        logger.debug("tracker %s failed, attempt %d", self.name, count, exc_info=error)
        if count >= 2:
            is_news = self.error is None
            self.error = without_password(f"{self._verb} raised {type(error).__name__}: {error}")
            if is_news:
                self._report(Failure(f"tracker {self.name!r}: {self.error}", error, "it is tried again"))
            self.started.set()
        if isinstance(error, TemporaryError) and error.retry_after is not None:
            self._abandoned.wait(error.retry_after)
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**count) * random.uniform(0.5, 1.0)
        # At the end of the run it is tried once more at once, and then often, because somebody waits.
        if self._closing.is_set():
            self._abandoned.wait(min(pause, 1.0))
        else:
            self._closing.wait(pause)

    def _end_anyway(self) -> None:
        """Tell a tracker that is left out how the run ended, so that it does not stay open in its store."""
        self._closing.wait()
        if not (self._is_open and self._status is not None) or self._abandoned.is_set():
            return
        try:
            self.tracker.now = time.time()
            self.tracker.end(self._status)
        except Exception as error:
            logger.debug("tracker %s: end raised", self.name, exc_info=error)
