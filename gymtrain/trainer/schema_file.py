"""What `schema.json` of a bundle may hold, checked before anything is made of it: the file may come from anybody."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from gymtrain.data.schema import IMAGE, Features
from gymtrain.models.tasks import TASKS, Task, task_from_dict
from gymtrain.trainer.strict_file import Strict, checked, fault

FILE: Final = "schema.json"

Size = Annotated[int, Field(ge=1, le=1 << 40)]
Shape = Annotated[list[Size], Field(min_length=1, max_length=32)]


class _Column(Strict):
    name: str
    kind: Literal["number", "text"]


class _Features(Strict):
    columns: Annotated[list[_Column], Field(min_length=1)] | None
    shape: Annotated[list[Size], Field(max_length=32)]
    dtype: Literal["float32", "float64", "uint8", "image"]
    left_out: list[str]
    max_pixels: Size | None = None


class _Schema(Strict):
    features: dict[str, Any]
    input_shape: Shape
    labels: dict[str, Any]


class _Classes(Strict):
    classes: Annotated[list[Any], Field(min_length=1)]
    dtype: Literal[
        "text",
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]


class _OneOfClasses(_Classes):
    one_hot: bool


class _Numbers(Strict):
    outputs: Size | None
    names: list[str] | None
    log_link: bool


def read_schema(content: dict[str, Any]) -> tuple[Features, tuple[int, ...], Task]:
    """Return what a row looks like, the shape in which the model gets it, and what is predicted.

    Raises:
        BundleError: `field_value`: something is missing, or has a value that it may not have.

    Example:
        >>> read_schema({"features": {}, "input_shape": [1.5], "labels": {}})
        Traceback (most recent call last):
        gymtrain.errors.BundleError: schema.json: input_shape[0]: got 1.5; expected an integer from 1 to 1099511627776
    """
    schema = checked(_Schema, content, FILE)
    features, labels = checked(_Features, schema.features, FILE, "features"), schema.labels
    if features.columns is not None:
        names = {column.name for column in features.columns}
        if len(names) != len(features.columns) or features.shape != [len(names)]:
            raise fault(
                FILE,
                "features.columns",
                f"{len(features.columns)} columns with {len(names)} names are no row of shape {features.shape}",
            )
    if (features.dtype == IMAGE) != (features.shape == []):
        raise fault(FILE, "features.shape", f"got {features.shape} for rows of type {features.dtype}")
    if (features.dtype == IMAGE) != (features.max_pixels is not None):
        raise fault(FILE, "features.max_pixels", f"got {features.max_pixels!r} for rows of type {features.dtype}")
    if features.columns is not None and features.dtype in {IMAGE, "uint8"}:
        raise fault(FILE, "features.dtype", f"got {features.dtype!r} for rows with columns")
    task = labels.get("task")
    if task not in TASKS:
        raise fault(FILE, "labels.task", f"got {task!r}; expected one of {', '.join(TASKS)}")
    if task == "regression":
        checked(_Numbers, labels, FILE, "labels")
    else:
        classes = checked(_Classes if task == "multilabel" else _OneOfClasses, labels, FILE, "labels")
        _check_classes(classes.classes, classes.dtype, 2 if task == "binary" else None)
    return Features.from_dict(content["features"]), tuple(schema.input_shape), task_from_dict(labels)


def _check_classes(classes: list[Any], dtype: str, count: int | None) -> None:
    if count is not None and len(classes) != count:
        raise fault(FILE, "labels.classes", f"got {len(classes)}; expected {count}")
    kinds = {type(each) for each in classes}
    try:
        fits = kinds == {str} if dtype == "text" else np.array(classes, dtype=dtype).tolist() == classes
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits or kinds - {str, bool, int, float}:
        raise fault(FILE, "labels.classes", f"they are not all {dtype}")
    if len(set(classes)) != len(classes):
        raise fault(FILE, "labels.classes", "one is there twice")
