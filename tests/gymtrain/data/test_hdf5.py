from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import pytest

from gymtrain.data.image_sources.hdf5 import Hdf5
from gymtrain.data.images import Images
from gymtrain.errors import DataError, MissingDependencyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.h5"


def load(path: Path, **arguments: Any) -> Any:
    return Hdf5(str(path), **arguments).load()


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 2, 2, 3), "compression": "gzip"}], ids=["whole", "compressed"])
def test_images_that_are_arrays_are_read(path: Path, options: dict[str, Any]) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=pixels, **options)
        file["y"] = ["cat", "dog", "cat", "dög"]

    data = load(path)

    np.testing.assert_array_equal(data.X, pixels)
    assert data.X.dtype == np.uint8
    assert isinstance(data.X, np.memmap) == (not options)
    assert data.y.tolist() == ["cat", "dog", "cat", "dög"]


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", "i8", "?"])
def test_numbers_of_any_type_are_read(path: Path, dtype: str) -> None:
    values = np.array([[0, 1], [1, 0]], dtype)
    with h5py.File(path, "w", userblock_size=512 if dtype == "i8" else 0) as file:
        file["group/values"] = values
        file["group/price"] = [1.5, 2.5]
        file["weights"] = [1, 2]
        file["owners"] = ["Ana", "Rui"]

    places = {"features": "group/values", "targets": "group/price", "sample_weight": "weights", "groups": "owners"}
    data = load(path, task="regression", **places)

    np.testing.assert_array_equal(data.X, values)
    assert data.X.dtype.isnative
    assert (data.y.tolist(), data.sample_weight.tolist(), data.task) == ([1.5, 2.5], [1, 2], "regression")
    assert data.groups.tolist() == ["Ana", "Rui"]


def test_files_of_images_are_images(path: Path) -> None:
    encoded = []
    for width in (5, 9):
        PIL.Image.new("RGB", (width, 4)).save(file := io.BytesIO(), "PNG")
        encoded.append(file.getvalue())
    with h5py.File(path, "w") as file:
        photos = file.create_dataset("photos", (2,), h5py.vlen_dtype(np.uint8))
        photos[0], photos[1] = (np.frombuffer(each, np.uint8) for each in encoded)
        file["labels"] = [0, 1]

    data = load(path, features="photos", targets="labels")

    assert isinstance(data.X, Images)
    assert [data.X.decode(row).width for row in range(2)] == [5, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"features": "x"},
            r"^dataset\.dataset\.features: 'x' is not there; did you mean 'X'\?; the datasets in .* are 'X',",
        ),
        ({"features": "group"}, r"features: 'group' is a group; the datasets in .* are 'X', 'group/y'"),
        ({"features": "one"}, r"features: 'one' of .* has no rows; expected an array"),
        ({"features": "words"}, r"features: 'words' of .* holds object; expected numbers$"),
        ({"targets": "table"}, r"targets: 'table' of .* holds \[\('a', '<i8'\)\]; expected numbers or text$"),
        ({"sample_weight": "w"}, r"sample_weight: 'w' is not there"),
    ],
)
def test_what_is_not_in_the_file_is_told_of(path: Path, arguments: dict[str, str], message: str) -> None:
    with h5py.File(path, "w") as file:
        file["X"], file["group/y"], file["one"], file["words"] = [[1.0], [2.0]], [0, 1], 3.0, ["a", "b"]
        file["table"] = np.array([(1,), (2,)], [("a", "<i8")])

    with pytest.raises(DataError, match=message):
        load(path, **{"targets": "group/y", **arguments})


def test_a_file_that_is_none_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"rows\.h5' is not there \(looked in .*\); expected an HDF5 file"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"' is a directory; expected an HDF5 file"):
        load(tmp_path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"rows\.h5 is not an HDF5 file that can be read: .*signature not found"):
        load(path)
    with h5py.File(path, "w") as file:
        file["X"] = np.zeros((1000, 10))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"rows\.h5 is not an HDF5 file that can be read: .*truncated"):
        load(path)


def test_h5py_is_asked_for_where_it_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)

    with pytest.raises(MissingDependencyError, match=r"needs the package h5py, .*; pip install 'gymtrain\[hdf5\]'"):
        load(path)
