"""Arrays and images in HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gymtrain.data.image_sources.extras import import_extra
from gymtrain.data.images import Images
from gymtrain.data.sources import Data, Dataset, TaskName, Text
from gymtrain.errors import DataError, did_you_mean, some

_MAY_BE_TEXT = {"targets", "groups"}


class Hdf5(Dataset):
    """Features and targets that are datasets of an HDF5 file; needs the extra `hdf5`.

    Features are numbers of any shape, whose first axis is the rows, or the bytes of image files, one for each row
    (variable-length uint8). Numbers that are stored in one piece and uncompressed are read only where they are used;
    all else is read into memory.

    Args:
        path: The file.
        features: The path of the features in it.
        targets: The path of the targets in it: numbers or text, shape (rows,) or (rows, outputs).
        task: What kind of problem it is; inferred from the targets when not given.
        sample_weight: The path of an array that says how much each row counts, a number of at least 0.
        groups: The path of an array with the group of each row, for `samples.group_by = "groups"`.
    """

    extra: ClassVar[str] = "hdf5"
    package: ClassVar[str] = "h5py"

    def __init__(
        self,
        path: Text,
        features: Text = "X",
        targets: Text = "y",
        task: TaskName | None = None,
        sample_weight: Text | None = None,
        groups: Text | None = None,
    ) -> None:
        self.path, self.features, self.targets = path, features, targets
        self.task, self.sample_weight, self.groups = task, sample_weight, groups

    def load(self) -> Data:
        """Read the file.

        Raises:
            FileNotFoundError: There is no such file.
            MissingDependencyError: h5py is not installed.
            DataError: It is no HDF5 file, or does not have what is named, or that is of a type that is no feature.
        """
        h5py = import_extra(self.package, self.extra)
        path = Path(self.path).expanduser()
        if not path.is_file():
            what = "is a directory" if path.is_dir() else f"is not there (looked in {Path.cwd()})"
            raise FileNotFoundError(f"{str(path)!r} {what}; expected an HDF5 file")
        try:
            with h5py.File(path, "r") as file:
                return Data(
                    self._read(file, "features", self.features),
                    self._read(file, "targets", self.targets),
                    self.task,
                    None if self.groups is None else self._read(file, "groups", self.groups),
                    sample_weight=None
                    if self.sample_weight is None
                    else self._read(file, "sample_weight", self.sample_weight),
                )
        except OSError as error:
            raise DataError(f"{path} is not an HDF5 file that can be read: {error}") from error

    def _read(self, file: Any, argument: str, key: str) -> Any:
        h5py = import_extra(self.package, self.extra)
        found = file.get(key)
        if not isinstance(found, h5py.Dataset):
            known = _names(h5py, file)
            what = "is a group" if found is not None else f"is not there{did_you_mean(key, known)}"
            raise DataError(
                f"dataset.dataset.{argument}: {key!r} {what}; the datasets in {self.path} are {some(known, limit=20)}"
            )
        if not found.shape:
            raise DataError(f"dataset.dataset.{argument}: {key!r} of {self.path} has no rows; expected an array")
        if found.external:
            raise DataError(
                f"dataset.dataset.{argument}: {key!r} of {self.path} lies in other files, {some(found.external)}, that "
                f"whoever made it chose; copy it into one file (h5repack)"
            )
        if h5py.check_string_dtype(found.dtype) is not None and argument in _MAY_BE_TEXT:
            return found.asstr()[:]
        if h5py.check_vlen_dtype(found.dtype) == np.uint8 and argument == "features" and len(found.shape) == 1:
            return Images([each.tobytes() for each in found[:]])
        if found.dtype.kind not in "biuf":
            expected = "numbers or text" if argument in _MAY_BE_TEXT else "numbers"
            raise DataError(
                f"dataset.dataset.{argument}: {key!r} of {self.path} holds {found.dtype}; expected {expected}"
            )
        return _mapped(file, found) if argument == "features" else found[:]


def _mapped(file: Any, found: Any) -> npt.NDArray[Any]:
    """Return the values as they lie in the file, where they do; otherwise in memory."""
    offset = found.id.get_offset()
    # A truth value is a number of an enumeration, and offsets do not count what stands in front of the file.
    if offset is None or file.userblock_size or found.dtype.kind == "b" or not found.dtype.isnative:
        values: npt.NDArray[Any] = found[:]
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.memmap(file.filename, found.dtype, "r", offset, found.shape)


def _names(h5py: Any, file: Any) -> list[str]:
    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(visit)
    return names
