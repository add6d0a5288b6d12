"""The exceptions of gymtrain.

    GymtrainError
    ├── SpecError (ValueError)                 a spec says something that cannot be meant
    ├── RegistrationError (ValueError)         register() cannot use the kind or the name
    ├── DataError (ValueError)                 a dataset gave rows that cannot be trained on
    ├── DownloadError (OSError)                a file of a data set cannot be fetched
    ├── InputError (ValueError)                rows for predict or evaluate do not fit the training data
    ├── TaskError (ValueError)                 the task has no such answer
    ├── NotTrainedError (RuntimeError)         train() or load() comes first
    ├── TrainingError (RuntimeError)           training could not go on
    │   └── NonFiniteLossError                 the loss became NaN or infinite
    ├── CallbackError (RuntimeError)           a callback raised
    ├── BundleError (ValueError)               a file is not a bundle that can be trusted
    ├── SaveError (RuntimeError)               a trainer cannot be written down
    ├── StoreError (ValueError)                runs cannot be read, or there is no such run
    └── MissingDependencyError (ImportError)   an optional package is not installed

Every message says where, what was got, what was expected and what to do. Errors of the operating system (a full disk,
no permission) pass through as they are, with the path in them.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class GymtrainError(Exception):
    """Base of every error that gymtrain raises on purpose."""


class Fault(NamedTuple):
    """One thing that is wrong with a spec: where, and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class SpecError(GymtrainError, ValueError):
    """A spec says something that cannot be meant; `faults` holds all that is wrong with it.

    Example:
        >>> raise SpecError([Fault("model.training.epochs", "got 0; expected an integer of at least 1")])
        Traceback (most recent call last):
        gymtrain.errors.SpecError: 1 problem in the spec:
          model.training.epochs: got 0; expected an integer of at least 1
    """

    def __init__(self, faults: Sequence[Fault], place: str = "the spec") -> None:
        self.faults, self._place = tuple(faults), place
        count = "1 problem" if len(self.faults) == 1 else f"{len(self.faults)} problems"
        super().__init__("\n  ".join([f"{count} in {place}:", *map(str, self.faults)]))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross processes pickled, and are made anew from their arguments.
        return type(self), (self.faults, self._place)

    @classmethod
    def of_argument(cls, name: str, message: str) -> SpecError:
        """Return the error of an argument of a method, which stands in no spec.

        Example:
            >>> raise SpecError.of_argument("verify", "got 'later'; expected 'eager', 'lazy' or False")
            Traceback (most recent call last):
            gymtrain.errors.SpecError: 1 problem in the arguments:
              verify: got 'later'; expected 'eager', 'lazy' or False
        """
        return cls([Fault(name, message)], "the arguments")


class RegistrationError(GymtrainError, ValueError):
    """A class cannot be registered: the kind is unknown, or the name is taken or unfit."""


class DataError(GymtrainError, ValueError):
    """A dataset gave rows that cannot be trained on."""


class DownloadError(GymtrainError, OSError):
    """A file of a data set cannot be fetched: no server answers, it does not have it, or what came is not what it was.

    What it was called with is one text; `errno` and `filename` are None.
    """


class InputError(GymtrainError, ValueError):
    """Rows given to `predict` or `evaluate` do not fit the data that the trainer was trained on."""


class TaskError(GymtrainError, ValueError):
    """The task has no such answer: a regression has no probabilities."""


class NotTrainedError(GymtrainError, RuntimeError):
    """A prediction was asked of a trainer that has learned nothing yet."""


class TrainingError(GymtrainError, RuntimeError):
    """Training could not go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite; nothing after that step could have been learned."""


class CallbackError(GymtrainError, RuntimeError):
    """A callback raised; the message names it and the hook, the cause is chained."""


class BundleError(GymtrainError, ValueError):
    """A file is not a bundle that can be trusted.

    `reason` is a short code that programs can compare: `not_a_bundle`, `truncated`, `version`, `member_unexpected`,
    `member_missing`, `digest`, `unknown_type` and the like; docs/bundle-format.md lists them all.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), reason=self.reason), self.args


class SaveError(GymtrainError, RuntimeError):
    """A trainer cannot be written down so that another process could read it."""


class StoreError(GymtrainError, ValueError):
    """Runs cannot be read: there is no such store or run, or nothing in it that is called so."""


class MissingDependencyError(GymtrainError, ImportError):
    """A package that the spec asks for is not installed; the message has the command that installs it."""


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of the known names, whatever its case; `""` when none is near.

    Args:
        name: What was given.
        known: What there is.
        likeness: How much of both names has to agree, from 0 to 1.

    Example:
        >>> did_you_mean("batch_sise", ["batch_size", "epochs"])
        "; did you mean 'batch_size'?"
    """
    by_lower_case = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=likeness)
    return f"; did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ""


def some(items: Iterable[object], limit: int = 5) -> str:
    """List the first few items by `repr` and count the rest, for messages that must stay short.

    Example:
        >>> some([1, 2, 3, 4], limit=2)
        '1, 2 and 2 more'
    """
    listed = list(items)
    shown = ", ".join(repr(item) for item in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Say of an error of the operating system in the block where it was, unless it says so itself.

    Example:
        >>> with naming("standard output"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'standard output'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, place) from error
