"""Augmentors that pull at the inner knots of a grid over the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from gymtrain.data.augmentors.base import Probability, constant
from gymtrain.data.augmentors.geometry import Displacement

if TYPE_CHECKING:
    from torch import Tensor

Tiles = Annotated[int, Field(ge=2, le=100)]
Pixels = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Which part of the unit square, with the bell in its middle, lies over the image: where x and y begin, and how far it
# reaches.
_PARTS = {
    "bell": (0.0, 0.0, 1.0),
    "ul": (0.5, 0.5, 0.5),
    "ur": (0.0, 0.5, 0.5),
    "dl": (0.5, 0.0, 0.5),
    "dr": (0.0, 0.0, 0.5),
}


class Distort(Displacement):
    """Distort images elastically: each inner knot of a grid is moved at random, and what is around it along with it.

    Args:
        probability: The share of the samples that are distorted, in `[0, 1]`.
        grid_width: Into how many tiles the grid divides the image along x, 2 to 100: the more, the finer it is.
        grid_height: Into how many along y, 2 to 100.
        magnitude: How far a knot is moved at most, along each axis, in pixels.

    Example:
        >>> import torch
        >>> Distort(grid_width=2, grid_height=2).augment(torch.ones(1, 8, 8), torch.tensor([[0.0, 0.9]])).shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self, probability: Probability = 0.5, grid_width: Tiles = 4, grid_height: Tiles = 4, magnitude: Pixels = 4.0
    ) -> None:
        self.probability = probability
        self.grid_width = grid_width
        self.grid_height = grid_height
        self.magnitude = magnitude
        self.num_draws = 2 * (grid_width - 1) * (grid_height - 1)

    def moves(self, draws: Tensor) -> Tensor:
        """Return uniform moves."""
        moves = (draws * 2 - 1) * self.magnitude
        return moves.view(-1, 2, self.grid_height - 1, self.grid_width - 1)


class GaussianDistortion(Displacement):
    """Distort images elastically, in some places more than in others, by normal moves scaled by a bell-shaped surface.

    The surface over the image is `exp(-((x - mex)² / sdx + (y - mey)² / sdy))`, brought to the range from 0 to 1.

    Args:
        probability: The share of the samples that are distorted, in `[0, 1]`.
        grid_width: Into how many tiles the grid divides the image along x, 2 to 100: the more, the finer it is.
        grid_height: Into how many along y, 2 to 100.
        magnitude: The standard deviation of a move where the surface is highest, along each axis, in pixels.
        corner: `"bell"` lays the whole surface over the image, `"ul"`, `"ur"`, `"dl"` and `"dr"` the quarter of it that
            has its top in the upper left, upper right, lower left or lower right corner.
        method: `"in"` distorts most at the top of the surface, `"out"` at its foot.
        mex: Where the top is, along x: 0 to 1 is the width of the surface.
        mey: Where the top is, along y.
        sdx: How wide the bell is along x, above 0.
        sdy: How wide it is along y, above 0.

    Example:
        >>> import torch
        >>> gaussian = GaussianDistortion(grid_width=2, grid_height=2)
        >>> gaussian.augment(torch.ones(1, 8, 8), torch.tensor([[0.0, 0.9]])).shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        probability: Probability = 0.5,
        grid_width: Tiles = 4,
        grid_height: Tiles = 4,
        magnitude: Pixels = 4.0,
        corner: Literal["bell", "ul", "ur", "dl", "dr"] = "bell",
        method: Literal["in", "out"] = "in",
        mex: Finite = 0.5,
        mey: Finite = 0.5,
        sdx: Spread = 0.05,
        sdy: Spread = 0.05,
    ) -> None:
        self.probability = probability
        self.grid_width = grid_width
        self.grid_height = grid_height
        self.magnitude = magnitude
        self.corner = corner
        self.method = method
        self.mex, self.mey = mex, mey
        self.sdx, self.sdy = sdx, sdy
        self.num_draws = 2 * (grid_width - 1) * (grid_height - 1)

    def moves(self, draws: Tensor) -> Tensor:
        """Return normal moves (G. Box and M. Muller, 1958)."""
        import torch

        radii, angles = draws.view(-1, 2, self.grid_height - 1, self.grid_width - 1).unbind(dim=1)
        radii = torch.sqrt(-2 * torch.log1p(-radii)) * constant(self._deviations(), draws.device)
        angles = angles * (2 * math.pi)
        return torch.stack([radii * torch.cos(angles), radii * torch.sin(angles)], dim=1)

    def _deviations(self) -> tuple[tuple[float, ...], ...]:
        """Return the standard deviation of the moves of each inner knot, in pixels."""
        left, top, size = _PARTS[self.corner]
        return tuple(
            tuple(
                self.magnitude * self._height(left + size * x / self.grid_width, top + size * y / self.grid_height)
                for x in range(1, self.grid_width)
            )
            for y in range(1, self.grid_height)
        )

    def _height(self, x: float, y: float) -> float:
        """Return how high the surface is above a point of the unit square, at least 0.01."""

        def bell(x: float, y: float) -> float:
            return math.exp(-((x - self.mex) ** 2 / self.sdx + (y - self.mey) ** 2 / self.sdy))

        foot = min(bell(corner_x, corner_y) for corner_x in (0, 1) for corner_y in (0, 1))
        top = bell(min(max(self.mex, 0), 1), min(max(self.mey, 0), 1))
        height = (bell(x, y) - foot) / (top - foot) if top > foot else 1.0
        return max(height if self.method == "in" else 1 - height, 0.01)
