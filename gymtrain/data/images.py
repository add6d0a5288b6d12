"""Pictures of any size as they come: files, bytes, images of PIL, arrays. Pillow decodes them, when they are looked at.

Pillow is imported inside functions: a spec is checked without it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gymtrain.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 80_000_000
"""How many pixels an image may have unless somebody says otherwise: 240 MB of RGB, and more to get there."""

# Of those that are larger, one at a time is decoded: a request of a few megabytes may hold many.
_LARGE_PIXELS = 16_000_000

# What is tried; Pillow knows others, some of which start programs (EPS) or were broken often.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)
"""The ends of the names of files of these formats, in lower case."""

_ORIENTATION = 0x0112  # the tag of EXIF
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR, errno.ESTALE})
_one_large = threading.Lock()


class BadImageError(DataError):
    """An image cannot be used; the message says which one and why."""


class Images:
    """A row of pictures of any sizes: to images what `Frame` is to tables.

    Args:
        sources: For each row a path, the bytes of a file, an image of PIL, or an array, uint8 of shape (height, width),
            or (height, width, channels) with 1, 3 or 4 channels.
        max_pixels: How many pixels one may have.
        digests: What `digest` returns of each row, uint8 (rows, 32), where that is known already.

    Example:
        >>> images = Images([np.zeros((4, 6), np.uint8), np.zeros((8, 8, 3), np.uint8)])
        >>> len(images), images.decode(0).size, images.decode(0).mode
        (2, (6, 4), 'RGB')
    """

    def __init__(
        self,
        sources: Sequence[Any],
        *,
        max_pixels: int = MAX_PIXELS,
        digests: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.max_pixels, self.digests = max_pixels, digests

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: npt.NDArray[np.int64] | slice) -> Images:
        """Return some of the rows, by position."""
        chosen = self.sources[rows] if isinstance(rows, slice) else [self.sources[row] for row in rows.tolist()]
        digests = None if self.digests is None else self.digests[rows]
        return Images(chosen, max_pixels=self.max_pixels, digests=digests)

    def name(self, row: int) -> str:
        """Return what a row is called in messages: its path, or what and where it is."""
        source = self.sources[row]
        if isinstance(source, str | os.PathLike):
            return repr(os.fspath(source))
        what = "bytes" if isinstance(source, bytes) else "an array" if isinstance(source, np.ndarray) else "an image"
        return f"row {row} ({what})"

    def decode(self, row: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode a row: RGB, upright, the first frame of one that moves, transparent parts on white.

        Args:
            row: Its position.
            at_least: A width and a height that suffice: a JPEG that is at least twice as large may come out smaller
                than it is, which takes a fraction of the time.

        Raises:
            BadImageError: It is no image that can be decoded, or too large.
        """
        with _our_limit():
            try:
                return _decoded(self.sources[row], self.max_pixels, at_least)
            except BadImageError as error:
                raise BadImageError(f"{self.name(row)}: {error}") from error

    def check(self, row: int) -> None:
        """Look at no more than the beginning of a row: whether it is there, an image, and not too large.

        Raises:
            BadImageError: It is not.
        """
        with _our_limit():
            try:
                source = self.sources[row]
                if isinstance(source, bytes):
                    _opened(io.BytesIO(source), self.max_pixels)
                elif isinstance(source, str | os.PathLike):
                    with _file(source) as file:
                        _opened(file, self.max_pixels)
                else:
                    _decoded(source, self.max_pixels, None)
            except BadImageError as error:
                raise BadImageError(f"{self.name(row)}: {error}") from error

    def digest(self, row: int) -> bytes:
        """Return the SHA-256 of a row as it came: of the bytes of a file, of the pixels of what was decoded already.

        Raises:
            BadImageError: The file cannot be read.
        """
        if self.digests is not None:
            return bytes(self.digests[row])
        source = self.sources[row]
        if isinstance(source, bytes):
            return hashlib.sha256(source).digest()
        if isinstance(source, str | os.PathLike):
            try:
                with open(source, "rb") as file:
                    return hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                raise BadImageError(f"{self.name(row)}: {_why(error)}") from error
        pixels = np.ascontiguousarray(source if isinstance(source, np.ndarray) else self.decode(row))
        return hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode() + pixels.tobytes()).digest()

    def encoded(self, row: int) -> bytes:
        """Return a row as the bytes of a file: what it is already, or a PNG.

        Raises:
            BadImageError: It cannot be read.
        """
        source = self.sources[row]
        if isinstance(source, bytes):
            return source
        if isinstance(source, str | os.PathLike):
            try:
                return Path(source).read_bytes()
            except OSError as error:
                raise BadImageError(f"{self.name(row)}: {_why(error)}") from error
        file = io.BytesIO()
        self.decode(row).save(file, "PNG")
        return file.getvalue()


def check_channels_last(shape: tuple[int, ...], name: str) -> None:
    """Refuse a row whose channels seem to come first, as nothing here has them.

    Args:
        shape: Of one row.
        name: Who asks.

    Raises:
        DataError: It is like (3, 224, 224).
    """
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4:
        raise DataError(
            f"{name} works on images, (height, width, channels); got rows of shape {shape}, of which the channels seem "
            f"to come first: give X.transpose(0, 2, 3, 1)"
        )


def is_picture(value: Any) -> bool:
    """Tell whether a value is an image of PIL, without importing PIL where nobody has."""
    return type(value).__module__.startswith("PIL.") and hasattr(value, "getbands")


def _decoded(source: Any, max_pixels: int, at_least: tuple[int, int] | None) -> Image:
    if isinstance(source, np.ndarray):
        return _rgb(_from_array(source))
    if is_picture(source):
        _check_size(source, max_pixels)
        with _as_bad_image():  # it may be a file that was not looked at yet
            source.load()
        return _rgb(_upright(source, _orientation(source)))
    if isinstance(source, str | os.PathLike):
        with _file(source) as file:
            return _from_file(file, max_pixels, at_least)
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), max_pixels, at_least)
    raise BadImageError(f"got a {type(source).__name__}; expected a path, bytes, an image of PIL or an array")


def _file(path: str | os.PathLike[str]) -> BinaryIO:
    if not os.path.isfile(path):  # a pipe would be waited for
        raise BadImageError("is a directory" if os.path.isdir(path) else "there is no such file")
    try:
        return open(path, "rb")
    except OSError as error:
        _raise_if_passing(error)
        raise BadImageError(_why(error)) from error


def _from_file(file: BinaryIO, max_pixels: int, at_least: tuple[int, int] | None) -> Image:
    image = _opened(file, max_pixels)
    with _one_large if image.width * image.height > _LARGE_PIXELS else nullcontext():
        with _as_bad_image():
            if at_least is not None:
                # Orientations from 5 on lie on their side.
                width, height = at_least if _orientation(image) < 5 else at_least[::-1]
                image.draft(None, (2 * width, 2 * height))
            image.load()
        # Looked at once it is decoded, which turns a TIFF already.
        return _rgb(_upright(image, _orientation(image)))


def _opened(file: BinaryIO, max_pixels: int) -> Image:
    import PIL
    import PIL.Image

    try:
        image: Image = PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        size = file.seek(0, os.SEEK_END)
        what = "is empty (0 bytes)" if size == 0 else f"is no image of a known format ({', '.join(FORMATS)})"
        raise BadImageError(what) from error
    except Exception as error:
        _raise_if_passing(error)
        raise BadImageError(f"cannot be decoded: {_why(error)}") from error
    _check_size(image, max_pixels)
    return image


@contextmanager
def _as_bad_image() -> Iterator[None]:
    """Turn what a decoder raises, which is of all kinds where a file is damaged, into one error."""
    try:
        yield
    except Exception as error:
        _raise_if_passing(error)
        raise BadImageError(f"cannot be decoded: {_why(error)}") from error


def _raise_if_passing(error: Exception) -> None:
    """Raise what is the trouble of the machine and not of the image: no memory, no more files, a disk that fails."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING):
        raise error


def _check_size(image: Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise BadImageError(
            f"has {image.width} x {image.height} pixels, more than the {max_pixels:,} that an image may have "
            f"(dataset.max_image_pixels)"
        )


def _from_array(pixels: npt.NDArray[Any]) -> Image:
    import PIL.Image

    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not fits or pixels.dtype != np.uint8 or pixels.size == 0:
        raise BadImageError(
            f"got an array of {pixels.dtype} of shape {pixels.shape}; expected uint8 of shape (height, width) or "
            f"(height, width, channels) with 1, 3 or 4 channels"
        )
    return PIL.Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels))


def _orientation(image: Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # what is broken in the notes of a camera is not broken in its picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _rgb(image: Image) -> Image:
    import PIL.Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImageError(f"has values from {values.min()} to {values.max()}; expected pixels of 8 or 16 bits")
        return PIL.Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImageError("has pixels that are floating-point numbers; expected 8 or 16 bits: convert it first")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = PIL.Image.new("RGB", seen.size, "white")
        white.paste(seen, mask=seen.getchannel("A"))
        return white
    return image.convert("RGB")


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


_limits = threading.Lock()
_users = 0
_theirs: Any = None


@contextmanager
def _our_limit() -> Iterator[None]:
    """Keep Pillow's own limit of pixels out of it, which warns and is one for the whole process."""
    import PIL.Image

    global _users, _theirs
    with _limits:
        if _users == 0:
            _theirs, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        _users += 1
    try:
        yield
    finally:
        with _limits:
            _users -= 1
            if _users == 0:
                PIL.Image.MAX_IMAGE_PIXELS = _theirs
