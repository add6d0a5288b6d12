"""The base of every part of a spec, and how pydantic's findings become our faults."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
from pydantic_core import PydanticCustomError

from gymtrain.errors import Fault, SpecError, did_you_mean
from gymtrain.specs.values import plain, written
from gymtrain.specs.wording import in_words, is_union, shortened

T = TypeVar("T")


class Section(pydantic.BaseModel):
    """A part of a spec: keyword arguments that are checked when it is made, all of them at once."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        validate_default=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    # The path that faults begin with when the section is made on its own.
    place: ClassVar[str] = ""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**plain(fields))
        except pydantic.ValidationError as error:
            raise SpecError(faults_of(error, type(self), self.place)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved spec: plain values that JSON can hold, with every default written out."""
        return {name: _written(getattr(self, name)) for name in type(self).model_fields}


class FaultsFound(PydanticCustomError):  # noqa: N818  (several faults are no error's name)
    """Carries faults of ours out of a validator, with paths relative to the field."""

    def __new__(cls, faults: Iterable[Fault]) -> FaultsFound:
        """Take the faults along in what pydantic calls the context of an error."""
        return super().__new__(cls, "faults", "see the faults", {"faults": list(faults)})

    @property
    def faults(self) -> list[Fault]:
        """What was found."""
        faults: list[Fault] = (self.context or {})["faults"]
        return faults


def fault(message: str, path: str = "") -> FaultsFound:
    """One fault at the place that is being checked, or below it."""
    return FaultsFound([Fault(path, message)])


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return [_written(item) for item in value]
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    return value.to_dict() if hasattr(value, "to_dict") else written(value)


def _text_keys(given: Any) -> Any:
    """Refuse what Python itself would: keyword arguments whose names are no text."""
    odd = [key for key in given if not isinstance(key, str)] if isinstance(given, dict) else []
    if odd:
        raise FaultsFound([Fault(repr(key), "unknown key; a key is a text") for key in odd])
    return given


# Marks a field that holds a section.
Keyed = pydantic.BeforeValidator(_text_keys)


def gathered(values: Iterable[Any], check: Callable[[Any], T]) -> list[T]:
    """Check each item of a list, gathering the faults of all of them."""
    return gathered_by_name(dict(enumerate(values)), check)


def gathered_by_name(values: Mapping[Any, Any], check: Callable[[Any], T]) -> list[T]:
    """Check each value of a dict, gathering the faults of all of them."""
    checked: list[T] = []
    faults: list[Fault] = []
    for key, value in values.items():
        try:
            checked.append(check(value))
        except FaultsFound as error:
            faults += [Fault(join("", key, each.path), each.message) for each in error.faults]
    if faults:
        raise FaultsFound(faults)
    return checked


def faults_of(error: pydantic.ValidationError, root: type[pydantic.BaseModel], place: str) -> list[Fault]:
    """Translate pydantic's errors: where, what was got, what is expected, and the nearest known name."""
    faults: list[Fault] = []
    unions: set[str] = set()
    for entry in error.errors(include_url=False):
        if entry["type"] == "faults":
            path = join(place, *entry["loc"])
            found = [Fault(join(path, each.path), each.message) for each in entry["ctx"]["faults"]]
        elif isinstance(entry.get("ctx", {}).get("error"), SpecError):
            # A section within this one, which knows its own place.
            found = entry["ctx"]["error"].faults
        else:
            found = _described(entry, root, place, unions)
        faults += found
    return faults


def join(*parts: object) -> str:
    """Join the parts of a path as users write it: `dataset.preprocessors[0].factor`."""
    path = ""
    for part in parts:
        text = f"[{part}]" if isinstance(part, int) else str(part)
        path += text if not path or not text or text.startswith("[") else f".{text}"
    return path


def _described(entry: Any, root: type[pydantic.BaseModel], place: str, unions: set[str]) -> list[Fault]:
    """Describe an error of pydantic's; once for the value of a union, which each of its members finds fault with."""
    location: tuple[int | str, ...] = entry["loc"]
    if entry["type"] == "extra_forbidden":
        known = sorted(field.alias or name for name, field in root.model_fields.items())
        other = f"; known: {', '.join(known)}" if known else "; it takes no arguments"
        return [Fault(join(place, *location), f"unknown key{did_you_mean(str(location[-1]), known) or other}")]
    depth, annotation, metadata = _followed(root, location)
    path = join(place, *location[:depth])
    if path in unions:
        return []
    expected = in_words(annotation, metadata)
    if entry["type"] == "missing":
        return [Fault(path, "missing; it has no default" if annotation is Any else f"missing; expected {expected}")]
    if entry["type"] == "finite_number":
        expected = "a finite number"
    elif annotation is Any:
        expected = entry["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if depth < len(location):
        unions.add(path)
    # The value that a union was given is not known where a part of it was found at fault.
    got = f"got {shortened(entry['input'])}; " if len(location) <= depth + 1 else ""
    return [Fault(path, f"{got}expected {expected}")]


def _followed(root: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> tuple[int, Any, list[Any]]:
    """Follow a location of pydantic's to the annotation at its end, or to the first union, whose members it names.

    Returns:
        How many parts of the location lead there, the annotation and the constraints of the field; `Any` where it
        leads into a type that is not known here.
    """
    name = str(location[0])
    field = next(field for key, field in root.model_fields.items() if name in {key, field.alias})
    annotation, metadata = field.annotation, list(field.metadata)
    for depth, part in enumerate(location[1:], start=1):
        annotation = _present(annotation)
        inner = typing.get_args(annotation)
        if is_union(annotation):
            return depth, annotation, metadata
        if typing.get_origin(annotation) not in {list, tuple, dict} or part == "[key]":
            return len(location), Any, []
        position = part if typing.get_origin(annotation) is tuple and ... not in inner else 0
        annotation, metadata = inner[1 if typing.get_origin(annotation) is dict else int(position)], []
    return len(location), annotation, metadata


def _present(annotation: Any) -> Any:
    """Return an annotation without its constraints, and without null where that is the only other choice."""
    if typing.get_origin(annotation) is Annotated:
        return _present(typing.get_args(annotation)[0])
    members = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    return _present(members[0]) if is_union(annotation) and len(members) == 1 else annotation
