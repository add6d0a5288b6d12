"""What a trained model says of rows, as the columns of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.trainer import Trainer

Array = npt.NDArray[Any]


def header(trainer: Trainer, proba: bool) -> list[str]:
    """Return the names of the columns: of what is predicted and, if asked for, of the probabilities.

    Raises:
        TaskError: Probabilities are asked of a regression.
    """
    classes = trainer.classes_ if proba else ()
    return [*_names(trainer.task.to_dict()), *(f"proba_{label}" for label in classes)]


def answer(trainer: Trainer, X: Any, proba: bool) -> tuple[Array, Array | None]:
    """Return what is predicted for rows and, if asked for, the probabilities, in one pass through the model.

    Raises:
        TaskError: Probabilities are asked for, and there are none.
        InputError: The rows do not fit what the model was trained on.
    """
    if not proba:
        return trainer.predict(X), None
    scores = trainer.predict_proba(X)
    return trainer.task.decode(scores), scores


def columns(labels: Array, scores: Array | None) -> Iterator[list[Any]]:
    """Yield the columns of answers, as they are written."""
    yield from _by_column(labels)
    if scores is not None:
        yield from _by_column(scores)


def _names(labels: Mapping[str, Any]) -> list[str]:
    """Name the columns of what `predict` returns: one, or one for each label or output."""
    if labels["task"] == "multilabel":
        names = labels["classes"]
    elif labels["task"] == "regression" and labels["outputs"] is not None:
        names = labels["names"] or range(labels["outputs"])
    else:
        return ["prediction"]
    return [f"prediction_{name}" for name in names]


def _by_column(answers: Array) -> Iterator[list[Any]]:
    if answers.dtype.kind == "f":
        # As text in numpy's shortest form: Python would write all digits of a float32 turned into a float64.
        answers = answers.astype(np.str_)
    yield from [answers.tolist()] if answers.ndim == 1 else answers.T.tolist()


def as_csv(rows: Any) -> bytes:
    """Return lines of CSV, UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A path may hold bytes that are no UTF-8; they come out as they came in.
    return text.getvalue().encode(errors="surrogateescape")
