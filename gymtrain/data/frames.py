"""Frames of any library, and rows as dicts, as one simple thing: named columns of numbers or of text."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.errors import DataError
from gymtrain.specs.fingerprint import column_array, frame_columns

Column = npt.NDArray[Any]


class Frame:
    """Named columns of one length: float64 (missing: NaN) or text (an object array of str, missing: None).

    Example:
        >>> frame = Frame.of([{"age": 30, "city": "Porto"}, {"age": None, "city": "Braga"}])
        >>> frame.kinds()
        {'age': 'number', 'city': 'text'}
        >>> len(frame.take(np.array([1])))
        1
    """

    def __init__(
        self, columns: Mapping[str, Column], size: int, truths: Collection[str] = (), wholes: Collection[str] = ()
    ) -> None:
        self.columns = dict(columns)
        self._size = size
        self.truths = frozenset(truths)
        """The columns of numbers that hold the truth values of their frame, as 0 and 1."""
        self.wholes = frozenset(wholes)
        """The columns of numbers that were integers."""

    def __len__(self) -> int:
        return self._size

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.columns)

    def kinds(self) -> dict[str, str]:
        """Return `"number"` or `"text"` for each column."""
        return {name: "text" if column.dtype == object else "number" for name, column in self.columns.items()}

    def take(self, rows: npt.NDArray[np.int64] | slice) -> Frame:
        """Return some of the rows, by position."""
        size = len(range(*rows.indices(self._size))) if isinstance(rows, slice) else len(rows)
        return Frame({name: column[rows] for name, column in self.columns.items()}, size, self.truths, self.wholes)

    def select(self, names: Sequence[str]) -> Frame:
        """Return some of the columns, in the order given."""
        columns = {name: self.columns[name] for name in names}
        return Frame(columns, self._size, self.truths.intersection(names), self.wholes.intersection(names))

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the columns side by side, float64 of shape (rows, columns).

        Raises:
            DataError: A column holds text.
        """
        text = [name for name, kind in self.kinds().items() if kind == "text"]
        if text:
            raise DataError(
                f"columns {', '.join(map(repr, text))} hold text where numbers are needed; put {{'type': 'tabular'}} "
                f"first among the preprocessors"
            )
        if not self.columns:
            return np.empty((self._size, 0))
        return np.column_stack(list(self.columns.values()))

    @classmethod
    def of(cls, value: Any) -> Frame:
        """Read a pandas, polars or pyarrow frame, a dict of columns, or a list of dicts.

        Raises:
            DataError: A name stands twice, columns differ in length, or a column is neither numbers nor text.
        """
        if isinstance(value, Frame):
            return value
        columns = frame_columns(value)
        if columns is None:
            columns = [(str(name), column) for name, column in _by_name(value).items()]
        names = [name for name, _ in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"the frame has more than one column named {', '.join(map(repr, twice))}; rename them")
        # A column at a time: what it was made of is let go before the next one is made.
        read, sizes, truths, wholes = {}, {}, [], []
        for name, column in columns:
            array = _to_numpy(name, column)
            sizes[name] = len(array)
            truths += [name] if _holds_truths(array) else []
            wholes += [name] if _holds_wholes(array) else []
            read[name] = column_of(name, array)
        if len(set(sizes.values())) > 1:
            raise DataError(f"the columns differ in length: {sizes}; every row needs a value, or None, in each")
        size = next(iter(sizes.values())) if sizes else len(value)
        return cls(read, size, truths, wholes)


def is_frame(value: Any) -> bool:
    """Tell whether a value has named columns: a frame, a dict of columns or a list of dicts."""
    if isinstance(value, Frame | Mapping) or frame_columns(value) is not None:
        return True
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _by_name(value: Any) -> Mapping[Any, Any]:
    """Return the columns of a dict of columns, or of rows as dicts."""
    if isinstance(value, Mapping):
        return value
    rows = list(value)
    odd = [row for row in rows if not isinstance(row, Mapping)]
    if odd:
        raise DataError(f"a list of rows holds a {type(odd[0]).__name__} among its dicts; expected a dict for each row")
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def column_of(name: str, values: Any) -> Column:
    """Return a column as float64 with NaN for missing, or as objects: str, and None for missing.

    Raises:
        DataError: The column holds dates or other things that are neither numbers nor text.
    """
    array = _to_numpy(name, values)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype.kind in "Mm":
        raise _neither(name, None)
    items = array.tolist()
    present = [item for item in items if not _is_missing(item)]
    if all(isinstance(item, _NUMBERS) for item in present):
        try:
            return np.array([np.nan if _is_missing(item) else float(item) for item in items], dtype=np.float64)
        except OverflowError:
            raise DataError(f"column {name!r} holds a whole number that is too large for a float64") from None
    odd = next((item for item in present if not isinstance(item, (str, *_NUMBERS))), None)
    if odd is not None:
        raise _neither(name, odd)
    column = np.empty(len(items), dtype=object)
    column[:] = [None if _is_missing(item) else str(item) for item in items]
    return column


_NUMBERS = (bool, int, float, np.number, np.bool_, decimal.Decimal)
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def _neither(name: str, item: Any) -> DataError:
    if item is None or isinstance(item, _TIMES):
        return DataError(
            f"column {name!r} holds dates or durations; turn them into numbers, for example days since a date"
        )
    if isinstance(item, bytes):
        return DataError(f"column {name!r} holds bytes such as {item[:20]!r}; expected numbers, or text in UTF-8")
    return DataError(f"column {name!r} holds {type(item).__name__} values; expected numbers or text")


def _holds_wholes(array: npt.NDArray[Any]) -> bool:
    if array.dtype == object:
        present = [item for item in array.tolist() if not _is_missing(item)]
        return all(isinstance(item, int | np.integer) and not isinstance(item, bool) for item in present)
    return array.dtype.kind in "iu"


def _holds_truths(array: npt.NDArray[Any]) -> bool:
    if array.dtype.kind != "O":
        return array.dtype.kind == "b"
    present = (item for item in array.flat if not _is_missing(item))
    return isinstance(next(present, None), bool | np.bool_) and all(
        isinstance(item, bool | np.bool_) for item in present
    )


def _to_numpy(name: str, values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "to_numpy"):
        array = column_array(values)
    elif hasattr(values, "detach"):
        array = values.detach().cpu().numpy()
    elif isinstance(values, np.ndarray):
        array = values
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"column {name!r} is a {type(values).__name__}; expected one value for each row")
    else:
        array = _objects(list(values))
    if array.ndim != 1:
        raise DataError(f"column {name!r} has the shape {array.shape}; expected one value for each row")
    return array.astype(object) if array.dtype.kind in "UST" else array


def _objects(items: list[Any]) -> npt.NDArray[Any]:
    """Keep every item whole: numpy would make lists among them an axis of its own."""
    return np.fromiter(items, dtype=object, count=len(items))


def _is_missing(item: Any) -> bool:
    if item is None:
        return True
    if isinstance(item, float | np.floating | decimal.Decimal):
        return item != item
    return type(item).__name__ in {"NAType", "NaTType"}
