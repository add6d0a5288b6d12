"""Files of rows, read a chunk at a time, in the kinds of columns that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from gymtrain.data.frames import Frame, column_of
from gymtrain.errors import InputError, did_you_mean, some

Kind = Literal["csv", "parquet"]

# A line of a CSV file that is longer than a block cannot be read.
_BLOCK_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20  # of each column of a Parquet file
_MISSING = pyarrow.array(pyarrow.csv.ConvertOptions().null_values)


KINDS: dict[str, Kind] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
"""The format of a file by the end of its name."""


def kind_of(path: Path) -> Kind | None:
    """Return the format of a file, as its name tells it; None where it does not."""
    return KINDS.get(path.suffix.lower())


class Chunk(NamedTuple):
    """Some rows of a file: their features, and the id of each as the file has it; None where none was asked for."""

    features: Frame
    ids: list[Any] | None


class TableFile:
    """A CSV or Parquet file, of which one chunk is in memory at a time.

    Args:
        path: The file; a CSV file has a header.
        kind: Its format.

    Raises:
        InputError: It is not of that format, or a column stands twice in it.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind
        try:
            schema = self._open_csv(None).schema if kind == "csv" else pyarrow.parquet.read_schema(path)
        except pyarrow.ArrowInvalid as error:
            raise self._unreadable(error) from error
        self.names: list[str] = schema.names
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise InputError(f"{path} has more than one column named {some(twice)}; rename them{self._hint()}")

    def require(self, names: Sequence[str], needed_as: str) -> None:
        """Check that the columns are there.

        Raises:
            InputError: One is not.
        """
        absent = [name for name in names if name not in self.names]
        if absent:
            hint = did_you_mean(absent[0], self.names)
            raise InputError(
                f"{self.path} has no column {some(absent)}, {needed_as}{hint}; its columns are {some(self.names, 20)}"
                f"{self._hint()}"
            )

    @property
    def seems_headless(self) -> bool:
        """Whether the first line of a CSV file is none of names, but of numbers other than 0, 1, 2 and so on."""
        counted = [str(position) for position in range(len(self.names))]
        return self.kind == "csv" and bool(self.names) and all(map(_is_numeric, self.names)) and self.names != counted

    def _hint(self) -> str:
        return "; its first line is numbers, expected the names of the columns" if self.seems_headless else ""

    def chunks(self, kinds: Mapping[str, str], id_column: str | None, size: int) -> Iterator[Chunk]:
        """Yield the rows in order.

        Args:
            kinds: The columns to read, each `"number"` or `"text"`.
            id_column: A column that is handed on as it is.
            size: The most rows of a chunk.

        Raises:
            InputError: A line is broken, or a column holds text where numbers belong.
        """
        wanted = list(dict.fromkeys([*kinds, *([] if id_column is None else [id_column])]))
        try:
            for batch in self._batches(wanted, size):
                for start in range(0, batch.num_rows, size):
                    part = batch.slice(start, size)
                    columns = {name: self._column(name, part.column(name), kind) for name, kind in kinds.items()}
                    ids = None if id_column is None else part.column(id_column).to_pylist()
                    yield Chunk(Frame(columns, part.num_rows), ids)
        except pyarrow.ArrowInvalid as error:
            raise self._unreadable(error) from error

    def _batches(self, wanted: Sequence[str], size: int) -> Iterator[Any]:
        if self.kind == "csv":
            yield from self._open_csv(wanted)
        else:
            # By default all of the file is read ahead. A group of rows may be all of it, and is read through a buffer.
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
                yield from file.iter_batches(batch_size=size, columns=wanted)

    def _open_csv(self, wanted: Sequence[str] | None) -> Any:
        # Read as text and converted by us: the reader would decide about a column by the first block alone, and an id
        # such as 007 has to stay what it is.
        options = (
            {}
            if wanted is None
            else {"include_columns": wanted, "column_types": dict.fromkeys(wanted, pyarrow.string())}
        )
        return pyarrow.csv.open_csv(
            self.path,
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(**options),
        )

    def _column(self, name: str, column: Any, kind: str) -> npt.NDArray[Any]:
        if self.kind == "csv":
            column = _null_where_missing(column)
            if kind == "number":
                return self._parsed(name, column)
        elif _is_number(column.type):
            numbers: npt.NDArray[Any] = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
            return numbers
        return column_of(name, column.to_pylist())

    def _parsed(self, name: str, column: Any) -> npt.NDArray[np.float64]:
        text = pyarrow.compute.utf8_trim_whitespace(column)
        try:
            numbers = text.cast(pyarrow.float64())
        except pyarrow.ArrowInvalid as error:
            try:
                numbers = text.cast(pyarrow.bool_()).cast(pyarrow.float64())
            except pyarrow.ArrowInvalid:
                raise InputError(
                    f"{self.path}: column {name!r} held numbers in training, here it holds text: {error}"
                ) from error
        parsed: npt.NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
        return parsed

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self.path} is not a {self.kind} file that can be read: {error}")


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _null_where_missing(column: Any) -> Any:
    missing = pyarrow.compute.is_in(column, value_set=_MISSING)
    return pyarrow.compute.if_else(missing, pyarrow.scalar(None, pyarrow.string()), column)


def _is_number(kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind))
