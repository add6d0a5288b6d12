"""JSON with one meaning: what is written is canonical, what is read is refused where two readers could disagree.

The parser of the standard library takes the last of two equal keys, `NaN`, `1e999` as infinity, lone surrogates and
numbers of thousands of digits; none of these is let through in either direction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from gymtrain.errors import BundleError, SaveError

MAX_DEPTH: Final = 64  # components nest in components, and trees in JSON states; no person writes deeper
MAX_NODES: Final = 500_000  # a value of three bytes may take a hundred in memory
MAX_DIGITS: Final = 100
DEFAULT_MAX_BYTES: Final = 16 << 20


def dumps(value: dict[str, Any], where: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    r"""Write a JSON object canonically: sorted keys, UTF-8, two spaces of indentation, a newline at the end.

    Args:
        value: What to write: dicts with string keys, lists, tuples (read back as lists), strings, finite numbers, bools
            and None.
        where: The name of the document, for messages.
        max_bytes: The most bytes that it may have.

    Raises:
        SaveError: The value has something that JSON has no place for, or `loads` would refuse it.

    Example:
        >>> dumps({"b": [1, 2.5], "a": None}, "spec.json")
        b'{\n  "a": null,\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    """
    for fault in _unwritable(value, "", depth=0):
        raise SaveError(f"{where}: {fault}")
    encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True).encode() + b"\n"
    if (too_much := excess(encoded, max_bytes)) is not None:
        raise SaveError(f"{where}: {too_much}")
    return encoded


def loads(data: bytes, where: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object that has exactly one meaning.

    Args:
        data: The document; UTF-8 without a byte order mark.
        where: The name of the document, for messages.
        max_bytes: The most bytes that it may have.

    Raises:
        BundleError: `too_large`, `json` (not strict JSON) or `field_value` (not an object).

    Example:
        >>> loads(b'{"a": 1, "a": 2}', "spec.json")
        Traceback (most recent call last):
        gymtrain.errors.BundleError: spec.json: the key 'a' occurs twice in one object
    """
    if (fault := excess(data, max_bytes)) is not None:
        raise BundleError(f"{where}: {fault}", reason="too_large")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
        _check(value)
    except _TooManyDigitsError as error:
        raise BundleError(f"{where}: {error}", reason="too_large") from None
    except RecursionError:
        raise BundleError(f"{where}: nested deeper than {MAX_DEPTH} levels", reason="json") from None
    except ValueError as error:  # a JSONDecodeError, a UnicodeError, or one of the refusals below
        raise BundleError(f"{where}: {error}", reason="json") from None
    if not isinstance(value, dict):
        raise BundleError(f"{where}: got a {type(value).__name__}, expected an object", reason="field_value")
    return value


class _TooManyDigitsError(ValueError):
    """An integer that nobody could have meant."""


def excess(data: bytes, max_bytes: int) -> str | None:
    """Say what makes a document too large to be parsed; None where nothing does.

    Example:
        >>> excess(b"[1, 2]", 4)
        '6 bytes, more than the 4 that are allowed'
    """
    if len(data) > max_bytes:
        return f"{len(data)} bytes, more than the {max_bytes} that are allowed"
    nodes = data.count(b",") + data.count(b"[") + data.count(b"{")  # at least as many as there are values
    return f"about {nodes} values, more than the {MAX_NODES} that are allowed" if nodes > MAX_NODES else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"the key {key[:100]!r} occurs twice in one object")
        unique[key] = value
    return unique


def _refuse_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a JSON number")


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise ValueError(f"{literal[:100]} is too large for a 64-bit float")
    return number


def _short(literal: str) -> int:
    if len(literal) > MAX_DIGITS:
        raise _TooManyDigitsError(f"an integer of {len(literal)} digits, more than the {MAX_DIGITS} that are allowed")
    return int(literal)


def _check(value: object) -> None:
    """Check depth and strings level by level, because a recursion could be driven as deep as the file says."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                item.encode()  # a lone surrogate raises UnicodeEncodeError
            elif isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _unwritable(value: object, path: str, depth: int) -> Iterator[str]:
    """Yield what makes a value unfit for JSON, each with its path."""
    at = path or "the top level"
    if depth > MAX_DEPTH:
        yield f"{at[:100]}...: nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _unwritable(key, f"{path}.<key>" if path else "<key>", depth + 1)
                yield from _unwritable(item, f"{path}.{key}" if path else key, depth + 1)
            else:
                yield f"{at}: the key {key!r} is a {type(key).__name__}; JSON has only strings as keys"
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _unwritable(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{at} is {value!r}, a number that JSON does not have; write None in its place"
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{at} is {value!r}, which has half of a surrogate pair and no place in UTF-8"
    elif isinstance(value, int):
        if value.bit_length() > 300:
            yield f"{at} is an integer of {value.bit_length()} bits; more than 300 are not read back"
    elif value is not None:
        yield f"{at} is a {type(value).__name__}; JSON has objects, lists, strings, numbers, true, false and null"
