"""The one look of all figures: plain, in colours that also people who do not see all colours can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Those of Okabe and Ito (https://jfly.uni-koeln.de/color/) without the yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MUTED = "#888888"


def new_figure(title: str, *, width: float = 6.4, height: float = 4.8) -> Figure:
    """Return an empty figure.

    Args:
        title: What is shown, and on which rows.
        width: In inches of 100 pixels.
        height: In the same.
    """
    from matplotlib.figure import Figure  # takes a while to import

    figure = Figure(figsize=(width, height), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    figure.suptitle(title, fontsize="medium")
    return figure


def new_axes(figure: Figure, *position: Any, **properties: Any) -> Any:
    """Return axes for curves and points at a position of `Figure.add_subplot`."""
    axes = figure.add_subplot(*position, **properties)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def line_style(number: int) -> dict[str, str]:
    """Return how the curve of a number is drawn: once the colours are used up, dashed."""
    cycle, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": ("-", "--", ":")[cycle % 3]}


def plain(text: object, limit: int = 24) -> str:
    r"""Return a name of the user's as matplotlib shows it: one line, not too long, and with no formula in it.

    Example:
        >>> print(plain("from $1 to $2"), plain("a name that nobody could read to its end"))
        from \$1 to \$2 a name that nobody coul…
    """
    line = " ".join(str(text).split())
    # What stands between two dollar signs would be read as TeX; a name that is none would be an error.
    return (line if len(line) <= limit else line[: limit - 1] + "…").replace("$", r"\$")
