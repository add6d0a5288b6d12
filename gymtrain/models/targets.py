"""Targets as a dataset gives them: read, and the task that they are for worked out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.schema import as_array
from gymtrain.errors import DataError, some
from gymtrain.models.tasks import Binary, Multiclass, Multilabel, Regression, Task

Array = npt.NDArray[Any]


def as_targets(y: Any) -> Array:
    """Read targets: shape (rows,) or (rows, outputs), of numbers, booleans or text.

    Raises:
        DataError: They have another shape or hold something else, or a value is missing or infinite.
    """
    array = as_array(y, DataError)
    if array.dtype.kind == "U" and isinstance(y, list | tuple):
        array = np.array(y, dtype=object)  # numpy makes text of numbers that stand beside text
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise DataError(f"y has the shape {array.shape}; expected (rows,) or (rows, outputs)")
    if array.dtype.kind == "O":
        array = _plain_objects(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.unique(np.nonzero(~np.isfinite(array))[0])
        raise DataError(
            f"y has missing or infinite values in {len(bad)} rows, the first at row {bad[0]}; remove these rows"
        )
    if array.dtype.kind not in "biufUO":
        raise DataError(f"y holds values of type {array.dtype}; expected numbers, booleans or text")
    return array


def _plain_objects(array: Array) -> Array:
    items = array.ravel().tolist()
    missing = [index for index, item in enumerate(items) if _is_missing(item)]
    if missing:
        row = missing[0] // (array.size // len(array))
        raise DataError(f"y has missing values in {len(missing)} rows, the first at row {row}; remove these rows")
    if all(isinstance(item, str) for item in items):
        return array
    if all(isinstance(item, bool | np.bool_) for item in items):
        return array.astype(bool)
    if all(isinstance(item, int | np.integer) for item in items):
        return array.astype(np.int64)
    if all(isinstance(item, int | float | np.number) for item in items):
        return array.astype(np.float64)
    kinds = sorted({type(item).__name__ for item in items})
    raise DataError(f"y holds values of the types {', '.join(kinds)}; expected numbers, booleans or text alone")


def _is_missing(item: Any) -> bool:
    if isinstance(item, float | np.floating):
        return bool(np.isnan(item))
    return item is None or type(item).__name__ in {"NAType", "NaTType"}


def task_of(
    y: Array,
    declared: str | None,
    train: npt.NDArray[np.int64],
    names: Sequence[str] | None,
    *,
    one_hot: bool,
    loss: Any,
) -> Task:
    """Work out the task from the targets.

    Text and booleans are classes, whole numbers of up to 100 different values too, other numbers are a regression;
    with two dimensions zeros and ones are labels, other numbers a regression with several outputs.

    Args:
        y: The targets of all rows, as `as_targets` returns them.
        declared: What the dataset says, which goes before what `y` looks like.
        train: The rows to learn from; only the labels that they hold are classes.
        names: The names of the outputs.
        one_hot: Give classes to the loss as rows of zeros and a one.
        loss: The loss of the spec.

    Raises:
        DataError: The targets do not fit the task that was declared.
    """
    name = declared or infer_task(y)
    if name == "regression":
        if one_hot:
            raise DataError("dataset.one_hot: a regression has no classes; leave one_hot out")
        is_poisson = getattr(loss, "type", None) == "PoissonNLLLoss"
        if is_poisson and y.dtype.kind in "if" and (y < 0).any():
            raise DataError(f"PoissonNLLLoss is for counts; the smallest target is {y.min()}, expected at least 0")
        log_link = is_poisson and loss.arguments.get("log_input", True)
        return Regression(None if y.ndim == 1 else y.shape[1], names, log_link=log_link)
    if name == "multilabel":
        if y.ndim != 2:
            raise DataError(f"dataset: a multilabel task needs y of shape (rows, labels); got {y.shape}")
        return Multilabel(names or range(y.shape[1]))
    if y.ndim != 1:
        raise DataError(f"dataset: a {name} task needs y of shape (rows,); got {y.shape}")
    classes = sorted(set(y[train].tolist()))
    if len(classes) < 2:
        raise DataError(f"the train part holds one class only, {classes[0]!r}; there is nothing to tell apart")
    if name == "binary" and len(classes) != 2:
        raise DataError(f"dataset: the task is binary, and the train part has {len(classes)} classes: {some(classes)}")
    labels = np.array(classes, dtype=y.dtype)
    return Binary(labels, one_hot=one_hot) if name == "binary" else Multiclass(labels, one_hot=one_hot)


def infer_task(y: Array) -> str:
    """Return the name of the task that targets look like.

    Example:
        >>> infer_task(np.array(["cat", "dog", "cat"])), infer_task(np.array([0.5, 1.25]))
        ('binary', 'regression')
    """
    if y.ndim == 2:
        return "multilabel" if y.dtype.kind in "biu" and np.isin(y, (0, 1)).all() else "regression"
    if y.dtype.kind == "f":
        return "regression"
    distinct = len(set(y.tolist()))
    if distinct > 100 and y.dtype.kind in "iu":
        return "regression"
    return "binary" if distinct == 2 else "multiclass"
