"""Columns of numbers and text as one matrix of numbers: filled, scaled, encoded."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from gymtrain.data.frames import Frame
from gymtrain.data.preprocessors import Preprocessor, State
from gymtrain.errors import DataError


class Tabular(Preprocessor):
    """Turn a frame into numbers: fill what is missing, scale the numbers, encode the text.

    A missing text is a category of its own where the train part had one; a text that it never had becomes zeros.

    Args:
        impute: What stands for a missing number: the column's median, mean or most frequent value.
        scale: `"standard"` for mean 0 and standard deviation 1, `"min_max"` for 0 to 1, null for as it is.
        encode: `"one_hot"` for a column for each category, `"ordinal"` for its number (-1: never seen).
        max_categories: At most so many categories for a column, the most frequent ones; the rest count as unseen.
    """

    takes_frames = True
    handles_missing = True

    def __init__(
        self,
        impute: Literal["median", "mean", "most_frequent"] = "median",
        scale: Literal["standard", "min_max"] | None = "standard",
        encode: Literal["one_hot", "ordinal"] = "one_hot",
        max_categories: Annotated[int, pydantic.Field(ge=1)] = 100,
    ) -> None:
        self.impute, self.scale, self.encode, self.max_categories = impute, scale, encode, max_categories

    def fit(self, X: Any, y: npt.NDArray[Any]) -> None:
        """Learn what fills, scales and encodes each column.

        Raises:
            DataError: A column has no value at all.
        """
        frame = _as_frame(X)
        kinds = frame.kinds()
        self.numbers = [name for name, kind in kinds.items() if kind == "number"]
        self.categories = {
            name: self._categories(frame.columns[name]) for name, kind in kinds.items() if kind == "text"
        }
        matrix = frame.select(self.numbers).matrix()
        empty = [name for name, column in zip(self.numbers, matrix.T, strict=True) if np.isnan(column).all()]
        if empty:
            raise DataError(f"columns {', '.join(map(repr, empty))} hold no value in the train part; drop them")
        self.fill, self.offset, self.divisor = self._fit_numbers(matrix)

    def _fit_numbers(self, matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import MinMaxScaler, StandardScaler

        size = matrix.shape[1]
        if size == 0:
            return np.empty(0), np.empty(0), np.empty(0)
        imputer = SimpleImputer(strategy=self.impute, copy=False)
        filled = imputer.fit_transform(matrix)
        offset, divisor = np.zeros(size), np.ones(size)
        if self.scale == "standard":
            scaler = StandardScaler().fit(filled)
            offset, divisor = scaler.mean_, scaler.scale_
        elif self.scale == "min_max":
            ranges = MinMaxScaler().fit(filled)
            offset, divisor = ranges.data_min_, 1.0 / ranges.scale_
        return imputer.statistics_, offset, divisor

    def _categories(self, column: npt.NDArray[Any]) -> list[str | None]:
        values, counts = np.unique([("" if item is None else f"={item}") for item in column], return_counts=True)
        frequent = np.sort(np.argsort(-counts, kind="stable")[: self.max_categories])
        return [None if value == "" else str(value[1:]) for value in values[frequent]]

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Return float32 of shape (rows, numbers + encoded categories): numbers first, in the order of the columns."""
        frame = _as_frame(X)
        matrix = frame.select(self.numbers).matrix()
        # In place, because a table may fill much of the memory; the matrix is a copy.
        np.copyto(matrix, self.fill, where=np.isnan(matrix))
        matrix -= self.offset
        matrix /= self.divisor
        encoded = [self._encode(frame.columns[name], known) for name, known in self.categories.items()]
        with np.errstate(over="ignore"):
            # What is too large for a float32 becomes infinite, and is refused as such.
            return np.concatenate([matrix.astype(np.float32), *encoded], axis=1)

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the names of the columns with numbers, then those of the others, with the category if it has one."""
        if self.encode == "ordinal":
            return [*self.numbers, *self.categories]
        return [*self.numbers, *(f"{name}={each}" for name, known in self.categories.items() for each in known)]

    def _encode(self, column: npt.NDArray[Any], known: list[str | None]) -> npt.NDArray[np.float32]:
        code_of = {category: code for code, category in enumerate(known)}
        codes = np.fromiter((code_of.get(item, -1) for item in column), dtype=np.int64, count=len(column))
        if self.encode == "ordinal":
            return codes[:, None].astype(np.float32)
        one_hot: npt.NDArray[np.float32] = (codes[:, None] == np.arange(len(known))).astype(np.float32)
        return one_hot

    def save(self) -> State:
        """Return what was learned of each column."""
        numbers = {"fill": self.fill, "offset": self.offset, "divisor": self.divisor}
        return {"numbers": self.numbers, "categories": self.categories, **numbers}

    def restore(self, state: State) -> None:
        """Take back what was learned of each column."""
        self.numbers, self.categories = list(state["numbers"]), dict(state["categories"])
        self.fill, self.offset, self.divisor = state["fill"], state["offset"], state["divisor"]


def _as_frame(X: Any) -> Frame:
    """A matrix is a frame whose columns are named by their position."""
    if isinstance(X, Frame):
        return X
    matrix = X.reshape(len(X), math.prod(X.shape[1:]))
    return Frame({str(index): column.astype(np.float64) for index, column in enumerate(matrix.T)}, len(matrix))
