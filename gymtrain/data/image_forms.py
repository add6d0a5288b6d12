"""Images in the forms that people give them in to a prediction."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from gymtrain.data.images import MAX_PIXELS, SUFFIXES, BadImageError, Images, is_picture
from gymtrain.data.tensors import as_numpy, is_tensor
from gymtrain.errors import InputError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def as_pixels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return numbers as pixels.

    Raises:
        InputError: They are no whole numbers from 0 to 255, or look like pixels that were divided by 255.
    """
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"got values of type {array.dtype}; expected pixels, whole numbers from 0 to 255")
    numbers = array.astype(np.float64)
    low, high = (numbers.min(), numbers.max()) if numbers.size else (0.0, 0.0)
    # Zeros and ones are pixels, too, but nearly black ones: nobody has these as floating-point numbers.
    looks_divided = array.dtype.kind in "bf" and low >= 0 and 0 < high <= 1
    if looks_divided or low < 0 or high > 255 or (numbers % 1 != 0).any():
        remedy = "give np.round(255 * X).astype(np.uint8)" if looks_divided else "give them as they are"
        raise InputError(
            f"got numbers from {low:g} to {high:g}; the model was trained on pixels, whole numbers from 0 to 255: "
            f"{remedy}, the preprocessors scale them"
        )
    return numbers.astype(np.uint8)


def is_one_image(X: Any) -> TypeGuard[str | os.PathLike[str] | bytes]:
    """Tell whether something is a path, the bytes of a file or an image of PIL, and so no row of anything else.

    Example:
        >>> is_one_image("photo.jpg"), is_one_image(["photo.jpg"]), is_one_image(3)
        (True, False, False)
    """
    return isinstance(X, str | os.PathLike | bytes) or is_picture(X)


def as_images(X: Any, max_pixels: int = MAX_PIXELS) -> Images:
    """Return pictures in any form.

    Args:
        X: One path of a file or a directory (its images, sorted by name, without those of its subdirectories), one
            image of PIL, the bytes of one file; any number of these, also mixed with arrays of pixels of any size; or
            one array of pixels, (height, width, channels), or of several, (rows, height, width) or (rows, height,
            width, channels).
        max_pixels: How many pixels one may have.

    Raises:
        InputError: It is nothing of this, or a directory without images.

    Example:
        >>> len(as_images(["cat.jpg", np.zeros((40, 60, 3), np.uint8)]))
        2
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, str | os.PathLike):
        return Images(_files(X), max_pixels=max_pixels)
    if is_one_image(X) or isinstance(X, bytearray | memoryview):
        return Images([_one(X, 0)], max_pixels=max_pixels)
    X = _detached(X)
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUST":
        return Images(list(as_pixels(_several(X))), max_pixels=max_pixels)
    if hasattr(X, "read"):
        raise InputError(f"got the open file {getattr(X, 'name', X)!r}; give its path, or its bytes: X.read()")
    if not hasattr(X, "__iter__") or isinstance(X, Mapping) or hasattr(X, "columns"):
        raise InputError(f"got a {type(X).__name__}; expected images: paths, bytes, images of PIL or arrays of pixels")
    return Images([_one(each, row) for row, each in enumerate(X)], max_pixels=max_pixels)


def as_pixel_rows(X: Any, shape: tuple[int, ...], max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Return pictures as rows of pixels, for a model that was trained on these.

    Args:
        X: What `as_images` takes.
        shape: Of a row, (height, width) or (height, width, channels); of one channel, colours become grey.
        max_pixels: How many pixels one may have.

    Returns:
        Array of shape (rows, *shape).

    Raises:
        InputError: One cannot be decoded, or has another size.
    """
    images = as_images(X, max_pixels)
    channels = 1 if len(shape) == 2 else shape[2]
    if channels not in (1, 3):
        raise InputError(f"the model was trained on pixels of shape {shape}; files have no {channels} channels")
    rows = np.empty((len(images), *shape), np.uint8)
    for row in range(len(images)):
        try:
            picture = images.decode(row)
        except BadImageError as error:
            raise InputError(str(error)) from error
        if picture.size != (shape[1], shape[0]):
            raise InputError(
                f"{images.name(row)}: has {picture.width} x {picture.height} pixels; the model was trained on "
                f"{shape[1]} x {shape[0]}: resize it"
            )
        rows[row] = np.asarray(picture if channels == 3 else picture.convert("L")).reshape(shape)
    return rows


def _one(value: Any, row: int) -> Any:
    """Return an item of a list of images as `Images` has it."""
    if isinstance(value, str) and _ADDRESS.match(value):
        raise _no_address(value)
    value = _detached(value)
    if isinstance(value, np.ndarray):
        return as_pixels(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if not is_one_image(value):
        raise InputError(
            f"row {row}: got a {type(value).__name__}; expected a path, bytes, an image of PIL or an array of pixels"
        )
    return value


def _several(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels of one image or of several as those of several."""
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        return pixels[None]
    if pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] in (1, 3, 4)):
        return pixels
    hint = ""
    if pixels.ndim == 2:
        hint = "; one grey image is X[None]"
    elif pixels.ndim == 4 and pixels.shape[1] in (1, 3, 4):
        hint = "; the channels come last: X.movedim(1, -1), of numpy np.moveaxis(X, 1, -1)"
    raise InputError(
        f"got an array of shape {pixels.shape}; expected images, (rows, height, width) or (rows, height, width, "
        f"channels) with 1, 3 or 4 channels, or paths{hint}"
    )


def _detached(value: Any) -> Any:
    return as_numpy(value) if is_tensor(value) else value


def _files(path: str | os.PathLike[str]) -> list[str]:
    name = os.fspath(path)
    if _ADDRESS.match(name):
        raise _no_address(name)
    return images_in(path) if os.path.isdir(path) else [name]


def images_in(directory: str | os.PathLike[str]) -> list[str]:
    """Return the paths of the images in a directory, sorted by name; hidden files and subdirectories are left out.

    Raises:
        InputError: There are none.
    """
    found = sorted(entry.path for entry in os.scandir(directory) if _is_image(entry))
    if not found:
        raise InputError(
            f"{os.fspath(directory)!r} holds no image; expected files that end in {', '.join(sorted(SUFFIXES))} (its "
            f"subdirectories are not looked into)"
        )
    return found


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()


def _no_address(address: str) -> InputError:
    return InputError(f"got the address {address!r}; download it first, and give the path of the file, or its bytes")
