"""What one row looks like, and whether the rows that somebody gives look like that."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.decoding import ImageArray
from gymtrain.data.frames import Frame, is_frame
from gymtrain.data.image_forms import as_images, as_pixel_rows, as_pixels, is_one_image
from gymtrain.data.images import MAX_PIXELS, Images
from gymtrain.data.rows import Rows, taken
from gymtrain.data.tensors import as_numpy
from gymtrain.errors import DataError, GymtrainError, InputError, some

Matrix = npt.NDArray[Any]

IMAGE = "image"
"""What `Features.dtype` is for images of any size."""


class InputWarning(UserWarning):
    """Rows fit the training data, but something in them was left out."""


@dataclass(frozen=True)
class Features:
    """What one row of features looks like.

    Args:
        columns: For rows with names: `"number"` or `"text"` by column, in order. None for plain arrays and for images.
        shape: The shape of one row; () for images of any size.
        dtype: The type that rows are given to the preprocessors in: the floating-point type that holds the training
            data, `"uint8"` for arrays of pixels, `"image"` for images of any size.
        left_out: Columns of the training data that are no features: its targets and groups.
        max_pixels: How many pixels an image of any size may have.
    """

    columns: dict[str, str] | None
    shape: tuple[int, ...]
    dtype: str
    left_out: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    def to_dict(self) -> dict[str, Any]:
        """Return what `schema.json` holds."""
        columns = (
            None if self.columns is None else [{"name": name, "kind": kind} for name, kind in self.columns.items()]
        )
        content = {
            "columns": columns,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "left_out": list(self.left_out),
        }
        return content | ({"max_pixels": self.max_pixels} if self.are_images else {})

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Features:
        """Read what `to_dict` returned."""
        columns = content["columns"]
        by_name = None if columns is None else {str(each["name"]): str(each["kind"]) for each in columns}
        shape = tuple(int(size) for size in content["shape"])
        left_out = tuple(str(name) for name in content["left_out"])
        return cls(by_name, shape, str(content["dtype"]), left_out, content.get("max_pixels", MAX_PIXELS))

    @classmethod
    def of(cls, X: Frame | Images | Matrix, left_out: Sequence[str] = ()) -> Features:
        """Describe rows."""
        if isinstance(X, Frame):
            return cls(X.kinds(), (len(X.columns),), "float64", tuple(left_out))
        if isinstance(X, Images):
            return cls(None, (), IMAGE, max_pixels=X.max_pixels)
        return cls(None, X.shape[1:], str(X.dtype))

    @property
    def are_images(self) -> bool:
        """Whether a row is an image of any size."""
        return self.dtype == IMAGE

    @property
    def are_pixels(self) -> bool:
        """Whether a row is an array of pixels, for which the file of an image of the same size will do."""
        return self.dtype == "uint8" and len(self.shape) in (2, 3)

    def known_form(self, X: Any) -> Any:
        """Return rows in a form that can be cut into blocks, as the function of this name does, also for images.

        Raises:
            InputError: They are none.
        """
        if self.are_images or self._are_files(X):
            return as_images(X, self.max_pixels)
        return X if isinstance(X, np.ndarray) else known_form(X)

    def check(self, X: Any, *, missing: bool) -> Rows:
        """Bring rows into the form that the preprocessors were fitted on.

        Args:
            X: Rows as a user has them: an array, a tensor, a list, a frame or a list of dicts; for images what
                `as_images` takes.
            missing: Whether missing values may be among them.

        Returns:
            A `Frame` with the columns in order, an array of `dtype` and shape (rows, *shape), or `Images`.

        Raises:
            InputError: They do not fit; the message says what was got, what was expected and what to do.
        """
        if self.are_images:
            return as_images(X, self.max_pixels)
        if self._are_files(X):
            return as_pixel_rows(X, self.shape, self.max_pixels)
        if isinstance(X, np.ndarray) and self.columns is None and X.dtype == self.dtype and X.shape[1:] == self.shape:
            rows: Frame | Matrix = X if X.flags.c_contiguous else np.ascontiguousarray(X)
        else:
            X = known_form(X)
            rows = self._from_names(X) if self.columns is not None else self._from_array(X)
        self.check_values(rows, missing=missing)
        return rows

    def _are_files(self, X: Any) -> bool:
        """Tell whether somebody gives images to a model of pixels."""
        if not self.are_pixels:
            return False
        several = isinstance(X, list | tuple) or getattr(X, "ndim", 0) == 1
        return isinstance(X, Images) or is_one_image(X) or (several and any(map(is_one_image, X)))

    def _from_names(self, X: Any) -> Frame:
        assert self.columns is not None
        if not is_frame(X):
            X = self._named_by_position(X)
        frame = _translated(lambda: Frame.of(X))
        absent = [name for name in self.columns if name not in frame.columns]
        if absent and len(frame):
            raise InputError(
                f"the rows have no column {some(absent)}; expected {', '.join(map(repr, self.columns))}, in any order"
            )
        if absent:
            return Frame({name: _empty_column(kind) for name, kind in self.columns.items()}, 0)
        extra = [name for name in frame.names if name not in self.columns and name not in self.left_out]
        if extra:
            warnings.warn(
                f"columns {some(extra)} were not there in training and are left out", InputWarning, stacklevel=4
            )
        frame = frame.select(list(self.columns))
        return Frame(
            {name: _as_kind(name, frame.columns[name], kind) for name, kind in self.columns.items()}, len(frame)
        )

    def _named_by_position(self, X: Any) -> dict[str, Any]:
        assert self.columns is not None
        # As objects, because in one array of numbers and text the numbers would become text.
        array = as_array(X if hasattr(X, "shape") else _as_objects(X))
        if array.ndim == 1 and array.size == 0:
            array = array.reshape(0, len(self.columns))
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise InputError(
                f"got an array of shape {array.shape}; expected (rows, {len(self.columns)}) with the columns "
                f"{some(self.columns)} in this order, or a frame that has them by name"
            )
        return {name: array[:, index] for index, name in enumerate(self.columns)}

    def _from_array(self, X: Any) -> Matrix:
        if is_frame(X):
            X = _translated(lambda: Frame.of(X).matrix())
        array = as_array(X)
        if array.ndim == 1 and array.size == 0:
            return np.empty((0, *self.shape), dtype=self.dtype)
        if array.shape[1:] != self.shape or array.ndim == 0:
            raise InputError(
                f"got {_shape_text(array)}; expected (rows, {', '.join(map(str, self.shape))}){self._hint(array)}"
            )
        if self.dtype == "uint8":
            return as_pixels(array)
        return _as_numbers(array, np.dtype(self.dtype), InputError)

    def _hint(self, array: Matrix) -> str:
        if array.shape == self.shape:
            return "; one row is X.reshape(1, -1), or X[None]"
        size = int(np.prod(self.shape))
        if array.ndim > 1 and int(np.prod(array.shape[1:])) == size:
            return f"; the values are as many: X.reshape(-1, {', '.join(map(str, self.shape))})"
        return ""

    def check_values(self, rows: Rows, *, missing: bool, error: type[GymtrainError] = InputError) -> None:
        """Refuse infinite values, and missing ones unless they may be there.

        Raises:
            GymtrainError: Of the class given, with the columns and the rows where they are.
        """
        if isinstance(rows, Images | ImageArray):
            return
        if not isinstance(rows, Frame):
            if rows.dtype.kind == "f":
                check_finite(rows, missing=missing, error=error)
            return
        numbers = {name: column for name, column in rows.columns.items() if column.dtype != object}
        infinite = [name for name, column in numbers.items() if np.isinf(column).any()]
        if infinite:
            where = _rows_where(np.isinf, [numbers[name] for name in infinite])
            raise error(f"{where}, columns {some(infinite)} hold infinite values; remove or replace them")
        absent = [] if missing else [name for name, column in numbers.items() if np.isnan(column).any()]
        if absent:
            where = _rows_where(np.isnan, [numbers[name] for name in absent])
            raise error(f"{where}, columns {some(absent)} have missing values (NaN); {_FILL}")


def _rows_where(is_bad: Callable[[Matrix], Matrix], columns: Sequence[Matrix]) -> str:
    """Say in how many rows some column has a bad value, and which is the first of them."""
    rows = np.flatnonzero(np.any([is_bad(column) for column in columns], axis=0))
    return f"in {len(rows)} rows, the first is row {rows[0]}"


_FILL = (
    "fill them, or put {'type': 'tabular'} or {'type': 'replace', 'from_val': None, 'to_val': 0.0} first among the "
    "preprocessors"
)


def check_finite(X: Matrix, *, missing: bool, error: type[GymtrainError]) -> None:
    """Refuse infinite values, and missing ones unless they may be there.

    Raises:
        GymtrainError: Of the class given, with the rows and the features where they are.
    """
    rows = rows_that_are_not_finite(X, missing=missing)
    if len(rows):
        infinite = np.isinf(X[rows]).any()
        kind, remedy = ("infinite values", "remove them") if infinite else ("missing values (NaN)", _FILL)
        raise error(f"X has {kind} in {len(rows)} rows, the first at row {rows[0]}; {remedy}")


_NO_ROWS = np.empty(0, dtype=np.int64)
# Of so many values each is looked at: that takes less time than keeping numpy from warnings.
_FEW_VALUES = 4096


def rows_that_are_not_finite(X: Matrix, *, missing: bool = False) -> npt.NDArray[np.int64]:
    """Return the positions of the rows that hold an infinite value, or a missing one unless those may be there."""
    if X.size <= _FEW_VALUES:
        if np.logical_and.reduce(np.isfinite(X), axis=None):
            return _NO_ROWS
    else:
        # A sum is finite unless something in it is not, or it overflows: it needs no memory of the size of the data.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(X.sum()):
                return _NO_ROWS
    bad = np.isinf(X) if missing else ~np.isfinite(X)
    return np.unique(np.nonzero(bad)[0])


def known_form(X: Any) -> Any:
    """Return rows in a form that can be cut into blocks: a dict of columns, or a table of Arrow, is made a frame.

    Raises:
        InputError: It is a file, or hands out rows once only, or is not evaluated yet.
    """
    if isinstance(X, str | bytes | os.PathLike) or hasattr(X, "__next__"):
        raise InputError(
            f"got {X!r}; expected an array, a frame or a list of rows; predict_blocks() takes files, and blocks one "
            f"after another"
        )
    if isinstance(X, Mapping):
        return _translated(lambda: Frame.of(X))
    if hasattr(X, "collect_schema") and not hasattr(X, "__len__"):
        raise InputError(f"got a {type(X).__name__}, which is not evaluated yet; give what its collect() returns")
    if hasattr(X, "__arrow_c_stream__") and not is_frame(X):
        return _arrow_table(X)
    return X


def _arrow_table(X: Any) -> Any:
    import pyarrow

    try:
        return pyarrow.table(X)
    except (TypeError, ValueError) as error:
        raise InputError(f"got a {type(X).__name__} that is no table of Arrow: {error}") from error


def as_features(X: Any) -> Frame | Images | Matrix:
    """Read the features of a dataset: what has named columns as a `Frame`, images as they are, the rest as numbers.

    Pixels, uint8 of shape (rows, height, width) or (rows, height, width, channels), stay what they are.

    Raises:
        DataError: They are neither.
    """
    if isinstance(X, Images):
        return X
    if is_frame(X):
        return Frame.of(X)
    array = as_array(X, DataError)
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.size:
        return np.ascontiguousarray(array)
    if array.ndim < 2:
        raise DataError(f"X has the shape {array.shape}; expected (rows, features): one feature is X.reshape(-1, 1)")
    if 0 in array.shape[1:]:
        raise DataError(f"X has the shape {array.shape}; there is no feature in it")
    # What half of the digits of a float can hold goes into a float32; the rest keeps what it has.
    small = array.dtype.kind == "b" or (array.dtype.kind in "iu" and array.dtype.itemsize <= 2)
    small = small or (array.dtype.kind == "f" and array.dtype.itemsize <= 4)
    return _as_numbers(array, np.dtype(np.float32 if small else np.float64), DataError)


def as_array(X: Any, error: type[GymtrainError] = InputError) -> Matrix:
    """Return an array of what is an array, a tensor, a sparse matrix or a list.

    Raises:
        GymtrainError: Of the class given, when the rows differ in length.
    """
    if getattr(X, "is_meta", False):
        raise error("got a tensor of the device 'meta', which has no values; give one of another device")
    if hasattr(X, "detach"):  # torch.Tensor
        X = as_numpy(X)
    elif isinstance(X, np.ma.MaskedArray):
        # What is masked is missing.
        X = np.ma.filled(X.astype(np.float64), np.nan) if np.ma.is_masked(X) else X.data
    elif hasattr(X, "toarray"):  # scipy.sparse
        X = X.toarray()
    if isinstance(X, str | bytes) or X is None:
        raise error(f"got {X!r}; expected an array, a frame or a list of rows")
    try:
        return np.asarray(X)
    except ValueError as cause:
        raise error(f"the rows differ in length or shape: {cause}") from cause


def _as_numbers(array: Matrix, dtype: np.dtype[Any], error: type[GymtrainError]) -> Matrix:
    if array.dtype.kind not in "biuf":
        if array.dtype.kind == "O":
            _refuse_text(array, error)
        elif array.dtype.kind in "USTc" or array.dtype.kind in "mM":
            raise error(f"got values of type {array.dtype}; expected numbers (for text use a frame, with column names)")
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, dtype=dtype)
    except (TypeError, ValueError) as cause:
        raise error(f"got values that are no numbers: {cause}") from cause
    except OverflowError as cause:
        raise error(f"got a whole number that is too large for a {dtype}; leave it out, or scale it") from cause


def _as_objects(X: Any) -> Any:
    return np.array(X, dtype=object) if isinstance(X, list | tuple) else X


def _refuse_text(array: Matrix, error: type[GymtrainError]) -> None:
    for position, item in zip(np.ndindex(array.shape), array.ravel().tolist(), strict=True):
        if item is not None and not isinstance(item, bool | int | float | np.number):
            what = f"the text {item!r}" if isinstance(item, str | bytes) else f"a {type(item).__name__}"
            raise error(f"got {what} at {tuple(map(int, position))} where a number belongs")


def _as_kind(name: str, column: Matrix, kind: str) -> Matrix:
    is_text = column.dtype == object
    if is_text and kind == "number":
        found = [item for item in column if item is not None]
        if not found:
            return np.full(len(column), np.nan)
        raise InputError(f"column {name!r} holds text such as {found[0]!r}; it held numbers in training")
    if not is_text and kind == "text":
        if len(column) == 0 or np.isnan(column).all():
            return np.array([None] * len(column), dtype=object)
        raise InputError(f"column {name!r} holds numbers such as {column[0]:g}; it held text in training")
    return column


def _empty_column(kind: str) -> Matrix:
    return np.empty(0, dtype=object if kind == "text" else np.float64)


def _translated(read: Any) -> Any:
    try:
        return read()
    except DataError as error:
        raise InputError(str(error)) from error


def _shape_text(array: Matrix) -> str:
    return f"a single {type(array[()]).__name__}" if array.ndim == 0 else f"an array of shape {array.shape}"


def number_of_rows(X: Any) -> int | None:
    """Return how many rows there are; None where `X` cannot be cut into blocks of rows."""
    if isinstance(X, Frame | Images):
        return len(X)
    if isinstance(X, Mapping) or not (hasattr(X, "__getitem__") or hasattr(X, "tocsr")):
        return None
    shape = getattr(X, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    return len(X) if hasattr(X, "__len__") else None


def row_blocks(X: Any, size: int) -> Iterator[Any]:
    """Cut rows of any form into blocks, so that what is made of them needs memory for one block at a time."""
    rows = number_of_rows(X) or 0
    X = X.tocsr() if hasattr(X, "tocsr") else X
    for start in range(0, rows, size):
        if isinstance(X, Frame | Images):
            yield taken(X, slice(start, min(start + size, rows)))
        elif hasattr(X, "num_rows"):  # pyarrow.Table
            yield X.slice(start, size)
        else:
            yield X.iloc[start : start + size] if hasattr(X, "iloc") else X[start : start + size]
