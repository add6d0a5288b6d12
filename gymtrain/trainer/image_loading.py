"""The images of a dataset, decoded before they are split: what cannot be decoded is in no part."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.home import data_home
from gymtrain.data.image_cache import ImageCache
from gymtrain.data.images import BadImageError, Images
from gymtrain.data.splits import Rows
from gymtrain.errors import DataError
from gymtrain.specs import Dataset

SAMPLE_SIDE = 512


@dataclass(frozen=True)
class Pictures:
    """Images of any size, decoded.

    Args:
        pixels: What the picture preprocessors made of them.
        images: The images themselves, as many.
        good: Which of all images of the dataset these are.
        bad: What is wrong with each of the others.
    """

    pixels: ImageArray
    images: Images
    good: Rows
    bad: list[str]


def decode(images: Images, steps: Sequence[Any], spec: Dataset) -> Pictures:
    """Decode images, into the cache or out of it, and leave out those that cannot be decoded.

    Args:
        images: All of a dataset.
        steps: The picture preprocessors.
        spec: Says what may be left out, and how much may be kept.

    Raises:
        DataError: One cannot be decoded and none may be left out; or they differ in size.
    """
    if len(images) == 0:
        raise DataError("dataset.dataset: there are no images")
    images = Images(images.sources, max_pixels=spec.max_image_pixels)
    cache = ImageCache(data_home() / "decoded", spec.image_cache_gb * 1e9)
    pixels, bad = cache.decoded(Decoder(images, steps, skip=spec.on_bad_sample == "skip"), decoding_bar)
    if bad and spec.on_bad_sample == "raise":
        raise DataError(
            f"dataset.dataset: {_said(bad, len(images))}; remove them or get them anew, or train without them by "
            f"dataset.on_bad_sample: 'skip'"
        )
    good = np.setdiff1d(np.arange(len(images)), np.fromiter(bad, np.int64, len(bad)))
    if bad:
        warnings.warn(f"dataset.on_bad_sample: {_said(bad, len(images))}; left out", stacklevel=2)
    return Pictures(pixels.take(good), images.take(good), good, list(bad.values()))


def sample_of(images: Images, steps: Sequence[Any]) -> Images:
    """Return what may go into a bundle: JPEGs without what a camera notes, of the place above all, and not large.

    Args:
        images: Some images of a dataset.
        steps: The picture preprocessors; where one of them brings all to one size, large images are made smaller.
    """
    import PIL.Image

    may_shrink = any(step.fixes_size for step in steps)
    files: list[bytes] = []
    for row in range(len(images)):
        try:
            image = images.decode(row, at_least=(SAMPLE_SIDE, SAMPLE_SIDE) if may_shrink else None)
        except BadImageError:  # it was there when training began
            continue
        if may_shrink:
            image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        file = io.BytesIO()
        PIL.Image.fromarray(np.asarray(image)).save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    return Images(files, max_pixels=images.max_pixels)


def _said(bad: dict[int, str], total: int) -> str:
    first = list(bad.values())[:3]
    rest = f", and {len(bad) - len(first)} more" if len(bad) > len(first) else ""
    return f"{len(bad)} of {total} images cannot be decoded: {'; '.join(first)}{rest}"


@contextmanager
def decoding_bar(text: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show how far decoding is on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=rows)
        yield lambda done: progress.update(task, completed=done)
