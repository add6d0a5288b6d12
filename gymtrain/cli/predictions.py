"""Rows of a file in, a CSV file of predictions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from gymtrain.cli.answers import answer, as_csv, columns, header
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
        self._trainer, self._table, self._id_column, self._proba = trainer, table, id_column, proba
        names = header(trainer, proba)
        if id_column is not None:
            table.require([id_column], "which --id names")
        self._kinds = columns_to_read(trainer.features, table, id_column)
        self.header = [*([] if id_column is None else [id_column]), *names]

    def write(self, sink: BinaryIO, size: int) -> None:
        """Write them as CSV, UTF-8, the header first, reading `size` rows at a time.

        Raises:
            InputError: A row does not fit what the model was trained on.
            OSError: They cannot be written.
        """
        sink.write(as_csv([self.header]))
        for chunk in self._table.chunks(self._kinds, self._id_column, size):
            sink.write(as_csv(zip(*self._columns(chunk), strict=True)))

    def _columns(self, chunk: Chunk) -> Iterator[Sequence[Any]]:
        if chunk.ids is not None:
            yield chunk.ids
        X = as_trained(chunk.features, self._trainer.features)
        yield from columns(*answer(self._trainer, X, self._proba))
