"""JSON that anybody may have written, checked value by value against what it may hold."""

from __future__ import annotations

from typing import Any, TypeVar

import pydantic

from gymtrain.errors import BundleError
from gymtrain.specs.section import faults_of

T = TypeVar("T", bound="Strict")


class Strict(pydantic.BaseModel):
    """Takes each value in its own type alone: `"64"`, `1.5` and `true` are no sizes. Other keys are passed over."""

    model_config = pydantic.ConfigDict(strict=True)


def checked(kind: type[T], content: dict[str, Any], file: str, place: str = "") -> T:
    """Return the values of a part of a file.

    Args:
        kind: What the part may hold.
        content: The part.
        file: The name of the member of the bundle.
        place: Where in it the part is.

    Raises:
        BundleError: `field_value`: something is missing, or has a value that it may not have.
    """
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = faults_of(error, kind, place)[0]
        raise fault(file, first.path, first.message) from None


def fault(file: str, place: str, message: str) -> BundleError:
    """Return the error of one value."""
    return BundleError(f"{file}: {place}: {message}", reason="field_value")
