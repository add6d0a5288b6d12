"""Augmentors that mix each sample with another one of its batch, images and targets alike."""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gymtrain.data.augmentors.base import Augmentor, Probability, constant, per_sample
from gymtrain.data.augmentors.erasing import rectangles

if TYPE_CHECKING:
    from torch import Tensor

Alpha = Annotated[float, Field(gt=0, le=100)]


class Mixing(Augmentor):
    """Base of augmentors that put something of another image into each; subclass it to write your own.

    The other one is drawn from the batch, and the targets are mixed in the same proportion. What a sample becomes is so
    a function of its batch; which is the same for any number of workers, and after a resume. Mixings come last in
    `data_augmentors`, and mix what the others have made of the images.
    """

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the images as they are: alone, there is nothing to mix them with."""
        return images

    @abstractmethod
    def mix(self, images: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mix every image with another one.

        Args:
            images: float32 tensor of shape `(B, H, W)` or `(B, H, W, C)`; return another tensor.
            others: What each is mixed with, of the same shape.
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`.

        Returns:
            Images of the same shape, and how much of its own each has kept, `(B,)`, in `[0, 1]`.
        """


class MixUp(Mixing):
    """Blend each image, and its target, with another one of the batch (H. Zhang and others, 2018).

    Args:
        probability: The share of the samples that are mixed, in `[0, 1]`.
        alpha: The share that an image keeps of its own is drawn from the distribution Beta(alpha, alpha), above 0 up to
            100: small values mix little, 1 draws all shares equally often, large ones mix by halves.

    Example:
        >>> import torch
        >>> mixed, kept = MixUp(alpha=1.0).mix(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.tensor([[0.25]]))
        >>> kept
        tensor([0.2500])
        >>> mixed[0, 0]
        tensor([0.7500, 0.7500])
    """

    num_draws = 1

    def __init__(self, probability: Probability = 1.0, alpha: Alpha = 0.2) -> None:
        self.probability = probability
        self.alpha = alpha

    def mix(self, images: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Blend every image."""
        kept = beta(draws[:, 0], self.alpha)
        share = per_sample(kept, images).to(images.dtype)
        return images * share + others * (1 - share), kept


class CutMix(Mixing):
    """Paste a rectangle of another image of the batch into each, and mix targets by its area (S. Yun and others, 2019).

    Args:
        probability: The share of the samples that are mixed, in `[0, 1]`.
        alpha: The share of the area that an image keeps is drawn from the distribution Beta(alpha, alpha), above 0 up
            to 100: 1 draws all shares equally often.

    Example:
        >>> import torch
        >>> draws = torch.tensor([[0.75, 0.0, 0.0]])
        >>> mixed, kept = CutMix().mix(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), draws)
        >>> kept
        tensor([0.7500])
        >>> mixed
        tensor([[[1., 0.],
                 [0., 0.]]])
    """

    num_draws = 3

    def __init__(self, probability: Probability = 1.0, alpha: Alpha = 1.0) -> None:
        self.probability = probability
        self.alpha = alpha

    def mix(self, images: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Paste a rectangle into every image; the draws are its area and its place."""
        import torch

        sides = (1 - beta(draws[:, 0], self.alpha)).sqrt()
        is_pasted = rectangles(images, sides[:, None].expand(-1, 2), draws[:, 1:])
        kept = 1 - is_pasted.flatten(1).float().mean(dim=1)
        return torch.where(is_pasted, others, images), kept


def beta(draws: Tensor, alpha: float) -> Tensor:
    """Return numbers of the distribution Beta(alpha, alpha), made of uniform ones by its quantile function.

    Args:
        draws: Uniform in `[0, 1)`.
        alpha: The parameter, above 0 up to 100.

    Example:
        >>> import torch
        >>> beta(torch.tensor([0.25, 0.5, 0.75]), alpha=1.0)
        tensor([0.2500, 0.5000, 0.7500])
    """
    import torch

    powers = constant(_powers(alpha), draws.device)
    place = torch.minimum(draws, 1 - draws) * (2 * (len(powers) - 1))
    below = place.long().clamp(max=len(powers) - 2)
    power = torch.lerp(powers[below], powers[below + 1], place - below)
    smaller = power.pow(1 / min(alpha, 1))
    return torch.where(draws < 0.5, smaller, 1 - smaller)


@cache
def _powers(alpha: float, count: int = 1025) -> tuple[float, ...]:
    """Return quantiles of Beta(alpha, alpha) from 0 to the median, evenly spaced; to the power of an `alpha` below 1.

    Without the power the density would have a pole at 0, and the quantiles would lie too close to each other there.
    """
    import numpy as np

    power = min(alpha, 1)
    powers = np.linspace(0.0, 0.5**power, 200_001)
    density = powers ** (alpha / power - 1) * (1 - powers ** (1 / power)) ** (alpha - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return tuple(np.interp(np.linspace(0, share[-1], count), share, powers).tolist())
