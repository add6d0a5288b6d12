"""Pictures turned into pixels of one shape: once, into a file that is mapped, or anew whenever they are looked at.

Threads decode, not processes: Pillow lets go of Python's lock while it decodes and resizes, a thread writes its pixels
where they belong without handing them over, and a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.images import BadImageError, Images
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from gymtrain.data.image_preprocessors import PicturePreprocessor

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

# What the pixels of a cache depend on beside the files and the preprocessors; raise it when decoding changes.
VERSION = 2
_ROWS_AT_A_TIME = 32  # to a thread, at the most


class Decoder:
    """Pictures, decoded and brought to one shape when they are looked at.

    Args:
        images: The pictures.
        steps: What is done to each of them, in order.
        skip: Whether an array of these may have another row in the place of one that cannot be decoded.
        threads: How many are decoded at once; as many as there are processors when not given.

    Example:
        >>> from gymtrain.data.image_preprocessors import ImageResize
        >>> decoder = Decoder(Images([np.zeros((9, 7, 3), np.uint8)]), [ImageResize(4, 2)])
        >>> decoder[np.array([0, 0])].shape
        (2, 2, 4, 3)
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, images: Images, steps: Sequence[PicturePreprocessor], *, skip: bool = False, threads: int | None = None
    ) -> None:
        self.images, self.steps, self.skip = images, tuple(steps), skip
        self.threads = threads or min(_cores(), 16)
        self._at_least = self.steps[0].suffices() if self.steps else None
        self._first: tuple[str, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, height, width and channels; those of the first picture that can be decoded.

        Raises:
            DataError: There is none.
        """
        trouble: BadImageError | None = None
        for row in range(len(self) if self._first is None else 0):
            try:
                self.pixels(row)
                break
            except BadImageError as error:
                trouble = trouble or error
        if self._first is None:
            if len(self) == 1 and trouble is not None:
                raise trouble
            raise DataError(f"none of {len(self)} images can be decoded: {trouble}")
        return (len(self), *self._first[1])

    def pixels(self, row: int) -> Pixels:
        """Return the pixels of a row, (height, width, channels).

        Raises:
            BadImageError: It cannot be decoded.
            DataError: It has another size than the first one.
        """
        image: Image = self.images.decode(row, self._at_least)
        for step in self.steps:
            image = step.picture(image)
            if image.mode not in {"RGB", "L"}:
                raise DataError(
                    f"{type(step).__name__}.picture made an image of mode {image.mode!r} of one of mode RGB or L; "
                    f"expected pixels of 8 bits, RGB or L: numbers are for a preprocessor behind it"
                )
        pixels = np.asarray(image)
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        if self._first is None:
            self._first = self.images.name(row), pixels.shape
        name, shape = self._first
        if pixels.shape != shape:
            raise DataError(
                f"images differ in size: {name} is {_size(shape)} and {self.images.name(row)} {_size(pixels.shape)}; "
                f"put {{'type': 'image_resize', 'width': …, 'height': …}} first among the preprocessors"
            )
        return pixels

    def __getitem__(self, rows: Rows | slice) -> Pixels:
        """Return the pixels of some rows, uint8 (rows, height, width, channels).

        Raises:
            BadImageError: One cannot be decoded.
            DataError: They differ in size.
        """
        chosen = np.arange(len(self))[rows]
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.uint8)
        first = self.pixels(int(chosen[0]))
        pixels = np.empty((len(chosen), *first.shape), np.uint8)
        pixels[0] = first

        def fill(positions: Sequence[int]) -> None:
            for position in positions:
                if position > 0:
                    pixels[position] = self.pixels(int(chosen[position]))

        in_threads(fill, len(chosen), self.threads)
        return pixels

    def decode_all(
        self, pixels: Pixels | None = None, told: Callable[[int], None] = lambda done: None
    ) -> dict[int, str]:
        """Decode all rows, into their places.

        Args:
            pixels: uint8 of the decoder's shape; what cannot be decoded stays as it was. None to see what can be.
            told: Called with how many rows are done.

        Returns:
            What is wrong with each row that cannot be decoded.

        Raises:
            DataError: The images differ in size.
        """
        bad: dict[int, str] = {}

        def decode(rows: Sequence[int]) -> None:
            for row in rows:
                try:
                    found = self.pixels(row)
                except BadImageError as error:
                    bad[row] = str(error)
                    continue
                if pixels is not None:
                    pixels[row] = found

        in_threads(decode, len(self), self.threads, told)
        return dict(sorted(bad.items()))

    def digests(self) -> npt.NDArray[np.uint8]:
        """Return the hash of what each row is made of, uint8 (rows, 32); zeros where it cannot be read."""
        digests = np.zeros((len(self), 32), np.uint8)

        def fill(rows: Sequence[int]) -> None:
            for row in rows:
                with suppress(BadImageError):
                    digests[row] = np.frombuffer(self.images.digest(row), np.uint8)

        in_threads(fill, len(self), self.threads)
        return digests

    def key(self) -> str | None:
        """Return what names the pixels: a hash of which files they are from (path, size, times), and of the steps.

        None where a step is not of gymtrain: what it does may change while its name and arguments stay.
        """
        import PIL

        if any(not type(step).__module__.startswith("gymtrain.") for step in self.steps):
            return None
        steps = [[type(step).__qualname__, sorted(vars(step).items())] for step in self.steps]
        digest = hashlib.sha256(repr((VERSION, PIL.__version__, self.images.max_pixels, steps)).encode())
        for row, source in enumerate(self.images.sources):
            if isinstance(source, str | os.PathLike):
                try:
                    found = os.stat(source)
                    said: Any = (os.path.abspath(source), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                except OSError:
                    said = (os.path.abspath(source), None)
                digest.update(repr(said).encode())
            else:
                digest.update(self.images.digest(row))
        return digest.hexdigest()


def in_threads(
    act: Callable[[Sequence[int]], None], count: int, threads: int, told: Callable[[int], None] = lambda done: None
) -> None:
    """Act on the numbers from 0 to `count`, some at a time in each thread; what fails ends all."""
    size = max(1, min(_ROWS_AT_A_TIME, count // threads))
    blocks = (range(start, min(start + size, count)) for start in range(0, count, size))
    if threads == 1 or count <= 2:
        for block in blocks:
            act(block)
            told(block.stop)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="gymtrain-decode") as pool:
        waiting: list[tuple[int, Future[None]]] = []
        try:
            for block in blocks:
                waiting.append((block.stop, pool.submit(act, block)))
                if len(waiting) > 2 * threads:  # so that a failure or Ctrl-C has little to wait for
                    done, future = waiting.pop(0)
                    future.result()
                    told(done)
            for done, future in waiting:
                future.result()
                told(done)
        finally:
            for _, future in waiting:
                future.cancel()


class ImageArray:
    """Pixels of one shape, uint8 (rows, height, width, channels), of which a selection of rows costs nothing.

    Args:
        source: All pixels: an array, a mapped file, or a `Decoder`.
        rows: Which of its rows these are, in order; all when not given.

    Example:
        >>> images = ImageArray(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)).take(np.array([2, 0]))
        >>> images.shape, images[0:1].ravel().tolist()
        ((2, 2, 2, 1), [8, 9, 10, 11])
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped file is mapped again: its pixels may be more than what a worker has room for.
        if isinstance(self.source, np.memmap) and self.source.filename is not None:
            return _mapped, (self.source.filename, self.rows)
        return ImageArray, (self.source, self.rows)

    def __init__(self, source: Pixels | Decoder, rows: Rows | None = None) -> None:
        self.source = source
        self.rows = np.arange(len(source), dtype=np.int64) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, height, width and channels."""
        return (len(self.rows), *self.source.shape[1:])

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size

    def take(self, rows: Rows | slice) -> ImageArray:
        """Return some of the rows, by position; no pixel is touched."""
        return ImageArray(self.source, self.rows[rows])

    def __getitem__(self, rows: Rows | slice) -> Pixels:
        """Return the pixels of some rows, by position.

        Raises:
            BadImageError: One is decoded now, and cannot be.
        """
        return self.source[self.rows[rows]]

    @property
    def is_decoded_anew(self) -> bool:
        """Whether pictures are decoded whenever they are looked at."""
        return isinstance(self.source, Decoder)

    def decode_alone(self) -> None:
        """Decode in one thread from now on, where pictures are decoded at each look: as one process of several."""
        if isinstance(self.source, Decoder):
            self.source.threads = 1

    def gathered(self, rows: Rows) -> tuple[Pixels, Rows]:
        """Return the pixels of some rows, and which rows they are.

        These are others only where pictures are decoded now, one cannot be, and it may be skipped: then the next one
        that can be is there twice, and a warning says so.

        Raises:
            BadImageError: One cannot be decoded, and may not be skipped; or none of them can be.
        """
        try:
            return self[rows], rows
        except BadImageError:
            assert isinstance(self.source, Decoder)
            if not self.source.skip:
                raise
        wrong = {position: self._trouble(row) for position, row in enumerate(self.rows[rows].tolist())}
        good = [position for position, trouble in wrong.items() if trouble is None]
        bad = [trouble for trouble in wrong.values() if trouble is not None]
        if not good:
            raise bad[0]
        warnings.warn(f"{len(bad)} images were left out of a batch: {bad[0]}", stacklevel=2)
        nearest = np.array(good)[np.searchsorted(good, np.arange(len(rows))) % len(good)]
        return self[rows[nearest]], rows[nearest]

    def _trouble(self, row: int) -> BadImageError | None:
        assert isinstance(self.source, Decoder)
        try:
            self.source.pixels(row)
        except BadImageError as error:
            return error
        return None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def blocks(self, size: int = 256) -> Iterator[Pixels]:
        """Yield all pixels, so many rows at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _mapped(path: str, rows: Rows) -> ImageArray:
    return ImageArray(np.load(path, mmap_mode="c"), rows)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
