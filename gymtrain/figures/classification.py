"""How well classes are told apart: confusion matrix, ROC, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gymtrain.figures.look import COLOURS, MUTED, line_style, new_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

# With more classes the numbers in a confusion matrix cannot be read.
MOST_NUMBERS = 30
# With more classes their names cannot be: every second is left out, or two of three, and so on.
MOST_NAMES = 60
# More curves than these cannot be told apart.
MOST_CURVES = 10
BINS = 10


def confusion_counts(truth: Array, predicted: Array, classes: int) -> Array:
    """Return how often each class was taken for each, int64 of shape (classes, classes): rows are the true ones.

    Args:
        truth: Codes, (rows,).
        predicted: Codes, (rows,).
        classes: How many there are; those that no row is of count 0.

    Example:
        >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
        array([[1, 0],
               [1, 1]])
    """
    from sklearn import metrics

    counts: Array = metrics.confusion_matrix(truth, predicted, labels=np.arange(classes))
    return counts


def confusion_matrix(counts: Array, names: Sequence[object], rows: str) -> Figure:
    """Draw a confusion matrix: the colour is the share of the true class, the numbers are rows.

    Args:
        counts: What `confusion_counts` returned.
        names: The classes.
        rows: Which rows were counted, for the title.

    Example:
        >>> figure = confusion_matrix(np.array([[8, 2], [0, 10]]), ["cat", "dog"], "20 rows of the test part")
        >>> figure.axes[0].images[0].get_array().tolist()
        [[0.8, 0.2], [0.0, 1.0]]
    """
    size = len(names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)  # of a class without rows nothing was taken for anything
    side = float(np.clip(3.2 + 0.32 * size, 4.4, 12.0))
    figure = new_figure(f"Confusion matrix\n{rows}", width=side + 0.8, height=side)
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    shown = range(0, size, -(-size // MOST_NAMES))
    texts = [plain(names[position], limit=16) for position in shown]
    font = 9 if size <= 15 else 7
    is_wide = max(map(len, texts)) > (10 if size <= 4 else 2)
    axes.set_xticks(shown, texts, fontsize=font, rotation=90 if is_wide else 0)
    axes.set_yticks(shown, texts, fontsize=font)
    if size <= MOST_NUMBERS:
        _write_numbers(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    return figure


def _write_numbers(axes: Any, counts: Array, shares: Array) -> None:
    font = float(np.clip(110 / len(counts), 4.5, 10.0))
    for true, predicted in np.argwhere(counts):  # where there is no row, the cell stays empty
        text = axes.text(
            predicted,
            true,
            _short(int(counts[true, predicted])),
            color="white" if shares[true, predicted] > 0.5 else "black",
            ha="center",
            va="center",
            fontsize=font,
        )
        text.set_in_layout(False)  # it lies within the axes


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def roc(truth: Array, probabilities: Array, names: Sequence[object], rows: str) -> Figure | None:
    """Draw the ROC curve of each class against the rest; of more than ten, of all of them together.

    Args:
        truth: Which class a row is of, zeros and ones of shape (rows, classes); one column for a binary task.
        probabilities: What the model says of it, (rows, classes).
        names: The classes.
        rows: Which rows they are, for the title.

    Returns:
        None where no class has both: rows that are of it, and rows that are not.

    Example:
        >>> figure = roc(np.array([[0], [1], [1]]), np.array([[0.1], [0.8], [0.7]]), ["dog"], "3 rows")
        >>> figure.axes[0].get_legend().get_texts()[0].get_text()
        '1.000  dog'
    """
    from sklearn.metrics import auc, roc_curve

    curves = []
    for name, column, scores in _one_against_rest(truth, probabilities, names):
        wrong, right, _ = roc_curve(column, scores)
        curves.append((f"{auc(wrong, right):.3f}  {name}", wrong, right))
    if not curves:
        return None
    figure, axes = _square(f"ROC\n{rows}", "false positive rate", "true positive rate", len(curves))
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    _draw(figure, axes, curves, "AUC", "lower right")
    return figure


def precision_recall(truth: Array, probabilities: Array, names: Sequence[object], rows: str) -> Figure | None:
    """Draw precision over recall for each class against the rest; of more than ten, for all of them together.

    Args:
        truth: Which class a row is of, zeros and ones of shape (rows, classes); one column for a binary task.
        probabilities: What the model says of it, (rows, classes).
        names: The classes.
        rows: Which rows they are, for the title.

    Returns:
        None where no class has both: rows that are of it, and rows that are not.

    Example:
        >>> figure = precision_recall(np.array([[0], [1], [1]]), np.array([[0.1], [0.8], [0.7]]), ["dog"], "3 rows")
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('recall', 'precision')
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    curves = []
    for name, column, scores in _one_against_rest(truth, probabilities, names):
        precision, recall, _ = precision_recall_curve(column, scores, drop_intermediate=True)
        curves.append((f"{average_precision_score(column, scores):.3f}  {name}", recall, precision))
    if not curves:
        return None
    figure, axes = _square(f"Precision and recall\n{rows}", "recall", "precision", len(curves))
    _draw(figure, axes, curves, "average precision", "lower left", drawstyle="steps-post")
    return figure


def _one_against_rest(
    truth: Array, probabilities: Array, names: Sequence[object]
) -> list[tuple[str, npt.NDArray[np.bool_], Array]]:
    """Return for each curve its name, whether each row is of the class, and the probability of that."""
    texts = [plain(name) for name in names]
    if len(texts) > MOST_CURVES:
        texts = [f"all {len(texts)} (micro average)"]
        truth, probabilities = truth.reshape(-1, 1), probabilities.reshape(-1, 1)
    truth = truth.astype(bool)
    both = truth.any(axis=0) & ~truth.all(axis=0)
    return [(texts[column], truth[:, column], probabilities[:, column]) for column in np.flatnonzero(both)]


def _square(title: str, xlabel: str, ylabel: str, curves: int) -> tuple[Figure, Any]:
    figure = new_figure(title, width=5.2 if curves == 1 else 6.6)
    limits = (-0.02, 1.02)
    return figure, new_axes(figure, xlabel=xlabel, ylabel=ylabel, xlim=limits, ylim=limits, aspect="equal", anchor="W")


def _draw(
    figure: Figure, axes: Any, curves: list[tuple[str, Array, Array]], title: str, place: str, **style: Any
) -> None:
    for number, (label, x, y) in enumerate(curves):
        axes.plot(x, y, label=label, **line_style(number), **style)
    where = {"loc": place} if len(curves) == 1 else {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)}
    axes.legend(title=title, alignment="left", fontsize="small", title_fontsize="small", frameon=False, **where)


def calibration(happened: Array, probabilities: Array, what: str, rows: str) -> Figure:
    """Draw how often something happens of which the model says how probable it is, and how often it says so.

    Args:
        happened: Whether it did, zeros and ones of shape (rows,).
        probabilities: How probable it was, from 0 to 1, (rows,).
        what: What it is, for the axis.
        rows: Which rows they are, for the title.

    Example:
        >>> figure = calibration(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.9]), "it is a dog", "3 rows")
        >>> figure.axes[0].lines[1].get_ydata().tolist()
        [0.0, 1.0]
    """
    from sklearn.calibration import calibration_curve

    probabilities = probabilities.astype(np.float64).clip(0.0, 1.0)  # a softmax may be 1 and a rounding error
    share, mean = calibration_curve(happened.astype(int), probabilities, n_bins=BINS, pos_label=1)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], probabilities), minlength=BINS)
    error = float(np.sum(np.abs(share - mean) * counts[counts > 0]) / counts.sum())
    figure = new_figure(f"Calibration\n{rows}", width=5.2, height=5.6)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    axes = new_axes(figure, grid[0], ylabel="how often it is so", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    axes.plot(mean, share, marker="o", color=COLOURS[0], label=f"calibration error {error:.3f}")
    axes.legend(loc="upper left", fontsize="small", frameon=False)
    axes.tick_params(labelbottom=False)
    below = new_axes(figure, grid[1], xlabel=f"probability that {plain(what, limit=50)}", ylabel="rows", xlim=(0, 1))
    below.bar(edges[:-1], counts, width=1 / BINS, align="edge", color=COLOURS[0], edgecolor="white")
    return figure
