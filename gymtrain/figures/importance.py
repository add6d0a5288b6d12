"""What a model looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gymtrain.figures.look import COLOURS, new_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FEATURES = 20


def feature_importance(values: npt.NDArray[Any], names: Sequence[object], what: str) -> Figure:
    """Draw the features that count most, the first on top; what lies below 0 has another colour.

    Args:
        values: How much each feature counts, (features,).
        names: The features.
        what: What the values are, for the axis.

    Example:
        >>> figure = feature_importance(np.array([0.1, -2.0]), ["width", "height"], "weight")
        >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
        [-2.0, 0.1]
    """
    largest = np.argsort(-np.abs(values), kind="stable")[:MOST_FEATURES]
    title = "Feature importance" + (
        f", the first {MOST_FEATURES} of {len(names)}" if len(names) > MOST_FEATURES else ""
    )
    figure = new_figure(title, height=1.4 + 0.24 * max(len(largest), 4))
    axes = new_axes(figure, xlabel=what)
    places = np.arange(len(largest))
    colours = [COLOURS[int(values[feature] < 0)] for feature in largest]
    axes.barh(places, values[largest], color=colours)
    axes.set_yticks(places, [plain(names[feature], limit=32) for feature in largest], fontsize=8)
    axes.set_ylim(len(largest) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return figure
