"""What a spec wants, in words: `an integer of at least 1` for `Annotated[int, Field(ge=1)]`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

# One, and several.
_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    dict: ("a dict", "dicts"),
    float: ("a number", "numbers"),
    int: ("an integer", "integers"),
    list: ("a list", "lists"),
    str: ("text", "texts"),
    tuple: ("a list", "lists"),
    types.NoneType: ("null", "null"),
}


def in_words(annotation: Any, metadata: Sequence[Any] = (), *, several: bool = False) -> str:
    """Describe the values that an annotation allows.

    Args:
        annotation: The type, with its constraints in `typing.Annotated`.
        metadata: Further constraints.
        several: Whether it is in the plural.

    Example:
        >>> in_words(list[Annotated[int, pydantic.Field(ge=1)]])
        'a list of integers of at least 1'
        >>> in_words(Annotated[float, pydantic.Field(ge=0, lt=1)] | None)
        'a number of at least 0 and below 1, or null'
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return in_words(inner[0], [*inner[1:], *metadata], several=several)
    if is_union(annotation):
        members = [in_words(each, several=several) for each in inner if each is not types.NoneType]
        return f"{' or '.join(members)}{', or null' if types.NoneType in inner else ''}"
    if origin is Literal:
        names = [repr(each) for each in inner]
        return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    limits = _limits(metadata)
    if origin is dict:
        return f"{_WORDS[dict][several]} of {in_words(inner[1], several=True)}"
    if origin in {list, tuple}:
        items = f"{_WORDS[list][several]} of {in_words(inner[0], several=True)}"
        length = _bounded(limits, "min_length", "max_length").removeprefix("of ")
        return f"{items}, {length} of them" if length else items
    if annotation is str and limits.get("min_length") == 1:
        return "texts that are not empty" if several else "text that is not empty"
    name = _WORDS[annotation][several] if annotation in _WORDS else _name(annotation)
    bounds = _bounded(limits, "ge", "le")
    return f"{name} {bounds}" if bounds else name


def _name(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return "a dict"
    return getattr(annotation, "words", None) or f"a {getattr(annotation, '__name__', annotation)}"


def is_union(annotation: Any) -> bool:
    """Tell whether an annotation is `X | Y`, or `X | None`."""
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def _limits(metadata: Sequence[Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for each in _flat(metadata):
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if getattr(each, name, None) is not None:
                limits[name] = getattr(each, name)
    return limits


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from each.metadata if isinstance(each, pydantic.fields.FieldInfo) else [each]


def _bounded(limits: Mapping[str, Any], least: str, most: str) -> str:
    low, high = limits.get(least), limits.get(most)
    if low is not None and low == high:
        return f"exactly {low}"
    if low is not None and high is not None:
        return f"from {low} to {high}"
    words = {"gt": "above", least: "of at least", most: "of at most", "lt": "below"}
    return " and ".join(f"{word} {limits[name]}" for name, word in words.items() if name in limits)


def shortened(value: object, limit: int = 80) -> str:
    """The `repr` of a value, cut where it would fill the screen.

    Example:
        >>> shortened("a" * 100, limit=5)
        "'aaaa…"
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
