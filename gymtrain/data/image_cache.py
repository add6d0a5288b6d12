"""Decoded images on disk, so that they are decoded once and not in every epoch and every run."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.images import BadImageError

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far something is: given what it is and of how many rows, it is told how many are done."""

_PIXELS, _BAD = "pixels.npy", "bad.json"


def quiet(text: str, rows: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    return nullcontext(lambda done: None)


class ImageCache:
    """A directory of decoded images, shared by all processes of a user: each set is written whole or not at all.

    Args:
        directory: Where they lie; it need not be there yet.
        limit: How many bytes they may take together; those that were used longest ago are removed to make room.

    Example:
        >>> import tempfile
        >>> from gymtrain.data.image_preprocessors import ImageResize
        >>> from gymtrain.data.images import Images
        >>> pictures = Images([np.zeros((9, 9, 3), np.uint8), b"no image"])
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     cache = ImageCache(Path(directory), limit=1e6)
        ...     pixels, bad = cache.decoded(Decoder(pictures, [ImageResize(2, 2)]))
        >>> pixels.shape, bad
        ((2, 2, 2, 3), {1: 'row 1 (bytes): is no image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF)'})
    """

    def __init__(self, directory: Path, limit: float) -> None:
        self.directory, self.limit = directory, limit

    def decoded(self, decoder: Decoder, progress: Progress = quiet) -> tuple[ImageArray, dict[int, str]]:
        """Return the pixels of a decoder, out of the cache if they are there, else into it.

        Where there is no room for them they are decoded whenever they are looked at; now only the beginning of each
        file is read, or all of it where the bad ones may be skipped.

        Returns:
            The pixels, and what is wrong with each row that cannot be decoded.

        Raises:
            DataError: The images differ in size, or none can be decoded.
        """
        size = int(np.prod(decoder.shape))
        if size > self.limit:
            return ImageArray(decoder), _bad(decoder, progress)
        try:
            return self._decoded(decoder, size, progress)
        except OSError as error:
            warnings.warn(
                f"images are decoded in every epoch, because {size / 1e6:.0f} MB cannot be kept in "
                f"{str(self.directory)!r}: {error.strerror or error}; set GYMTRAIN_DATA to a directory with room",
                stacklevel=2,
            )
            return ImageArray(decoder), _bad(decoder, progress)

    def _decoded(self, decoder: Decoder, size: int, progress: Progress) -> tuple[ImageArray, dict[int, str]]:
        from filelock import FileLock

        self.directory.mkdir(parents=True, exist_ok=True)
        place = self.directory / decoder.key()
        with FileLock(f"{place}.lock"):
            if not (place / _BAD).exists():
                self._make_room(size)
                self._write(decoder, place, size, progress)
            os.utime(place)
            pixels = np.load(place / _PIXELS, mmap_mode="c")
            bad = {int(row): str(why) for row, why in json.loads((place / _BAD).read_text())}
        return ImageArray(pixels), bad

    def _write(self, decoder: Decoder, place: Path, size: int, progress: Progress) -> None:
        # Nobody else writes it: the lock is held. What is there is from a process that died.
        unfinished = place.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            pixels = np.lib.format.open_memmap(
                unfinished / _PIXELS, mode="w+", dtype=decoder.dtype, shape=decoder.shape
            )
            # A file with holes: without this a disk that is full kills the process when it writes to the map.
            _reserve(unfinished / _PIXELS)
            with progress(f"decoding {len(decoder):,} images into {size / 1e6:,.0f} MB", len(decoder)) as told:
                bad = decoder.decode_all(pixels, told)
            pixels.flush()
            (unfinished / _BAD).write_text(json.dumps(list(bad.items())))
            shutil.rmtree(place, ignore_errors=True)
            unfinished.rename(place)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _make_room(self, size: int) -> None:
        """Remove sets, those used longest ago first, until another of this size fits."""
        sets = [path.parent for path in self.directory.glob(f"*/{_PIXELS}")]
        sizes = {path: (path / _PIXELS).stat().st_size for path in sets}
        for path in sorted(sets, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) + size <= self.limit:
                return
            # Whoever has it mapped keeps what is mapped.
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]


def _bad(decoder: Decoder, progress: Progress) -> dict[int, str]:
    """Return what is wrong with rows; where none may be skipped, as far as the beginnings of their files tell."""
    if decoder.skip:
        with progress(f"looking at {len(decoder):,} images", len(decoder)) as told:
            return decoder.decode_all(told=told)
    bad = {}
    for row in range(len(decoder)):
        try:
            decoder.images.check(row)
        except BadImageError as error:
            bad[row] = str(error)
    return bad


def _reserve(path: Path) -> None:
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
