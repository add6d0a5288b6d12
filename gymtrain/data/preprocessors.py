"""Preprocessors: what is done to every row, as learned from the train part.

What scikit-learn fits is kept as the numbers that it found, and applied with numpy: a bundle then holds a mean and not
an object, reads the same in any later version, and one row costs microseconds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.frames import Frame
from gymtrain.data.images import Images
from gymtrain.data.rows import Rows, taken
from gymtrain.errors import DataError, GymtrainError

if TYPE_CHECKING:
    from torch import Tensor

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
    # Whether it works on pictures of any size, and on arrays of pixels as they are (`PicturePreprocessor`).
    takes_pictures = False
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

    def transform_batch(self, images: Tensor) -> Tensor:
        """Return float32 images divided, the same numbers as `transform` gives."""
        return images / self.factor

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

    @cached_property
    def picture_steps(self) -> list[Any]:
        """What is done to pictures when they are decoded: the preprocessors at the head that work on one at a time."""
        return [step for _, step in takewhile(lambda item: getattr(item[1], "takes_pictures", False), self.steps)]

    @cached_property
    def late(self) -> int:
        """From which step on all are elementwise, and can be done to batches of images (`transform_batch`)."""
        late = len(self.steps)
        while late and hasattr(self.steps[late - 1][1], "transform_batch"):
            late -= 1
        return late

    def fit(self, X: Any, y: npt.NDArray[Any]) -> None:
        """Fit each preprocessor on what those before it make of the train part.

        Args:
            X: Raw rows, or images that were decoded, with which the picture steps are done.
            y: Targets as numbers.

        Raises:
            DataError: A preprocessor cannot take the data; the message says which, and the cause is chained.
        """
        for position, (name, step) in self._steps(X):
            with _Named(position, name):
                is_late = position >= self.late and (isinstance(X, ImageArray | _Late) or _is_pixels(X))
                wanted = X if is_late else _as_wanted(step, X)
                if hasattr(step, "fit"):
                    step.fit(wanted, y)
                if position < len(self.steps) - 1:
                    X = _Late(wanted, step) if is_late else _transformed(step, wanted)

    def transform(self, X: Rows, chunk_size: int | None = None, *, upto: int | None = None) -> Matrix:
        """Return the rows as numbers for the model, shape (rows, …).

        Args:
            X: Raw rows, as the schema checked them, or images that were decoded, with which the picture steps are done.
            chunk_size: Rows to transform at a time, which bounds the memory for what lies between the steps.
            upto: At which step to end; all are done when not given.

        Raises:
            DataError: A preprocessor cannot take the rows, or they are images of different sizes.
        """
        if chunk_size is None or len(X) <= chunk_size or not self.steps:
            return self._transform(X, upto)
        chunks = [slice(start, start + chunk_size) for start in range(0, len(X), chunk_size)]
        return np.concatenate([self._transform(taken(X, chunk), upto) for chunk in chunks])

    def transform_batch(self, images: Tensor) -> Tensor:
        """Do to a batch of images, float32 of shape (rows, height, width, …), what is left from step `late` on."""
        for _, step in self.steps[self.late :]:
            images = step.transform_batch(images)
        return images

    def _transform(self, X: Rows, upto: int | None) -> Matrix:
        if isinstance(X, Images):
            X = ImageArray(Decoder(X, self.picture_steps)[:])
        for position, (name, step) in self._steps(X):
            if upto is None or position < upto:
                with _Named(position, name):
                    X = _transformed(step, _as_wanted(step, X))
        if isinstance(X, ImageArray):
            return X[:]
        return X.matrix() if isinstance(X, Frame) else X

    def _steps(self, X: Rows) -> Iterator[tuple[int, tuple[str, Any]]]:
        """Yield the steps that are still to be done, with their positions."""
        done = len(self.picture_steps) if isinstance(X, ImageArray) else 0
        return islice(enumerate(self.steps), done, None)

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


class _Late:
    """What an elementwise step makes of images, worked out for rows when they are looked at: all take four times more.

    Args:
        images: uint8 or float32 of shape (rows, height, width, …), or what has their rows.
        step: The step.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, images: Any, step: Any) -> None:
        self.images, self.step, self.shape = images, step, images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Matrix:
        changed: Matrix = self.step.transform(np.asarray(self.images[rows], dtype=np.float32))
        return changed


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


def _as_wanted(step: Any, X: Rows) -> Matrix | Frame:
    assert not isinstance(X, Images)
    if isinstance(X, Frame):
        return X if getattr(step, "takes_frames", False) else X.matrix()
    pixels = X[:] if isinstance(X, ImageArray) else X
    if pixels.dtype == np.uint8 and not getattr(step, "takes_pictures", False):
        return pixels.astype(np.float32)
    return pixels


def _transformed(step: Any, X: Matrix | Frame) -> Matrix | Frame:
    """Return what a preprocessor makes of rows: a frame, or an array of floating-point numbers."""
    rows = len(X)
    result: Matrix | Frame = step.transform(X)
    if not isinstance(result, Frame):
        result = np.asarray(result)
        if result.dtype.kind in "biu" and not _is_pixels(result):
            result = result.astype(np.float32 if result.dtype.itemsize <= 2 else np.float64)
        if not (result.dtype.kind == "f" or _is_pixels(result)) or result.ndim < 2:
            raise DataError(
                f"transform() returned an array of {result.dtype} of shape {result.shape}; expected numbers of shape "
                f"({rows}, …)"
            )
    if len(result) != rows:
        raise DataError(f"{rows} rows went in and {len(result)} came out; a preprocessor keeps every row")
    return result


def _is_pixels(rows: Any) -> bool:
    return isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim in (3, 4)
