"""The errors of gymtrain_trackers.

TrackerError (RuntimeError)
├── ArgumentError (ValueError)         an unknown tracker, or an argument that it cannot mean
└── MissingPackageError (ImportError)  the package behind a tracker is not installed

TrackingWarning (UserWarning)          a tracker failed and the caller goes on without it
"""

from __future__ import annotations


class TrackerError(RuntimeError):
    """A tracker could not do what it was asked; the error of the library behind it is chained."""


class ArgumentError(TrackerError, ValueError):
    """There is no tracker of that name, or one of its arguments says something that cannot be meant."""


class MissingPackageError(TrackerError, ImportError):
    """The package behind a tracker is not installed; the message has the command that installs it."""


class TrackingWarning(UserWarning):
    """A tracker failed, and what is tracked goes on without it."""
