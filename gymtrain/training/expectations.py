"""What ready callbacks expect of their arguments, checked as they are made: training may be hours old when they act."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from gymtrain.errors import Fault, SpecError


class Expected(NamedTuple):
    """What an argument has to be, in words and as a check."""

    words: str
    holds: Callable[[Any], bool]

    def or_none(self) -> Expected:
        """Return the same, or None."""
        return Expected(f"{self.words}, or None", lambda value: value is None or self.holds(value))


def integer(least: int) -> Expected:
    """Return what a whole number of at least so much has to be."""
    return Expected(
        f"an integer of at least {least}",
        lambda value: _is_a(Integral, value) and value >= least,
    )


def number(above: float | None = None, least: float | None = None) -> Expected:
    """Return what a finite number above, or of at least, so much has to be."""
    bound = (
        "" if above is None and least is None else f" above {above:g}" if least is None else f" of at least {least:g}"
    )

    def holds(value: Any) -> bool:
        if not _is_a(Real, value) or not math.isfinite(value):
            return False
        return (above is None or float(value) > above) and (least is None or float(value) >= least)

    return Expected(f"a finite number{bound}", holds)


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def one_of(*choices: str) -> Expected:
    """Return what one of some words has to be."""
    return Expected(" or ".join(map(repr, choices)), lambda value: value in choices)


def check(owner: object, **arguments: tuple[Any, Expected]) -> None:
    """Refuse arguments that are not what is expected, all at once.

    Args:
        owner: The callback that they are given to.
        arguments: The value of each, and what it has to be.

    Raises:
        SpecError: One is something else.

    Example:
        >>> check(object(), minutes=(-1, number(above=0)), patience=(3, integer(0)))
        Traceback (most recent call last):
        gymtrain.errors.SpecError: 1 problem in the spec:
          object.minutes: got -1; expected a finite number above 0
    """
    faults = [
        Fault(f"{type(owner).__name__}.{name}", f"got {value!r}; expected {expected.words}")
        for name, (value, expected) in arguments.items()
        if not expected.holds(value)
    ]
    if faults:
        raise SpecError(faults)
