"""Decoded images on disk, so that they are decoded once and not in every epoch and every run."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.images import BadImageError

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far something is: given what it is and of how many rows, it is told how many are done."""

_PIXELS, _DIGESTS, _BAD, _UNFINISHED = "pixels.npy", "digests.npy", "bad.json", ".unfinished"


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

        Where there is no room for them, or nothing that names them, they are decoded whenever they are looked at; now
        only the beginning of each file is read, or all of it where the bad ones may be skipped. Out of the cache the
        images of the decoder get their digests too: files that were decoded before are not read again.

        Returns:
            The pixels, and what is wrong with each row that cannot be decoded.

        Raises:
            DataError: The images differ in size, or none can be decoded.
        """
        size, key = int(np.prod(decoder.shape)), decoder.key()
        if size > self.limit or key is None:
            return ImageArray(decoder), _bad(decoder, progress)
        try:
            return self._decoded(decoder, key, size, progress)
        except OSError as error:
            warnings.warn(
                f"images are decoded in every epoch, because they ({size / 1e6:.1f} MB) cannot be kept in "
                f"{str(self.directory)!r}: {error.strerror or error}; GYMTRAIN_DATA may name another directory",
                stacklevel=2,
            )
            return ImageArray(decoder), _bad(decoder, progress)

    def _decoded(self, decoder: Decoder, key: str, size: int, progress: Progress) -> tuple[ImageArray, dict[int, str]]:
        self.directory.mkdir(parents=True, exist_ok=True)
        place = self.directory / key
        # Whoever has the lock is the only one who writes, reads or removes this set.
        with _lock(place):
            found = _read(place, decoder)
            if found is None:
                self._make_room(size, place)
                self._write(decoder, place, size, progress)
                found = _read(place, decoder)
                assert found is not None
            os.utime(place)
        images, bad, decoder.images.digests = found
        return images, bad

    def _write(self, decoder: Decoder, place: Path, size: int, progress: Progress) -> None:
        # What is there is from a process that died.
        unfinished = place.with_suffix(_UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
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
            np.save(unfinished / _DIGESTS, decoder.digests())
            (unfinished / _BAD).write_text(json.dumps(list(bad.items())))
            unfinished.rename(place)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _make_room(self, size: int, wanted: Path) -> None:
        """Remove sets, those used longest ago first, until another of this size fits; none that somebody is busy with.

        Whoever has a set mapped keeps what is mapped.
        """
        names = {path.with_suffix("") for path in self.directory.iterdir() if path.is_dir()} - {wanted}
        sizes = {place: sum(map(_size, (place, place.with_suffix(_UNFINISHED)))) for place in names}
        for place in sorted(names, key=_used):
            if sum(sizes.values()) + size <= self.limit:
                return
            with suppress(Timeout), _lock(place).acquire(timeout=0):
                (place / _BAD).unlink(missing_ok=True)  # first: what is left of a set if this process dies is no set
                for path in (place, place.with_suffix(_UNFINISHED)):
                    shutil.rmtree(path, ignore_errors=True)
                del sizes[place]


def _lock(place: Path) -> FileLock:
    return FileLock(f"{place}.lock")


def _read(place: Path, decoder: Decoder) -> tuple[ImageArray, dict[int, str], npt.NDArray[np.uint8]] | None:
    """Return a set; None where there is none, or one that a crash of the machine or a hand has left damaged."""
    try:
        bad = {int(row): str(why) for row, why in json.loads((place / _BAD).read_text())}
        pixels, digests = np.load(place / _PIXELS, mmap_mode="c"), np.load(place / _DIGESTS)
    except (FileNotFoundError, ValueError, EOFError, TypeError):
        return None
    is_whole = pixels.shape == decoder.shape and digests.shape == (len(decoder), 32)
    if not is_whole or {pixels.dtype, digests.dtype} != {decoder.dtype}:
        return None
    return ImageArray(pixels), bad, digests


def _size(place: Path) -> int:
    try:
        return (place / _PIXELS).stat().st_size
    except OSError:
        return 0


def _used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


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
