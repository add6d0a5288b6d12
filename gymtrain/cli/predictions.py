"""Rows of a file in, a CSV file of predictions out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gymtrain.data.tables import Chunk, TableFile
from gymtrain.trainer import Trainer
from gymtrain.trainer.streaming import as_trained, columns_to_read


class Predictions:
    """What a trained model says about each row of a file.

    Args:
        trainer: The trained model.
        table: The rows; columns that the model was not trained on are left out.
        id_column: A column of the file that is copied in front of the predictions.
        proba: Whether to give the probability of each class too.

    Raises:
        InputError: The file does not have the columns that the model was trained on.
        TaskError: Probabilities are asked of a regression.
    """

    def __init__(self, trainer: Trainer, table: TableFile, *, id_column: str | None, proba: bool) -> None:
        self._trainer, self._table, self._id_column = trainer, table, id_column
        labels = trainer.task.to_dict()
        self._is_multilabel = labels["task"] == "multilabel"
        self._classes = [str(label) for label in trainer.classes_] if proba else None
        if id_column is not None:
            table.require([id_column], "which --id names")
        self._kinds = columns_to_read(trainer.features, table, id_column)
        self.header = [
            *([] if id_column is None else [id_column]),
            *_answers(labels),
            *(f"proba_{label}" for label in self._classes or ()),
        ]

    def write(self, sink: BinaryIO, size: int) -> None:
        """Write them as CSV, UTF-8, the header first, reading `size` rows at a time.

        Raises:
            InputError: A row does not fit what the model was trained on.
            OSError: They cannot be written.
        """
        sink.write(_csv([self.header]))
        for chunk in self._table.chunks(self._kinds, self._id_column, size):
            sink.write(_csv(zip(*self._columns(chunk), strict=True)))

    def _columns(self, chunk: Chunk) -> Iterator[Sequence[Any]]:
        X = as_trained(chunk.features, self._trainer.features)
        if chunk.ids is not None:
            yield chunk.ids
        if self._classes is None:
            yield from _by_column(self._trainer.predict(X))
            return
        scores = self._trainer.predict_proba(X)
        yield from _by_column(self._labels(X, scores))
        yield from _by_column(scores)

    def _labels(self, X: Any, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what `predict` does, without a second pass through the model where one class is right."""
        if self._is_multilabel:
            return self._trainer.predict(X)
        labels: npt.NDArray[Any] = self._trainer.classes_[scores.argmax(axis=1)]
        return labels


def _answers(labels: Mapping[str, Any]) -> list[str]:
    """Name the columns of what `predict` returns: one, or one for each label or output."""
    if labels["task"] == "multilabel":
        names = labels["classes"]
    elif labels["task"] == "regression" and labels["outputs"] is not None:
        names = labels["names"] or range(labels["outputs"])
    else:
        return ["prediction"]
    return [f"prediction_{name}" for name in names]


def _by_column(answers: npt.NDArray[Any]) -> Iterator[list[Any]]:
    if answers.dtype.kind == "f":
        # As text in numpy's shortest form: Python would write all digits of a float32 turned into a float64.
        answers = answers.astype(np.str_)
    yield from [answers.tolist()] if answers.ndim == 1 else answers.T.tolist()


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
