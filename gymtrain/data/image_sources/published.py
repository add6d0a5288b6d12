"""Data sets that somebody publishes: what they have in common, and cats and dogs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import numpy as np

from gymtrain.data.downloads import Download, fetch, fetch_archive
from gymtrain.data.home import data_home
from gymtrain.data.image_sources.folder import image_files
from gymtrain.data.images import Images
from gymtrain.data.sources import Data, Dataset, Text
from gymtrain.errors import DataError, some

logger = logging.getLogger(__name__)


class Published(Dataset):
    """Base for data sets that are downloaded.

    Args:
        data_dir: The directory for downloaded data.
        force_download: Download again what is there already.
    """

    downloads: ClassVar[tuple[Download, ...]] = ()
    """What is downloaded."""
    folder: ClassVar[str] = ""
    """Where it is kept, in the directory for downloaded data."""
    packed: ClassVar[bool] = False
    """Whether the files are archives, of which the content alone is kept."""

    def __init__(self, data_dir: Text | None = None, force_download: bool = False) -> None:
        self.data_dir, self.force_download = data_dir, force_download
        self._fetched: dict[Download, Path] = {}

    def prepare(self) -> None:
        """Download what is not there yet.

        Raises:
            DownloadError: A file cannot be fetched.
            DataError: An archive cannot be extracted.
        """
        for download in self.wanted():
            self.fetched(download)

    def wanted(self) -> tuple[Download, ...]:
        """Return those of `downloads` that `load` reads."""
        return self.downloads

    def fetched(self, download: Download) -> Path:
        """Return the file, or the directory with what is in it, which is downloaded unless it is there."""
        if download not in self._fetched:
            get = fetch_archive if self.packed else fetch
            folder = data_home(self.data_dir) / self.folder
            self._fetched[download] = get(download, folder, force=self.force_download)
        return self._fetched[download]


class DogsVsCats(Published):
    """25,000 photos of dogs and cats of all sizes, as JPEG, half of them each; labels "cat" and "dog".

    The training set of Kaggle's competition of 2013, as Microsoft Research publishes it (the Asirra data set, 787 MiB;
    its terms come with it, for research). About a dozen of its files are empty or no JPEG, `Cat/666.jpg` and
    `Dog/11702.jpg` among them: they are left out, and counted in a line of the log.

    Args:
        data_dir: The directory for downloaded data; by default `GYMTRAIN_DATA`, or `gymtrain` in the user's cache.
        force_download: Download again what is there already.
    """

    downloads = (
        Download(
            "kagglecatsanddogs_5340.zip",
            ("https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F",),
            "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
            824_887_076,
        ),
    )
    folder = "dogs_vs_cats"
    packed = True

    def load(self) -> Data:
        """Look for the photos; none is decoded yet.

        Raises:
            DownloadError: They are not there and cannot be fetched.
            DataError: The archive does not have what is expected.
        """
        root = self.fetched(self.downloads[0]) / "PetImages"
        paths: list[str] = []
        labels: list[str] = []
        left_out: list[str] = []
        for label in ("cat", "dog"):
            folder = root / label.title()
            files = image_files(folder)[0] if folder.is_dir() else []
            photos = [path for path in files if _is_jpeg(path)]
            if not photos:
                raise DataError(
                    f"{folder}: there are no photos; expected those of the archive, PetImages/Cat/0.jpg …; "
                    f"force_download=True fetches them again"
                )
            left_out += sorted(set(files) - set(photos))
            paths += photos
            labels += [label] * len(photos)
        if left_out:
            logger.warning(
                "dogs_vs_cats: %d of %d files are empty or no JPEG, and are left out: %s",
                len(left_out),
                len(left_out) + len(paths),
                some(left_out, limit=2),
            )
        return Data(Images(paths), np.array(labels), "binary")


def _is_jpeg(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == b"\xff\xd8\xff"
