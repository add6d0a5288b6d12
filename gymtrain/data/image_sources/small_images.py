"""Published sets of small images in formats of their own: MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gymtrain.data.downloads import Download
from gymtrain.data.image_sources.published import Published
from gymtrain.data.sources import Data, Text
from gymtrain.errors import DataError

Part = Literal["all", "train", "test"]
Pixels = npt.NDArray[np.uint8]

_SIDE = 28
_MOST_ROWS = 10_000_000


class _Idx(Published):
    """Images and labels in files of the format IDX: one pair of them for training and one for testing."""

    classes: ClassVar[Sequence[str] | None] = None

    def __init__(self, part: Part = "all", data_dir: Text | None = None, force_download: bool = False) -> None:
        super().__init__(data_dir, force_download)
        self.part = part

    def wanted(self) -> tuple[Download, ...]:
        """Return the files of the part: images, labels, images, labels."""
        begins = {"all": ("train", "t10k"), "train": ("train",), "test": ("t10k",)}[self.part]
        return tuple(each for each in self.downloads if each.name.startswith(begins))

    def load(self) -> Data:
        """Return the images, uint8 of shape (rows, 28, 28) with 0 for the background, and their labels.

        Raises:
            DownloadError: They are not there and cannot be fetched.
            DataError: A file is damaged.
        """
        files = [self.fetched(download) for download in self.wanted()]
        images = [read_idx(path, 3) for path in files[0::2]]
        labels = [read_idx(path, 1) for path in files[1::2]]
        for path, pixels, codes in zip(files[0::2], images, labels, strict=True):
            if pixels.shape != (len(codes), _SIDE, _SIDE):
                raise DataError(f"{path}: has the shape {pixels.shape}; expected ({len(codes)}, {_SIDE}, {_SIDE})")
        return Data(np.concatenate(images), _named(np.concatenate(labels), self.classes, files[1]), "multiclass")


def _named(codes: Pixels, classes: Sequence[str] | None, path: Path) -> npt.NDArray[np.generic]:
    if codes.size and codes.max() > 9:
        raise DataError(f"{path}: has the label {codes.max()}; expected 0 to 9")
    return codes.astype(np.int64) if classes is None else np.array(classes)[codes]


def _idx_files(folder: str, places: tuple[str, ...], files: dict[str, tuple[str, int]]) -> tuple[Download, ...]:
    return tuple(Download(f"{folder}{name}-ubyte.gz", places, *known) for name, known in files.items())


class Mnist(_Idx):
    """70,000 handwritten digits of 28 by 28 pixels, labels 0 to 9.

    Of Yann LeCun, Corinna Cortes and Christopher Burges (11 MiB, CC BY-SA 3.0), from the copies of the PyTorch and
    TensorFlow projects. The rows of the train part come first.

    Args:
        part: `"train"` (60,000) and `"test"` (10,000) are the publishers' parts, `"all"` is the one after the other.
        data_dir: The directory for downloaded data; by default `GYMTRAIN_DATA`, or `gymtrain` in the user's cache.
        force_download: Download again what is there already.
    """

    downloads = _idx_files(
        "",
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        {
            "train-images-idx3": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
            "train-labels-idx1": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
            "t10k-images-idx3": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
            "t10k-labels-idx1": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
        },
    )
    folder = "mnist"


class FashionMnist(_Idx):
    """70,000 pictures of clothes of 28 by 28 pixels, labels "T-shirt/top", "Trouser" and eight others.

    Of Zalando Research (29 MiB, MIT license). The rows of the train part come first.

    Args:
        part: `"train"` (60,000) and `"test"` (10,000) are the publishers' parts, `"all"` is the one after the other.
        data_dir: The directory for downloaded data; by default `GYMTRAIN_DATA`, or `gymtrain` in the user's cache.
        force_download: Download again what is there already.
    """

    # The files are called like those of MNIST.
    downloads = _idx_files(
        "fashion-mnist/",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        {
            "train-images-idx3": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
            "train-labels-idx1": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
            "t10k-images-idx3": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
            "t10k-labels-idx1": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
        },
    )
    folder = "fashion_mnist"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


class Cifar10(Published):
    """60,000 photos of 32 by 32 pixels in colour, labels "airplane", "automobile" and eight others.

    Of Alex Krizhevsky, Vinod Nair and Geoffrey Hinton (162 MiB; its page names no license), in the binary version: the
    one for Python is a pickle. The rows of the train part come first.

    Args:
        part: `"train"` (50,000) and `"test"` (10,000) are the publishers' parts, `"all"` is the one after the other.
        data_dir: The directory for downloaded data; by default `GYMTRAIN_DATA`, or `gymtrain` in the user's cache.
        force_download: Download again what is there already.
    """

    downloads = (
        Download(
            "cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz",),
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    )
    folder = "cifar10"
    packed = True
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, part: Part = "all", data_dir: Text | None = None, force_download: bool = False) -> None:
        super().__init__(data_dir, force_download)
        self.part = part

    def load(self) -> Data:
        """Return the photos, uint8 of shape (rows, 32, 32, 3), and their labels.

        Raises:
            DownloadError: They are not there and cannot be fetched.
            DataError: A file is missing or damaged.
        """
        root = self.fetched(self.downloads[0]) / "cifar-10-batches-bin"
        train = [f"data_batch_{number}.bin" for number in range(1, 6)]
        names = {"all": [*train, "test_batch.bin"], "train": train, "test": ["test_batch.bin"]}[self.part]
        records = [_read_records(root / name) for name in names]
        labels = [_named(each[:, 0], self.classes, root / name) for name, each in zip(names, records, strict=True)]
        # Each colour by itself, as they are stored, and then beside one another.
        pixels = [each[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for each in records]
        return Data(np.ascontiguousarray(np.concatenate(pixels)), np.concatenate(labels), "multiclass")


def _read_records(path: Path) -> Pixels:
    if not path.is_file():
        raise DataError(
            f"{path}: is not there; expected the files of the archive, data_batch_1.bin and others; "
            f"force_download=True fetches them again"
        )
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % 3073:
        raise DataError(f"{path}: has {len(content)} bytes; expected records of 3073, a label and 32 x 32 x 3 pixels")
    return content.reshape(-1, 3073)


def read_idx(path: Path, dimensions: int) -> Pixels:
    """Read a file in the format IDX, compressed with gzip.

    Args:
        path: The file.
        dimensions: How many it has to have.

    Returns:
        uint8, with so many dimensions.

    Raises:
        DataError: It is not of that format, of another type than uint8, truncated, or has more than it says.
    """
    try:
        with gzip.open(path) as file:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
                raise DataError(f"{path}: begins with {head[:4]!r}; expected IDX, uint8 of {dimensions} dimensions")
            shape = tuple(np.frombuffer(head[4:], ">u4").tolist())
            size = int(np.prod(shape, dtype=object))
            if size > _MOST_ROWS * _SIDE * _SIDE:
                raise DataError(f"{path}: says that it has the shape {shape}, which is larger than any that is known")
            content = file.read(size + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: is damaged: {error}; force_download=True fetches it again") from error
    if len(content) != size:
        more = "more" if len(content) > size else f"{len(content)}"
        raise DataError(f"{path}: says that it has {size} bytes of shape {shape}, and has {more}")
    return np.frombuffer(content, np.uint8).reshape(shape)
