"""Single rows that people can look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gymtrain.figures.look import new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

MOST_SAMPLES = 16
COLUMNS = 4
LEAST_SIDE = 4


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether rows of a shape can be looked at: (height, width), or with 1, 3 or 4 channels behind.

    Example:
        >>> is_image((28, 28)), is_image((32, 32, 3)), is_image((64,)), is_image((100, 2))
        (True, True, False, False)
    """
    return len(shape) in (2, 3) and min(shape[:2]) >= LEAST_SIDE and shape[2:] in ((), (1,), (3,), (4,))


def mistakes(
    images: Array,
    truth: Sequence[object],
    predicted: Sequence[object],
    probabilities: Sequence[float] | None,
    rows: str,
) -> Figure:
    r"""Draw images that were taken for something else.

    Args:
        images: Up to 16 of shape (rows, height, width) or (rows, height, width, channels), with any numbers.
        truth: The true label of each.
        predicted: What it was taken for.
        probabilities: How sure the model was of that; None where it does not say.
        rows: Which they are, for the title.

    Example:
        >>> figure = mistakes(np.zeros((1, 8, 8)), [8], [3], [0.75], "1 of 1 in 40 rows")
        >>> figure.axes[0].get_title()
        '8 → 3\n75%'
    """
    lines = -(-len(images) // COLUMNS)
    what = "true → predicted" if probabilities is None else "true → predicted, and how probable that was"
    height = 0.7 + 2.0 * lines
    figure = new_figure(f"Mistakes: {what}\n{rows}", width=6.4, height=height)
    figure.set_layout_engine("none")  # working out what a regular grid is anyway would take most of the time
    grid = figure.add_gridspec(lines, COLUMNS, left=0.02, right=0.98, bottom=0.02, top=1 - 1.0 / height, hspace=0.35)
    for position, image in enumerate(_visible(images)):
        axes = figure.add_subplot(grid[divmod(position, COLUMNS)])
        axes.set_axis_off()
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        caption = f"{plain(truth[position], limit=12)} → {plain(predicted[position], limit=12)}"
        axes.set_title(caption if probabilities is None else f"{caption}\n{probabilities[position]:.0%}", fontsize=8)
    return figure


def augmented(
    versions: Sequence[tuple[str, Array]], names: Sequence[object], pixel_range: tuple[float, float]
) -> Figure:
    """Draw images as they are, and what augmentors make of them: a column for each, a line for each version.

    Args:
        versions: What each line is called, and its images, (rows, height, width) or (rows, height, width, channels).
        names: What each image shows; nothing where that is not known.
        pixel_range: Black and white, or none and all of a colour; what lies beyond is cut off.

    Example:
        >>> versions = [("original", np.zeros((2, 8, 8))), ("epoch 1", np.ones((2, 8, 8)))]
        >>> figure = augmented(versions, ["cat", "dog"], (0, 1))
        >>> len(figure.axes), figure.axes[1].get_title(), figure.axes[2].get_ylabel()
        (4, 'dog', 'epoch 1')
    """
    columns = len(versions[0][1])
    width, height = 1.2 * columns + 0.6, 1.3 * len(versions) + 0.9
    figure = new_figure("Augmented samples", width=max(width, 4.0), height=height)
    figure.set_layout_engine("none")  # as above
    grid = figure.add_gridspec(
        len(versions), columns, left=0.4 / max(width, 4.0), right=0.99, bottom=0.02, top=1 - 0.75 / height, hspace=0.08
    )
    low, high = pixel_range
    for line, (caption, images) in enumerate(versions):
        images = images[..., 0] if images.shape[3:] == (1,) else images
        scaled = ((images.astype(np.float64) - low) / (high - low if high > low else 1.0)).clip(0.0, 1.0)
        for column, image in enumerate(scaled):
            axes = figure.add_subplot(grid[line, column])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
            if line == 0 and column < len(names):
                axes.set_title(plain(names[column], limit=12), fontsize=8)
            if column == 0:
                axes.set_ylabel(caption, fontsize=8)
    return figure


def _visible(images: Array) -> Array:
    """Return pixels from 0 to 1: colours as they are meant, grey values as far apart as they go."""
    images = images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
    images = images.astype(np.float64)
    low, high = images.min(), images.max()
    if images.ndim == 4 and low >= 0:
        low, high = 0.0, 1.0 if high <= 1 else max(high, 255.0)
    scaled: Array = (images - low) / (high - low if high > low else 1.0)
    return scaled
