"""Dataset types: where the rows come from.

A dataset of one's own is a class whose constructor takes what the spec gives, with one method, `load`, that returns
`Data` or a pair `(X, y)`; `prepare`, if it has one, downloads or converts what `load` then reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from gymtrain.data.frames import Frame, is_frame
from gymtrain.errors import DataError, did_you_mean, some
from gymtrain.specs.fingerprint import is_fingerprint

TaskName = Literal["binary", "multiclass", "multilabel", "regression"]
Text = Annotated[str, pydantic.Field(min_length=1)]
Target = Text | Annotated[list[Text], pydantic.Field(min_length=1)]


@dataclass(frozen=True)
class Data:
    """Rows as a dataset gives them.

    Args:
        X: Features: an array whose first axis is the rows, or anything with named columns.
        y: Targets, shape (rows,) or (rows, outputs); numbers, text or booleans.
        task: What kind of problem it is; None to infer it from `y`.
        groups: For each row the group that it belongs to; None where there are none.
        target_names: The names of the outputs, where `y` has several and they have names.
        left_out: Columns of the source that are no features, because they are targets or weights.
        sample_weight: For each row how much it counts, (rows,); None for all alike.
    """

    X: Any
    y: Any
    task: TaskName | None = None
    groups: Any = None
    target_names: Sequence[str] | None = None
    left_out: Sequence[str] = ()
    sample_weight: Any = None


class Dataset:
    """Base for dataset types, with the part that most of them share: there is nothing to prepare."""

    def prepare(self) -> None:
        """Download or convert what `load` reads. Called once before it, and timed on its own."""

    def load(self) -> Data | tuple[Any, Any]:
        """Return the rows."""
        raise NotImplementedError(f"{type(self).__name__} has no load(); return gymtrain.data.sources.Data or (X, y)")


class Arrays(Dataset):
    """Rows that are in memory already.

    Args:
        X: Features, shape (rows, …): an array, a tensor, a frame or a list.
        y: Targets, shape (rows,) or (rows, outputs).
        task: What kind of problem it is; inferred from `y` when not given.
        groups: For each row its group, for `samples.group_by = "groups"`.
        sample_weight: For each row how much it counts, a number of at least 0.
    """

    def __init__(
        self, X: Any, y: Any, task: TaskName | None = None, groups: Any = None, sample_weight: Any = None
    ) -> None:
        self.X, self.y, self.task, self.groups, self.sample_weight = X, y, task, groups, sample_weight

    def load(self) -> Data:
        """Return the arrays.

        Raises:
            DataError: The spec came from a file, which holds only their fingerprint.
        """
        for name in ("X", "y", "groups", "sample_weight"):
            _refuse_fingerprint(f"dataset.dataset.{name}", getattr(self, name))
        return Data(self.X, self.y, self.task, self.groups, sample_weight=self.sample_weight)


class DataFrame(Dataset):
    """A frame of pandas, polars or pyarrow, one of whose columns is the target.

    Args:
        data: The frame, or a dict of columns, or a list of dicts.
        target: The name of the column to predict; several names for several outputs.
        task: What kind of problem it is; inferred from the target when not given.
        sample_weight: The name of a column that says how much each row counts, a number of at least 0; no feature.
    """

    def __init__(
        self, data: Any, target: Target, task: TaskName | None = None, sample_weight: Text | None = None
    ) -> None:
        self.data, self.target, self.task, self.sample_weight = data, target, task, sample_weight

    def load(self) -> Data:
        """Return the frame without the target, and the target.

        Raises:
            DataError: A column that is named is not there, or the spec came from a file.
        """
        _refuse_fingerprint("dataset.dataset.data", self.data)
        if not is_frame(self.data):
            raise DataError(
                f"dataset.dataset.data: got {type(self.data).__name__}; expected a frame of pandas, polars or "
                f"pyarrow, a dict of columns, or a list of dicts"
            )
        return split_target(Frame.of(self.data), self.target, self.task, self.sample_weight)


class Csv(Dataset):
    """A CSV file with a header.

    Args:
        path: The file.
        target: The name of the column to predict; several names for several outputs.
        task: What kind of problem it is; inferred from the target when not given.
        sample_weight: The name of a column that says how much each row counts, a number of at least 0; no feature.
    """

    def __init__(
        self, path: Text, target: Target, task: TaskName | None = None, sample_weight: Text | None = None
    ) -> None:
        self.path, self.target, self.task, self.sample_weight = path, target, task, sample_weight

    def load(self) -> Data:
        """Read the file.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It is no CSV file, or a column that is named is not in it.
        """
        return split_target(read_table(self.path, "csv"), self.target, self.task, self.sample_weight)


class Parquet(Csv):
    """A Parquet file.

    Args:
        path: The file.
        target: The name of the column to predict; several names for several outputs.
        task: What kind of problem it is; inferred from the target when not given.
        sample_weight: The name of a column that says how much each row counts, a number of at least 0; no feature.
    """

    def load(self) -> Data:
        """Read the file.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It is no Parquet file, or a column that is named is not in it.
        """
        return split_target(read_table(self.path, "parquet"), self.target, self.task, self.sample_weight)


class Digits(Dataset):
    """1797 handwritten digits of 8 by 8 pixels from 0 to 16, ten classes (scikit-learn's copy of the UCI set).

    Args:
        images: Give rows of shape (8, 8) instead of (64,).
    """

    def __init__(self, images: bool = False) -> None:
        self.images = images

    def load(self) -> Data:
        """Return the digits."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Data(digits.images if self.images else digits.data, digits.target, "multiclass")


class Iris(Dataset):
    """150 irises, four measures in centimetres, three species."""

    def load(self) -> Data:
        """Return the flowers."""
        from sklearn.datasets import load_iris

        X, y = load_iris(return_X_y=True)
        return Data(X, y, "multiclass")


class Wine(Dataset):
    """178 wines, thirteen chemical measures, three cultivars."""

    def load(self) -> Data:
        """Return the wines."""
        from sklearn.datasets import load_wine

        X, y = load_wine(return_X_y=True)
        return Data(X, y, "multiclass")


class BreastCancer(Dataset):
    """569 breast tumours, thirty measures of cell nuclei; 0 is malignant, 1 is benign."""

    def load(self) -> Data:
        """Return the tumours."""
        from sklearn.datasets import load_breast_cancer

        X, y = load_breast_cancer(return_X_y=True)
        return Data(X, y, "binary")


class Diabetes(Dataset):
    """442 patients, ten measures, and the progression of their diabetes after a year."""

    def load(self) -> Data:
        """Return the patients."""
        from sklearn.datasets import load_diabetes

        X, y = load_diabetes(return_X_y=True)
        return Data(X, y, "regression")


def split_target(frame: Frame, target: Target, task: TaskName | None, sample_weight: str | None = None) -> Data:
    """Take the target column, or columns, and that of the weights out of a frame.

    Raises:
        DataError: A column is not there, weights are a target too, or no feature is left.
    """
    wanted = [target] if isinstance(target, str) else list(dict.fromkeys(target))
    _check_columns("target", wanted, frame)
    targets = [_target_column(frame, name) for name in wanted]
    left_out, weights = wanted, None
    if sample_weight is not None:
        _check_columns("sample_weight", [sample_weight], frame)
        if sample_weight in wanted:
            raise DataError(f"dataset.dataset.sample_weight: {sample_weight!r} is the target; name another column")
        left_out, weights = [*wanted, sample_weight], frame.columns[sample_weight]
    features = frame.select([name for name in frame.names if name not in left_out])
    if not features.columns:
        beside = "the target" if weights is None else "the target and the weights"
        raise DataError(f"dataset.dataset: the frame has no column beside {beside}; there is nothing to learn from")
    if isinstance(target, str):
        return Data(features, targets[0], task, left_out=left_out, sample_weight=weights)
    if len({column.dtype == object for column in targets}) > 1:
        raise DataError(f"dataset.dataset.target: {some(wanted)} are numbers and text; several targets are of one kind")
    y = np.column_stack(targets)
    return Data(features, y, task, target_names=wanted, left_out=left_out, sample_weight=weights)


def _check_columns(argument: str, names: Sequence[str], frame: Frame) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        hint = did_you_mean(missing[0], frame.names)
        raise DataError(
            f"dataset.dataset.{argument}: there is no column {some(missing)}{hint}; the columns are "
            f"{some(frame.names, limit=20)}"
        )


def _target_column(frame: Frame, name: str) -> npt.NDArray[Any]:
    """Return labels as they were: a frame holds integers and truth values as floats, among which NaN has a place."""
    column = frame.columns[name]
    if column.dtype == object or np.isnan(column).any():
        return column
    if name in frame.truths:
        return column.astype(bool)
    return column.astype(np.int64) if name in frame.wholes else column


def read_table(path: str | Path, kind: Literal["csv", "parquet"]) -> Frame:
    """Read a CSV or Parquet file.

    Args:
        path: The file; `~` is the home directory.
        kind: Its format.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: It is not of that format, or a column is neither numbers nor text.
    """
    import pyarrow

    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a directory" if path.is_dir() else f"is not there (looked in {Path.cwd()})"
        raise FileNotFoundError(f"{str(path)!r} {what}; expected a {kind} file")
    try:
        return Frame.of(_read_parquet(path) if kind == "parquet" else _read_csv(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a {kind} file that can be read: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow's word for a Parquet file that is damaged inside.
        raise DataError(f"{path} is not a {kind} file that can be read: {error}") from error


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet

    # Without `partitioning`, a directory named `year=2024` above the file would become a column.
    return pyarrow.parquet.read_table(path, partitioning=None)


def _read_csv(path: Path) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
    )


def _refuse_fingerprint(place: str, value: Any) -> None:
    if is_fingerprint(value):
        raise DataError(
            f"{place}: the spec was read from a file, which holds the fingerprint of the data and not the data; "
            f"make the trainer with the data itself to train, or load a bundle to predict"
        )
