"""Images that lie in folders, or are named by a table."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gymtrain.data.frames import Frame
from gymtrain.data.images import SUFFIXES, Images
from gymtrain.data.sources import Data, Dataset, Target, TaskName, Text, read_table, split_target
from gymtrain.errors import DataError, did_you_mean, some

# What systems put beside files, hidden there or not.
_ASIDE = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class ImageFolder(Dataset):
    """Images in a folder for each class, which are named by it: `photos/cat/1.jpg`, `photos/dog/2019/7.png`.

    Files are taken in natural order, `2.jpg` before `10.jpg`, also from folders below those of the classes. Hidden
    files are left out; files that do not end as images do, and such as lie beside the folders of the classes, are left
    out with a warning. Links are followed, but for those that lead back up.

    Args:
        path: The folder that holds the folders of the classes.
    """

    def __init__(self, path: Text) -> None:
        self.path = path

    def load(self) -> Data:
        """Look for the images; none is opened yet.

        Raises:
            FileNotFoundError: There is no such folder.
            DataError: There are no two classes, one has no image, or two differ by upper and lower case alone.
        """
        root = Path(self.path).expanduser()
        if not root.is_dir():
            what = "is a file" if root.exists() else f"is not there (looked in {Path.cwd()})"
            raise FileNotFoundError(f"{str(root)!r} {what}; expected a folder with a folder for each class")
        names = sorted(
            (each.name for each in root.iterdir() if each.is_dir() and not _is_hidden(each.name)), key=natural
        )
        beside = [str(each) for each in root.iterdir() if not each.is_dir() and not _is_hidden(each.name)]
        _check_classes(root, names, beside)
        found = {name: image_files(root / name) for name in names}
        empty = [name for name, (images, _) in found.items() if not images]
        if empty:
            raise DataError(
                f"{root}: there is no image in the folders {some(empty)}; every class needs some: remove the folders, "
                f"or put images in (files that end in {', '.join(sorted(SUFFIXES))})"
            )
        _warn_of_rest([*beside, *(other for _, others in found.values() for other in others)])
        _warn_of_single([name for name, (images, _) in found.items() if len(images) == 1])
        paths = [path for images, _ in found.values() for path in images]
        labels = np.repeat(names, [len(images) for images, _ in found.values()])
        return Data(Images(paths), labels, "binary" if len(names) == 2 else "multiclass")


def _check_classes(root: Path, names: Sequence[str], beside: Sequence[str]) -> None:
    if len(names) < 2:
        there = f"the folders {some(names)}" if names else f"{len(beside)} files and no folder" if beside else "nothing"
        raise DataError(f"{root}: has {there}; expected a folder for each class, and at least two of them")
    alike: dict[str, list[str]] = {}
    for name in names:
        if not name.isprintable():
            raise DataError(f"{root}: the folder {name!r} has a name that is no text; rename it, it names a class")
        alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    double = [each for each in alike.values() if len(each) > 1]
    if double:
        raise DataError(
            f"{root}: the folders {some(double[0])} differ by upper and lower case or by how letters are encoded; they "
            f"would be different classes: make one of them, or give them other names"
        )


def _warn_of_rest(others: Sequence[str]) -> None:
    if others:
        files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
        warnings.warn(
            f"{files} left out, because no image ends so or it lies in no class: {some(others)}", stacklevel=3
        )


def _warn_of_single(names: Sequence[str]) -> None:
    if names:
        warnings.warn(f"there is one image only of {some(names)}, in one part of the data alone", stacklevel=3)


class ImageCsv(Dataset):
    """Images whose paths and labels are columns of a CSV file.

    Args:
        path: The CSV file, with a header.
        label_column: The name of the column to predict; several names for several outputs.
        path_column: The name of the column with the paths of the images.
        root: The folder that relative paths start from; by default the one that the CSV file lies in.
        task: What kind of problem it is; inferred from the labels when not given.
        sample_weight: The name of a column that says how much each row counts, a number of at least 0.
        groups: The name of a column with the group of each row, a patient or a camera, for `samples.group_by =
            "groups"`.
    """

    def __init__(
        self,
        path: Text,
        label_column: Target = "label",
        path_column: Text = "path",
        root: Text | None = None,
        task: TaskName | None = None,
        sample_weight: Text | None = None,
        groups: Text | None = None,
    ) -> None:
        self.path, self.label_column, self.path_column = path, label_column, path_column
        self.root, self.task, self.sample_weight, self.groups = root, task, sample_weight, groups

    def load(self) -> Data:
        """Read the table; no image is opened yet.

        Raises:
            FileNotFoundError: There is no such table.
            DataError: It is no CSV file, a column that is named is not in it, or an image is not there.
        """
        table = read_table(self.path, "csv")
        self._check_column(table, "path_column", self.path_column)
        if self.groups is not None:
            self._check_column(table, "groups", self.groups)
        data = split_target(table, self.label_column, self.task, self.sample_weight)
        if self.path_column in data.left_out:
            raise DataError(
                f"dataset.dataset.path_column: {self.path_column!r} is the target or the weights; name another column"
            )
        root = Path(self.root).expanduser() if self.root else Path(self.path).expanduser().parent
        images = Images(self._paths(data.X.columns[self.path_column].tolist(), root))
        groups = None if self.groups is None else table.columns[self.groups].tolist()
        return Data(images, data.y, self.task, groups, data.target_names, sample_weight=data.sample_weight)

    def _check_column(self, table: Frame, argument: str, name: str) -> None:
        if name not in table.columns:
            raise DataError(
                f"dataset.dataset.{argument}: there is no column {name!r}{did_you_mean(name, table.names)}; the "
                f"columns are {some(table.names, limit=20)}"
            )

    def _paths(self, given: list[object], root: Path) -> list[str]:
        odd = next((row for row, value in enumerate(given) if not isinstance(value, str)), None)
        if odd is not None:
            what = "nothing" if given[odd] in (None, "") or given[odd] != given[odd] else repr(given[odd])
            raise DataError(f"{self.path}: row {odd} has {what} in the column {self.path_column!r}; expected a path")
        paths = [os.path.join(root, os.path.expanduser(str(value))) for value in given]
        # Some that are not there are bad samples, as others are; of all of them something else is wrong.
        if paths and not any(map(os.path.isfile, paths)):
            raise DataError(
                f"{self.path}: none of its {len(paths)} images is there, {some(paths)}; relative paths start from "
                f"{str(root)!r}, which the argument 'root' changes"
            )
        return paths


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below a folder that end as images do, and those that do not, each in natural order.

    Hidden files and folders are left out. Links are followed, but for those that lead back up, and each folder is
    looked into once.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("10.jpg", "2.PNG", "notes.txt", ".hidden.png"):
        ...     (folder / name).touch()
        >>> images, others = image_files(folder)
        >>> [Path(path).name for path in images], [Path(path).name for path in others]
        (['2.PNG', '10.jpg'], ['notes.txt'])
    """
    images: list[str] = []
    others: list[str] = []
    for path in _files(str(folder), [], set()):
        (images if os.path.splitext(path)[1].lower() in SUFFIXES else others).append(path)
    return images, others


def _files(folder: str, above: list[str], seen: set[str]) -> Iterator[str]:
    place = os.path.realpath(folder)
    if place in seen:
        return
    seen.add(place)
    inside = [*above, place]
    for name in sorted((name for name in os.listdir(folder) if not _is_hidden(name)), key=natural):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            yield path
        elif not os.path.islink(path) or not any(each.startswith(_inside(os.path.realpath(path))) for each in inside):
            yield from _files(path, inside, seen)


def _inside(folder: str) -> str:
    return os.path.join(folder, "")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _ASIDE


def natural(name: str) -> list[tuple[int, str]]:
    """Return what to sort names by so that numbers in them count as such.

    Example:
        >>> sorted(["10.jpg", "9.jpg", "a.jpg"], key=natural)
        ['9.jpg', '10.jpg', 'a.jpg']
    """
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
