"""JSON that every reader takes: no NaN, no infinity, no objects."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping

from .run import JSON


def number(value: float) -> float | str:
    """Return a finite number as it is and any other as the string that `float` reads back.

    Example:
        >>> number(0.5), number(float("nan")), number(float("-inf"))
        (0.5, 'NaN', '-Infinity')
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain(value: object) -> JSON:
    """Return `value` in the types of JSON; what has no such type becomes its `str`.

    Example:
        >>> from pathlib import PurePosixPath
        >>> plain({"hidden": (64, 64), "missing": float("nan"), "path": PurePosixPath("a/b")})
        {'hidden': [64, 64], 'missing': 'NaN', 'path': 'a/b'}
    """
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return number(float(value))
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


def dumps(value: object) -> str:
    """Return one line of strict JSON, in ASCII."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":"))


def as_text(value: object) -> str:
    """Return a string as it is and any other value as JSON, for stores that hold only text.

    Example:
        >>> as_text("adam"), as_text(0.1), as_text(None), as_text([64, 64])
        ('adam', '0.1', 'null', '[64, 64]')
    """
    simple = plain(value)
    return simple if isinstance(simple, str) else json.dumps(simple, allow_nan=False, ensure_ascii=False)
