"""The three specs together: read, checked, written out, named by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import pydantic

from gymtrain.errors import Fault, SpecError
from gymtrain.specs.components import Component, Reading, reading
from gymtrain.specs.dataset import Dataset
from gymtrain.specs.model import Model
from gymtrain.specs.section import Keyed, Section, fault, faults_of, join
from gymtrain.specs.tracking import Tracking
from gymtrain.specs.values import plain


class Experiment(Section):
    """Dataset, model and tracking, checked together so that every fault of the three is reported at once."""

    dataset: Annotated[Dataset, Keyed]
    model: Annotated[Model, Keyed]
    tracking: Annotated[Tracking, Keyed] = Tracking()

    def __init__(self, **fields: Any) -> None:
        try:
            pydantic.BaseModel.__init__(self, **_bare(fields))
        except pydantic.ValidationError as error:
            raise SpecError(faults_of(error, type(self), "")) from None
        except RecursionError:
            raise SpecError([Fault("spec", "it holds itself, or is nested too deeply; write it out")]) from None

    @pydantic.model_validator(mode="after")
    def _check_across(self) -> Experiment:
        if self.model.training.validation_split and self.dataset.samples.val:
            raise fault(
                "asks for validation rows, as dataset.samples.val does; give one", "model.training.validation_split"
            )
        return self

    @property
    def sha256(self) -> str:
        """The SHA-256 of the resolved spec, for which live data is read whole."""
        return spec_sha256(self.to_dict())

    @classmethod
    @contextmanager
    def reading_a_file(
        cls, trust: Collection[str], types: Mapping[str, Callable[..., Any]] = {}, *, needs_model: bool = True
    ) -> Iterator[None]:
        """While this is entered, a name in a spec imports nothing but what is registered or listed in `trust`.

        Args:
            trust: Names as `"package.module:Class"`.
            types: What stands behind other names.
            needs_model: Whether a model that is not there is a fault, or missed only by who trains.
        """
        needed = {"preprocessor", "model"} if needs_model else {"preprocessor"}
        token = reading.set(Reading(tuple(trust), types, frozenset(needed)))
        try:
            yield
        finally:
            reading.reset(token)

    def components(self) -> Iterator[tuple[str, Component]]:
        """Yield every component of the three specs, those among the arguments of others too, each with its path."""
        yield from _components("", self)


def _components(path: str, value: Any) -> Iterator[tuple[str, Component]]:
    if isinstance(value, Component):
        yield from value.members(path)
    elif isinstance(value, Section):
        for name in type(value).model_fields:
            yield from _components(join(path, name), getattr(value, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _components(join(path, name), item)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _components(join(path, position), item)


def spec_sha256(spec: dict[str, Any]) -> str:
    """Return the SHA-256 of a resolved spec, in hexadecimal: equal configurations have equal names.

    Example:
        >>> spec_sha256({"model": {}, "dataset": {}}) == spec_sha256({"dataset": {}, "model": {}})
        True
    """
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _bare(fields: dict[str, Any]) -> dict[str, Any]:
    """Take specs that were made already as dicts again: pydantic would refuse those of a subclass."""
    misplaced = [
        Fault(name, f"got a {type(value).__name__}; expected a dict or a gymtrain.{_SECTIONS[name].__name__}")
        for name, value in fields.items()
        if isinstance(value, Section) and name in _SECTIONS and not isinstance(value, _SECTIONS[name])
    ]
    if misplaced:
        raise SpecError(misplaced)
    return {
        name: {key: getattr(value, key) for key in type(value).model_fields}
        if isinstance(value, Section)
        else plain(value)
        for name, value in fields.items()
    }


_SECTIONS: dict[str, type[Section]] = {"dataset": Dataset, "model": Model, "tracking": Tracking}
