"""Preprocessors: what is done to every row, as learned from the train part.

What scikit-learn fits is kept as the numbers that it found, and applied with numpy: a bundle then holds a mean and not
an object, reads the same in any later version, and one row costs microseconds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from gymtrain.data.frames import Frame
from gymtrain.errors import DataError, GymtrainError

Matrix = npt.NDArray[Any]
State = dict[str, Any]


class Preprocessor:
    """Base for preprocessors.

    One of your own takes its arguments in the constructor and has `transform`; `fit`, if it learns from the data; and
    then `save` and `restore`, which take what it learned to a bundle and back.

    Example:
        >>> class Clip(Preprocessor):
        ...     def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        ...         self.low, self.high = low, high
        ...
        ...     def transform(self, X):
        ...         return X.clip(self.low, self.high)
        >>> Clip().transform(np.array([[-1.0, 0.5]]))
        array([[0. , 0.5]])
    """

    # Whether `fit` and `transform` take a `Frame`; the others are given its numbers as a matrix.
    takes_frames = False
    # Whether missing values (NaN) may come in; what comes out of the last preprocessor must have none.
    handles_missing = False
    # Whether they go out again where they came in, for a later preprocessor to fill.
    passes_missing = False

    def fit(self, X: Any, y: npt.NDArray[Any]) -> None:
        """Learn from the train part.

        Args:
            X: Features, float32 or float64 of shape (rows, …), or a `Frame` where `takes_frames` is set.
            y: Targets as numbers: int64 class codes of shape (rows,), or float32.
        """

    def transform(self, X: Any) -> Any:
        """Return the rows changed: as many as came in, each for itself alone."""
        raise NotImplementedError(f"{type(self).__name__} has no transform()")

    def feature_names(self, names: list[str]) -> list[str] | None:
        """Return what the columns that come out are called, once fitted; None where they have no names.

        Args:
            names: What the columns that go in are called.
        """
        return None

    def save(self) -> State:
        """Return what was learned: JSON values, numpy arrays, and under `"skops"` bytes made by skops."""
        return {}

    def restore(self, state: State) -> None:
        """Take back what `save` returned."""


class StandardScaler(Preprocessor):
    """Shift and scale each feature to mean 0 and standard deviation 1; a constant feature becomes 0."""

    handles_missing = passes_missing = True

    def fit(self, X: Matrix, y: npt.NDArray[Any]) -> None:
        """Learn the mean and the standard deviation of each feature; missing values do not count."""
        from sklearn.preprocessing import StandardScaler as Fitted

        with _quiet():
            fitted = Fitted().fit(_flat(X))
        self.mean = fitted.mean_.reshape(X.shape[1:])
        self.scale = fitted.scale_.reshape(X.shape[1:])

    def transform(self, X: Matrix) -> Matrix:
        """Return the rows scaled, in the floating-point type that they came in."""
        scaled: Matrix = (X - self.mean.astype(X.dtype, copy=False)) / self.scale.astype(X.dtype, copy=False)
        return scaled

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the same names."""
        return names

    def save(self) -> State:
        """Return the mean and the scale."""
        return {"mean": self.mean, "scale": self.scale}

    def restore(self, state: State) -> None:
        """Take back the mean and the scale."""
        self.mean, self.scale = state["mean"], state["scale"]


class MinMaxScaler(Preprocessor):
    """Shift and scale each feature so that the train part fills a range.

    Args:
        feature_range: The range, lowest first.

    Raises:
        ValueError: The range is empty.
    """

    handles_missing = passes_missing = True

    def __init__(
        self, feature_range: Annotated[list[float], pydantic.Field(min_length=2, max_length=2)] = [0.0, 1.0]
    ) -> None:
        if feature_range[0] >= feature_range[1]:
            raise ValueError(f"feature_range is {feature_range}; expected the lower bound first, below the upper")
        self.feature_range = feature_range

    def fit(self, X: Matrix, y: npt.NDArray[Any]) -> None:
        """Learn the smallest and the largest value of each feature; missing values do not count."""
        from sklearn.preprocessing import MinMaxScaler as Fitted

        with _quiet():
            fitted = Fitted(feature_range=tuple(self.feature_range)).fit(_flat(X))
        self.scale = fitted.scale_.reshape(X.shape[1:])
        self.offset = fitted.min_.reshape(X.shape[1:])

    def transform(self, X: Matrix) -> Matrix:
        """Return the rows scaled; values outside what the train part had fall outside the range."""
        scaled: Matrix = X * self.scale.astype(X.dtype, copy=False) + self.offset.astype(X.dtype, copy=False)
        return scaled

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the same names."""
        return names

    def save(self) -> State:
        """Return the scale and the offset."""
        return {"scale": self.scale, "offset": self.offset}

    def restore(self, state: State) -> None:
        """Take back the scale and the offset."""
        self.scale, self.offset = state["scale"], state["offset"]


class Divide(Preprocessor):
    """Divide every value, for example pixels by 255.

    Args:
        factor: What to divide by; not 0.

    Raises:
        ValueError: The factor is 0.
    """

    handles_missing = passes_missing = True

    def __init__(self, factor: float = 255.0) -> None:
        if factor == 0:
            raise ValueError("factor is 0; expected another number to divide by")
        self.factor = factor

    def transform(self, X: Matrix) -> Matrix:
        """Return the rows divided."""
        divided: Matrix = X / X.dtype.type(self.factor)
        return divided

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the same names."""
        return names


class Replace(Preprocessor):
    """Replace one value by another.

    Args:
        from_val: The value to look for; null stands for a missing value.
        to_val: What to put in its place.
    """

    handles_missing = True

    def __init__(self, from_val: float | None, to_val: float) -> None:
        self.from_val, self.to_val = from_val, to_val
        self.passes_missing = from_val is not None

    def transform(self, X: Matrix) -> Matrix:
        """Return the rows with the value replaced."""
        found = np.isnan(X) if self.from_val is None else X.dtype.type(self.from_val) == X
        return np.where(found, X.dtype.type(self.to_val), X)

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the same names."""
        return names


class KBest(Preprocessor):
    """Keep the features that tell most about the target, each taken alone.

    Args:
        k: How many to keep.
        score: How a feature is scored: `"auto"` is `f_classif` for classes and `f_regression` for numbers.
    """

    def __init__(
        self,
        k: Annotated[int, pydantic.Field(ge=1)] = 10,
        score: Literal["auto", "f_classif", "chi2", "f_regression"] = "auto",
    ) -> None:
        self.k, self.score = k, score

    def fit(self, X: Matrix, y: npt.NDArray[Any]) -> None:
        """Learn which features to keep.

        Raises:
            DataError: There are fewer features than that, or several targets.
        """
        from sklearn import feature_selection

        flat = _flat(X)
        if flat.shape[1] < self.k:
            raise DataError(f"kbest: k is {self.k}, and there are {flat.shape[1]} features; keep fewer")
        if y.ndim > 1 and y.shape[1] > 1:
            raise DataError(f"kbest: a feature is scored against one target, and there are {y.shape[1]}")
        score = self.score if self.score != "auto" else ("f_classif" if y.dtype.kind == "i" else "f_regression")
        if score in {"chi2", "f_classif"} and y.dtype.kind != "i":
            raise DataError(f"kbest: the score {score!r} compares classes, and the targets are numbers; use 'auto'")
        if score == "chi2" and flat.min() < 0:
            raise DataError(
                "kbest: the score 'chi2' needs features of at least 0; use 'f_classif', or scale them first"
            )
        with _quiet():
            selected = feature_selection.SelectKBest(getattr(feature_selection, score), k=self.k).fit(flat, y.ravel())
        self.kept = np.flatnonzero(selected.get_support())

    def transform(self, X: Matrix) -> Matrix:
        """Return the features that are kept, shape (rows, k)."""
        return np.ascontiguousarray(_flat(X)[:, self.kept])

    def feature_names(self, names: list[str]) -> list[str]:
        """Return the names of the features that are kept."""
        return [names[position] for position in self.kept]

    def save(self) -> State:
        """Return which features are kept."""
        return {"kept": self.kept}

    def restore(self, state: State) -> None:
        """Take back which features are kept."""
        self.kept = state["kept"]


def _flat(X: Matrix) -> Matrix:
    return X.reshape(len(X), math.prod(X.shape[1:]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Do without numpy's words on features that are constant or have no value: they come out as such."""
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", "Features .* are constant")
        yield


class Pipeline:
    """Preprocessors in a row.

    Args:
        steps: The name that each has in the spec, and the preprocessor.
    """

    def __init__(self, steps: list[tuple[str, Any]]) -> None:
        self.steps = steps

    def fit(self, X: Matrix | Frame, y: npt.NDArray[Any]) -> None:
        """Fit each preprocessor on what those before it make of the train part.

        Raises:
            DataError: A preprocessor cannot take the data; the message says which, and the cause is chained.
        """
        for position, (name, step) in enumerate(self.steps):
            with _Named(position, name):
                X = _as_wanted(step, X)
                if hasattr(step, "fit"):
                    step.fit(X, y)
                if position < len(self.steps) - 1:
                    X = _transformed(step, X)

    def transform(self, X: Matrix | Frame, chunk_size: int | None = None) -> Matrix:
        """Return the rows as numbers for the model, shape (rows, …).

        Args:
            X: Raw rows, as the schema checked them.
            chunk_size: Rows to transform at a time, which bounds the memory for what lies between the steps.
        """
        if chunk_size is None or len(X) <= chunk_size or not self.steps:
            return self._transform(X)
        chunks = [slice(start, start + chunk_size) for start in range(0, len(X), chunk_size)]
        return np.concatenate(
            [self._transform(X.take(chunk) if isinstance(X, Frame) else X[chunk]) for chunk in chunks]
        )

    def _transform(self, X: Matrix | Frame) -> Matrix:
        for position, (name, step) in enumerate(self.steps):
            with _Named(position, name):
                X = _transformed(step, _as_wanted(step, X))
        return X.matrix() if isinstance(X, Frame) else X

    def feature_names(self, names: list[str]) -> list[str] | None:
        """Return what the columns that come out are called; None where a preprocessor makes something new of them."""
        known: list[str] | None = names
        for _, step in self.steps:
            known = step.feature_names(known) if known is not None and hasattr(step, "feature_names") else None
        return known

    @property
    def handles_missing(self) -> bool:
        """Whether missing values may come in: whether some step fills them, or passes them to one that does."""
        for _, step in self.steps:
            if not getattr(step, "handles_missing", False):
                return False
            if not getattr(step, "passes_missing", False):
                return True
        return False


class _Named:
    """Says which preprocessor an error came from."""

    def __init__(self, position: int, name: str) -> None:
        self.place = f"dataset.preprocessors[{position}] ({name})"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GymtrainError):
            raise DataError(f"{self.place}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            raise DataError(f"{self.place}: {type(error).__name__}: {error}") from error


def _as_wanted(step: Any, X: Matrix | Frame) -> Matrix | Frame:
    return X.matrix() if isinstance(X, Frame) and not getattr(step, "takes_frames", False) else X


def _transformed(step: Any, X: Matrix | Frame) -> Matrix | Frame:
    """Return what a preprocessor makes of rows: a frame, or an array of floating-point numbers."""
    rows = len(X)
    result: Matrix | Frame = step.transform(X)
    if not isinstance(result, Frame):
        result = np.asarray(result)
        if result.dtype.kind in "biu":
            result = result.astype(np.float32 if result.dtype.itemsize <= 2 else np.float64)
        if result.dtype.kind != "f" or result.ndim < 2:
            raise DataError(
                f"transform() returned an array of {result.dtype} of shape {result.shape}; expected numbers of shape "
                f"({rows}, …)"
            )
    if len(result) != rows:
        raise DataError(f"{rows} rows went in and {len(result)} came out; a preprocessor keeps every row")
    return result
