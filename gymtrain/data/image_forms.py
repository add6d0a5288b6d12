"""Images in the forms that people give them in to a prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.images import MAX_PIXELS, SUFFIXES, Images, is_picture
from gymtrain.errors import InputError


def as_pixels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return numbers as pixels.

    Raises:
        InputError: They are no whole numbers from 0 to 255.
    """
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"got values of type {array.dtype}; expected pixels, whole numbers from 0 to 255")
    numbers = array.astype(np.float64)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() <= 255 and (numbers % 1 == 0).all()):
        raise InputError(
            f"got numbers from {numbers.min():g} to {numbers.max():g}; the model was trained on pixels, whole numbers "
            f"from 0 to 255: give them as they are, they are scaled by the preprocessors"
        )
    return numbers.astype(np.uint8)


def as_images(X: Any, max_pixels: int = MAX_PIXELS) -> Images:
    """Return pictures in any form.

    Args:
        X: One path of a file or a directory (its images, sorted by name), one image of PIL, the bytes of one file; a
            list of these, also mixed with arrays of pixels of any size; or one array of pixels, (height, width,
            channels), or of several, (rows, height, width) or (rows, height, width, channels).
        max_pixels: How many pixels one may have.

    Raises:
        InputError: It is nothing of this, or there is no such file or directory.
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, str | os.PathLike):
        return Images(_files(X), max_pixels=max_pixels)
    if isinstance(X, bytes) or is_picture(X):
        return Images([X], max_pixels=max_pixels)
    if hasattr(X, "detach"):
        X = X.detach().cpu().numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS":
        if X.ndim not in (3, 4):
            raise InputError(
                f"got an array of shape {X.shape}; expected images, (rows, height, width) or (rows, height, width, "
                f"channels), or paths"
            )
        one = X.ndim == 3 and X.shape[2] in (1, 3, 4)
        return Images(list(as_pixels(X[None] if one else X)), max_pixels=max_pixels)
    if not hasattr(X, "__iter__") or isinstance(X, Mapping) or hasattr(X, "columns"):
        raise InputError(f"got a {type(X).__name__}; expected images: paths, bytes, images of PIL or arrays of pixels")
    each_as_array = (each.detach().cpu().numpy() if hasattr(each, "detach") else each for each in X)
    return Images(
        [as_pixels(each) if isinstance(each, np.ndarray) else each for each in each_as_array], max_pixels=max_pixels
    )


def _files(path: str | os.PathLike[str]) -> list[str]:
    if not os.path.isdir(path):
        return [os.fspath(path)]
    found = sorted(entry.path for entry in os.scandir(path) if os.path.splitext(entry.name)[1].lower() in SUFFIXES)
    if not found:
        raise InputError(
            f"{os.fspath(path)!r} holds no image; expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    return found
