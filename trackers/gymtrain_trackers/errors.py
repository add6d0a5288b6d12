"""The errors of gymtrain_trackers.

TrackerError (RuntimeError)
├── ArgumentError (ValueError)         an unknown tracker, or an argument that it cannot mean
├── MissingPackageError (ImportError)  the package behind a tracker is not installed
├── RunBusyError                       another process is writing or delivering this run
├── TemporaryError                     a tracker's: try the same call again later
└── RejectedError                      a tracker's: some items of this call will never be stored, the rest is

TrackingWarning (UserWarning)          a tracker failed and the caller goes on without it
"""

from __future__ import annotations

from collections.abc import Sequence


class TrackerError(RuntimeError):
    """A tracker could not do what it was asked; the error of the library behind it is chained."""


class ArgumentError(TrackerError, ValueError):
    """There is no tracker of that name, or one of its arguments says something that cannot be meant."""


class MissingPackageError(TrackerError, ImportError):
    """The package behind a tracker is not installed; the message has the command that installs it."""


class RunBusyError(TrackerError):
    """The directory of the run belongs to a process that is still at work on it."""


class TemporaryError(TrackerError):
    """Raised by a tracker whose store cannot be reached or is busy: the same call is made again later.

    Args:
        message: What happened.
        retry_after: Seconds that the store asked to be left alone; None leaves it to the caller.

    Example:
        >>> TemporaryError("503 Service Unavailable", retry_after=5).retry_after
        5
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RejectedError(TrackerError):
    """Raised by a tracker after it has stored all of a call but some items, which its store will never take.

    Args:
        items: Each of those items, with the reason.

    Example:
        >>> str(RejectedError(["metric 'loss' at step 3: too large"]))
        "metric 'loss' at step 3: too large"
    """

    def __init__(self, items: Sequence[str]) -> None:
        more = f" and {len(items) - 5} more" if len(items) > 5 else ""
        super().__init__("; ".join(items[:5]) + more)
        self.items = list(items)


class TrackingWarning(UserWarning):
    """A tracker failed, and what is tracked goes on without it."""
