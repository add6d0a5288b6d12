from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .delivery import Delivery, Failure
from .journal import Journal
from .run import JSON, Run, Status
from .tracker import Tracker

STARTING = 6  # times as patient with a tracker that imports its packages and opens its store


class Group:
    """Several trackers that are told one journal, each at its own pace; one that fails does not concern the others.

    Args:
        trackers: By name.
        journal: What they are told.
        run: The run.
        finished: Called when the last of them needs neither the journal nor the run's directory any longer.
        failures: Gets what went wrong, oldest first; safe to empty from another thread.
        foreign_end: Up to which offset of the journal anybody may have written it.
    """

    def __init__(
        self,
        trackers: dict[str, Tracker],
        journal: Journal,
        run: Run,
        finished: Callable[[], None],
        failures: deque[Failure],
        foreign_end: int = 0,
    ) -> None:
        self._finished = finished
        self._failures = failures
        self._lock = threading.Lock()
        self._at_work = len(trackers) + 1  # and whoever calls `finish`
        self._deliveries = [
            Delivery(name, tracker, journal, run, failures.append, self._one_less, foreign_end)
            for name, tracker in trackers.items()
        ]

    def start(self) -> None:
        """Start to tell them."""
        for delivery in self._deliveries:
            delivery.start()

    def wake(self) -> None:
        """Tell them at once what is new."""
        for delivery in self._deliveries:
            delivery.wake()

    def wait_prepared(self, timeout: float | None) -> bool:
        """Wait until all have imported their packages; return False if `timeout` seconds were not enough."""
        return _wait_all([delivery.prepared for delivery in self._deliveries], timeout)

    def wait_started(self, timeout: float | None) -> bool:
        """Wait until each has started or failed; return False if `timeout` seconds were not enough."""
        return _wait_all([delivery.started for delivery in self._deliveries], timeout)

    def finish(self, status: Status | None, seconds: float, *, is_patient: bool = True) -> dict[str, int]:
        """Wait until all were told everything; for one that does not get on, `seconds` at most.

        Args:
            status: How the run ended, for trackers that failed for good.
            seconds: How long to wait.
            is_patient: Whether to wait for one that is known to fail.

        Returns:
            By tracker, how many entries of the journal it was not told; `failures` says why.
        """
        closed = time.monotonic()
        for delivery in self._deliveries:
            delivery.close(status)
        try:
            for delivery in self._deliveries:
                if not _wait_for(delivery, closed, seconds, is_patient):
                    self._give_up(delivery, seconds)
            return {delivery.name: delivery.undelivered() for delivery in self._deliveries}
        finally:
            for delivery in self._deliveries:
                delivery.abandon()
            self._one_less()

    def info(self) -> dict[str, JSON]:
        """Return what each tracker says of itself, with `status` "ok" or "degraded" and then `error`."""
        return {
            delivery.name: {**delivery.info, "status": "ok"}
            if delivery.error is None
            else {**delivery.info, "status": "degraded", "error": delivery.error}
            for delivery in self._deliveries
        }

    def _give_up(self, delivery: Delivery, seconds: float) -> None:
        delivery.abandon()
        late = delivery.error or f"still busy {seconds:g} s after the end of the run"
        delivery.error = late
        self._failures.append(
            Failure(
                f"tracker {delivery.name!r}: {late}",
                TimeoutError(late),
                f"{delivery.undelivered()} entries of the journal are not delivered",
            )
        )

    def _one_less(self) -> None:
        with self._lock:
            self._at_work -= 1
            is_last = self._at_work == 0
        if is_last:
            self._finished()


def named(trackers: Sequence[Tracker]) -> dict[str, Tracker]:
    """Return the trackers by name; the second of a name gets a number.

    Example:
        >>> from gymtrain_trackers import load
        >>> list(named([load("jsonl"), load("mlflow"), load("jsonl")]))
        ['jsonl', 'mlflow', 'jsonl-2']
    """
    found: dict[str, Tracker] = {}
    for tracker in trackers:
        same = sum(other.name == tracker.name for other in found.values())
        found[f"{tracker.name}-{same + 1}" if same else tracker.name] = tracker
    return found


def _wait_all(events: list[threading.Event], timeout: float | None) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    return all(event.wait(None if deadline is None else max(0.0, deadline - time.monotonic())) for event in events)


def _wait_for(delivery: Delivery, closed: float, seconds: float, is_patient: bool) -> bool:
    """Wait until it has ended, or has not got on for `seconds`; return whether it has ended."""
    while not delivery.join(0.05):
        if delivery.is_failing and delivery.error is not None and not is_patient:
            return False
        is_starting = not delivery.started.is_set() and not delivery.is_failing
        patience = seconds * STARTING if is_starting else seconds
        # A store that fails gets no more time because it did something just before.
        alive = closed if delivery.is_failing else max(closed, delivery.sign_of_life, delivery.tracker.got_on_at)
        if time.monotonic() > alive + patience:
            return False
    return True
