"""Data sets of the Hub of Hugging Face, or in its layouts on the disk."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic

from gymtrain.data.frames import Frame
from gymtrain.data.home import data_home
from gymtrain.data.image_sources.extras import import_extra
from gymtrain.data.images import Images
from gymtrain.data.sources import Data, Dataset, Target, TaskName, Text, split_target
from gymtrain.errors import DataError, DownloadError, did_you_mean, some

Columns = Annotated[list[Text], pydantic.Field(min_length=1)]


class HuggingFace(Dataset):
    """A data set of the Hub of Hugging Face, of images or of columns; needs the extra `datasets`.

    A folder on this machine does as well: of images in a folder for each class, of Parquet or CSV files. Nothing that
    the data set brings is run: those that come as a program are refused.

    Args:
        name: Its name, such as `"ylecun/mnist"`, or the path of a folder.
        label_column: The name of the column to predict; several names for several outputs. Labels that have names
            there are these names.
        image_column: The name of the column of images; by default the only one, where there is one.
        feature_columns: The names of the columns of features, where there are no images; by default all others.
        config: Which of several configurations it is.
        split: Which part of it is read, such as `"train"`, `"train[:10%]"` or `"train+test"`.
        revision: The version: a commit, a tag or a branch.
        task: What kind of problem it is; inferred from the labels when not given.
        data_dir: The directory for downloaded data; by default `GYMTRAIN_DATA`, or `gymtrain` in the user's cache.
    """

    extra: ClassVar[str] = "datasets"
    package: ClassVar[str] = "datasets"
    folder: ClassVar[str] = "huggingface"

    def __init__(
        self,
        name: Text,
        label_column: Target = "label",
        image_column: Text | None = None,
        feature_columns: Columns | None = None,
        config: Text | None = None,
        split: Text = "train",
        revision: Text | None = None,
        task: TaskName | None = None,
        data_dir: Text | None = None,
    ) -> None:
        self.name, self.label_column, self.image_column = name, label_column, image_column
        self.feature_columns, self.config, self.split = feature_columns, config, split
        self.revision, self.task, self.data_dir = revision, task, data_dir
        self._table: Any = None

    def prepare(self) -> None:
        """Download what is not there yet.

        Raises:
            MissingDependencyError: The package datasets is not installed.
            DownloadError: The Hub cannot be reached.
            DataError: There is no such data set.
        """
        if self._table is not None:
            return
        datasets = import_extra(self.package, self.extra)
        local = Path(self.name).expanduser()
        try:
            with _quietly(datasets):
                self._table = datasets.load_dataset(
                    str(local) if local.exists() else self.name,
                    self.config,
                    split=self.split,
                    revision=self.revision,
                    cache_dir=str(data_home(self.data_dir) / self.folder),
                )
        except ConnectionError as error:
            raise DownloadError(f"dataset.dataset.name: {self.name!r} cannot be fetched: {error}") from error
        # Its own errors are built-in ones of all kinds.
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"dataset.dataset: {self.name!r} cannot be loaded: {error}") from error

    def load(self) -> Data:
        """Read the data set; images are not decoded yet.

        Raises:
            MissingDependencyError: The package datasets is not installed.
            DownloadError: The Hub cannot be reached.
            DataError: There is no such data set, or a column that is named is not in it.
        """
        self.prepare()
        labels = [self.label_column] if isinstance(self.label_column, str) else self.label_column
        self._check_columns("label_column", labels)
        image_column = self._image_column()
        if image_column is None:
            names = self.feature_columns or [name for name in self._table.column_names if name not in labels]
            self._check_columns("feature_columns", names)
            columns = self._columns([*names, *labels])
            return split_target(Frame.of(columns), self.label_column, self.task)
        # The number of a row stands for its image, until the labels are told from the rest.
        columns = {**self._columns(labels), image_column: list(range(len(self._table)))}
        data = split_target(Frame.of(columns), self.label_column, self.task)
        return Data(Images(self._encoded(image_column)), data.y, self.task, target_names=data.target_names)

    def _check_columns(self, argument: str, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in self._table.column_names]
        if missing:
            raise DataError(
                f"dataset.dataset.{argument}: there is no column {some(missing)}"
                f"{did_you_mean(missing[0], self._table.column_names)}; the columns of {self.name!r} are "
                f"{some(self._table.column_names, limit=20)}"
            )

    def _image_column(self) -> str | None:
        if self.feature_columns is not None:
            return None
        datasets = import_extra(self.package, self.extra)
        images = [name for name, kind in self._table.features.items() if isinstance(kind, datasets.Image)]
        if self.image_column is None:
            if len(images) > 1:
                raise DataError(f"dataset.dataset.image_column: {self.name!r} has several, {some(images)}; name one")
            return images[0] if images else None
        self._check_columns("image_column", [self.image_column])
        if self.image_column not in images:
            kind = type(self._table.features[self.image_column]).__name__
            raise DataError(f"dataset.dataset.image_column: {self.image_column!r} holds {kind}; expected images")
        return self.image_column

    def _columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        table = self._table.select_columns(list(dict.fromkeys(names))).with_format("arrow")[:]
        return {name: self._named(name, table[name].to_pylist()) for name in table.column_names}

    def _named(self, column: str, values: list[Any]) -> list[Any]:
        names = getattr(self._table.features[column], "names", None)
        if names is None:
            return values
        bad = [row for row, value in enumerate(values) if value is None or not 0 <= value < len(names)]
        if bad:
            raise DataError(
                f"dataset.dataset: {len(bad)} rows of the split {self.split!r} of {self.name!r} have no {column!r}, "
                f"the first is row {bad[0]}; its publisher may keep it: take another split"
            )
        return [names[value] for value in values]

    def _encoded(self, column: str) -> list[Any]:
        datasets = import_extra(self.package, self.extra)
        table = self._table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        images = []
        for row, each in enumerate(table.with_format("arrow")[:][column].to_pylist()):
            if each is None or (each["bytes"] is None and each["path"] is None):
                raise DataError(f"dataset.dataset: row {row} of {self.name!r} has no image in the column {column!r}")
            images.append(self._inside(each["path"], row) if each["bytes"] is None else each["bytes"])
        return images

    def _inside(self, path: str, row: int) -> str:
        """Return a path that rows of somebody else's name, if it is one of the data set's own files.

        Raises:
            DataError: It leads elsewhere on this machine.
        """
        datasets = import_extra(self.package, self.extra)
        homes = [self.name, datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE]
        place = Path(path).resolve()
        if not any(place.is_relative_to(Path(home).expanduser().resolve()) for home in homes):
            raise DataError(
                f"dataset.dataset: row {row} of {self.name!r} names the file {path!r}, which is not its own; images "
                f"belong into its folder or its rows"
            )
        return path


@contextlib.contextmanager
def _quietly(datasets: Any) -> Iterator[None]:
    """Show bars on a terminal alone."""
    if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
