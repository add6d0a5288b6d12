"""How far predicted numbers are from the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gymtrain.figures.look import COLOURS, MUTED, new_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

# Of more outputs than these, the first are drawn.
MOST_OUTPUTS = 4


def predicted_against_actual(actual: Array, predicted: Array, names: Sequence[object], rows: str) -> Figure:
    """Draw predicted numbers over the true ones; a perfect model has all points on the line.

    Args:
        actual: The true numbers, (rows, outputs).
        predicted: The predicted ones, (rows, outputs).
        names: The outputs.
        rows: Which rows they are, for the title.

    Example:
        >>> figure = predicted_against_actual(np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]]), ["price"], "2 rows")
        >>> figure.axes[0].lines[0].get_xydata().tolist()
        [[1.0, 1.5], [2.0, 2.0]]
    """
    outputs = min(actual.shape[1], MOST_OUTPUTS)
    columns = 1 if outputs == 1 else 2
    lines = -(-outputs // columns)
    figure = new_figure(
        f"Predicted against actual\n{rows}{_of_outputs(names)}",
        width=5.2 + 3.2 * (columns - 1),
        height=0.8 + 4.0 * lines,
    )
    for output in range(outputs):
        name = plain(names[output])
        axes = new_axes(figure, lines, columns, output + 1, xlabel=f"actual {name}", ylabel=f"predicted {name}")
        _points(axes, actual[:, output], predicted[:, output])
        ends = [
            min(actual[:, output].min(), predicted[:, output].min()),
            max(actual[:, output].max(), predicted[:, output].max()),
        ]
        axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1)
    return figure


def residuals(actual: Array, predicted: Array, names: Sequence[object], rows: str) -> Figure:
    """Draw what the true numbers are above the predicted ones: over the predicted ones, and how it is distributed.

    Args:
        actual: The true numbers, (rows, outputs).
        predicted: The predicted ones, (rows, outputs).
        names: The outputs.
        rows: Which rows they are, for the title.

    Example:
        >>> figure = residuals(np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]]), ["price"], "2 rows")
        >>> figure.axes[0].lines[0].get_xydata().tolist()
        [[1.5, -0.5], [2.0, 0.0]]
    """
    outputs = min(actual.shape[1], MOST_OUTPUTS)
    figure = new_figure(f"Residuals\n{rows}{_of_outputs(names)}", width=8.4, height=0.8 + 3.2 * outputs)
    grid = figure.add_gridspec(outputs, 2, width_ratios=[2, 1])
    for output in range(outputs):
        name = plain(names[output])
        errors = actual[:, output].astype(np.float64) - predicted[:, output]
        axes = new_axes(figure, grid[output, 0], xlabel=f"predicted {name}", ylabel="actual - predicted")
        _points(axes, predicted[:, output], errors)
        axes.axhline(0, color=MUTED, linestyle=":", linewidth=1)
        beside = new_axes(figure, grid[output, 1], sharey=axes, xlabel="rows")
        beside.hist(errors, bins=30, orientation="horizontal", color=COLOURS[0])
        beside.tick_params(labelleft=False)
    return figure


def _points(axes: Any, x: Array, y: Array) -> None:
    alpha = float(np.clip(300 / len(x), 0.05, 0.7))
    size = 7 if len(x) < 5000 else 3
    axes.plot(x, y, linestyle="", marker=".", color=COLOURS[0], alpha=alpha, markeredgewidth=0, markersize=size)


def _of_outputs(names: Sequence[object]) -> str:
    return "" if len(names) <= MOST_OUTPUTS else f", the first {MOST_OUTPUTS} of {len(names)} outputs"
