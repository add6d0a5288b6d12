"""Augmentors that cover a part of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gymtrain.data.augmentors.base import Augmentor, Probability
from gymtrain.data.randomness import uniform

if TYPE_CHECKING:
    from torch import Tensor

# How many random numbers all noise is made of; each image reads them from a place of its own.
_NOISE = 2**16


class RandomErasing(Augmentor):
    """Cover a rectangle of each image, of any place and size, with noise of the whole range of the pixels.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.
        rectangle_area: The greatest sides of the rectangle relative to those of the image, 0.1 to 1; the least are 0.1.
            (The name is that of the library Augmentor, which multiplies the sides by it too.)

    Example:
        >>> import torch
        >>> erased = RandomErasing(rectangle_area=0.5).augment(torch.zeros(1, 10, 10), torch.full((1, 5), 0.99))
        >>> (erased > 0).sum()
        tensor(25)
    """

    num_draws = 5

    def __init__(
        self, probability: Probability = 0.5, rectangle_area: Annotated[float, Field(ge=0.1, le=1)] = 0.5
    ) -> None:
        self.probability = probability
        self.rectangle_area = rectangle_area

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Cover a rectangle of every image; the draws are its sides and its place, x before y, and the noise."""
        import torch

        sides = 0.1 + draws[:, :2] * (self.rectangle_area - 0.1)
        numbers = uniform(0, torch.zeros(1, dtype=torch.int64, device=images.device), _NOISE)[0].to(images.dtype)
        places = torch.arange(images[:1].numel(), device=images.device) + (draws[:, 4:] * _NOISE).long()
        low, high = self.pixel_range
        noise = numbers[places % _NOISE].view_as(images) * (high - low) + low
        return torch.where(rectangles(images, sides, draws[:, 2:4]), noise, images)


def rectangles(images: Tensor, sides: Tensor, places: Tensor) -> Tensor:
    """Return which pixels lie in a rectangle of whole pixels inside each image.

    Args:
        images: `(B, H, W)` or `(B, H, W, C)`.
        sides: The width and the height relative to those of the image, in `[0, 1]`, `(B, 2)`.
        places: Where it is between the left and the right end and between top and bottom, in `[0, 1)`, `(B, 2)`.

    Returns:
        bool tensor of shape `(B, H, W)` or `(B, H, W, 1)`.
    """
    import torch

    within = []
    for axis, size in enumerate((images.shape[2], images.shape[1])):
        side = (sides[:, axis] * size).round()
        first = (places[:, axis] * (size - side + 1)).floor()
        pixels = torch.arange(size, device=images.device)
        within.append((pixels >= first[:, None]) & (pixels < (first + side)[:, None]))
    inside = within[1][:, :, None] & within[0][:, None, :]
    return inside if images.ndim == 3 else inside[..., None]
