"""Curves over the time of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gymtrain.figures.look import COLOURS, MUTED, line_style, new_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# So that a part looks the same in all panels, whatever parts they have.
COLOUR_OF = {"train": 0, "val": 1}
# Of more metrics than these, the first are drawn.
MOST_METRICS = 12
# A loss that falls to less than this share of where it was is seen on a logarithmic axis alone.
WIDE = 0.02


def learning_curves(history: Mapping[str, Sequence[float | None]], best_epoch: int | None) -> Figure | None:
    """Draw each metric over the epochs, all parts of the dataset together.

    Args:
        history: The values by name, such as `train/loss`, an entry for each epoch; None where there is none.
        best_epoch: Marked, where there is one; counted from 1.

    Returns:
        None where no metric has a number in two epochs, which is what it takes to make a curve.

    Example:
        >>> figure = learning_curves({"train/loss": [3.0, 1.0], "val/loss": [2.0, None]}, 1)
        >>> [line.get_xydata().tolist() for line in figure.axes[0].lines]
        [[[1.0, 3.0], [2.0, 1.0]], [[1.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]]]
    """
    by_metric: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, values in history.items():
        part, _, metric = name.rpartition("/")
        points = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None and np.isfinite(value)]
        by_metric.setdefault(metric, {})[part] = points
    drawn = {metric: parts for metric, parts in by_metric.items() if max(len(points) for points in parts.values()) > 1}
    if not drawn:
        return None
    first = dict(list(drawn.items())[:MOST_METRICS])
    columns = 2 if len(first) == 4 else min(len(first), 3)
    lines = -(-len(first) // columns)
    title = "Learning curves" + (
        f", the first {MOST_METRICS} of {len(drawn)} metrics" if len(drawn) > len(first) else ""
    )
    figure = new_figure(title, width=6.4 if columns == 1 else 4.2 * columns, height=0.8 + 3.2 * lines)
    for position, (metric, parts) in enumerate(first.items(), 1):
        axes = new_axes(figure, lines, columns, position, xlabel="epoch", ylabel=plain(metric))
        axes.xaxis.get_major_locator().set_params(integer=True)
        for number, (part, points) in enumerate(parts.items(), len(COLOUR_OF)):
            epochs, values = zip(*points, strict=True) if points else ((), ())
            marker = "." if len(points) <= 30 else ""
            axes.plot(
                epochs, values, label=plain(part) or None, marker=marker, **line_style(COLOUR_OF.get(part, number))
            )
        numbers = [value for points in parts.values() for _, value in points]
        if 0 < min(numbers) < WIDE * max(numbers):
            axes.set_yscale("log")
        if best_epoch is not None:
            axes.axvline(best_epoch, color=MUTED, linestyle=":", linewidth=1, label="best epoch")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", frameon=False)
    return figure


def learning_rate(rates: Sequence[float], losses: Sequence[float], suggestion: float | None) -> Figure:
    """Draw the curve of a learning rate range test.

    Args:
        rates: The learning rates, above 0.
        losses: The smoothed loss at each of them.
        suggestion: Marked, where there is one.

    Example:
        >>> learning_rate([0.001, 0.01, 0.1], [2.0, 1.0, 4.0], 0.01).axes[0].get_xscale()
        'log'
    """
    figure = new_figure("Learning rate range test", height=4.0)
    axes = new_axes(figure, xscale="log", xlabel="learning rate", ylabel="smoothed loss")
    axes.plot(rates, losses, color=COLOURS[0])
    if suggestion is not None:
        axes.axvline(suggestion, color=COLOURS[1], linestyle="--", label=f"suggestion: {suggestion:.2g}")
        axes.legend(fontsize="small", frameon=False)
    return figure
