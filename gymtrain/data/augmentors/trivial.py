"""One change for each sample, drawn from changes of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gymtrain.data.augmentors.base import Augmentor, Drawn, Probability, Rows, change_chosen, constant, per_sample
from gymtrain.data.augmentors.colour import Blend, HistogramEqualisation, Recolour
from gymtrain.data.augmentors.geometry import Projection, affine

if TYPE_CHECKING:
    from torch import Tensor

# The ways to change a sample, in the order of the draw; the first is no change.
_MOVES = ("shear along x", "shear along y", "shift along x", "shift along y", "turn")
_FACTORS = ("brightness", "colour", "contrast")
_WAYS = ("nothing", *_MOVES, *_FACTORS, "sharpness", "posterize", "solarize", "stretch", "equalise")


class TrivialAugment(Augmentor):
    """Change each sample in one way, drawn from fourteen, with a strength that is drawn too: the wide TrivialAugment.

    The ways are: not at all; a shear along either axis by up to 0.99; a shift along either by up to 32 pixels, and at
    most half of the image; a turn by up to 135 degrees; brightness, colour, contrast or sharpness by a factor from 0.01
    to 1.99; 8 to 2 bits; a negative of what is brighter than a threshold; and the values of each channel spread over
    the whole range, linearly or until its levels are equally frequent (S. Müller and F. Hutter, 2021). What comes in
    from outside is black.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.

    Example:
        >>> import torch
        >>> TrivialAugment().augment(torch.ones(1, 8, 8, 3), torch.tensor([[0.4, 0.9]])).shape
        torch.Size([1, 8, 8, 3])
    """

    num_draws = 2

    def __init__(self, probability: Probability = 1.0) -> None:
        self.probability = probability

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change every image; the first draw is the way, the second the strength, with no change at one half."""
        import torch

        images = images.clone()
        way = (draws[:, 0] * len(_WAYS)).floor()
        chosen = {name: way == place for place, name in enumerate(_WAYS)}
        signed = draws[:, 1] * 2 - 1
        for kind, names in ((_Move, _MOVES), (_Factor, _FACTORS)):
            among = torch.stack([chosen[name] for name in names], dim=1)
            augmentor = kind()
            augmentor.pixel_range = self.pixel_range
            member = Drawn(augmentor, among.any(dim=1), torch.where(among, signed[:, None], 0.0))
            images = augmentor.family.plan([member], images.shape[1:])(images, slice(None))
        changes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "sharpness": self._sharpened,
            "posterize": self._posterized,
            "solarize": self._solarized,
            "stretch": self._stretched,
            "equalise": self._equalised,
        }
        for name, change in changes.items():

            def changed(those: Tensor, rows: Rows, change: Callable[[Tensor, Tensor], Tensor] = change) -> Tensor:
                return change(those, draws[rows, 1]).to(those.dtype)

            images = change_chosen(images, chosen[name], changed)
        return images

    def _sharpened(self, images: Tensor, strength: Tensor) -> Tensor:
        """Blend with a smoothed image, whose outer pixels are those of the image."""
        smooth = images.clone()
        rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
        smooth[:, 1:-1, 1:-1] = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]) / 13
        factor = per_sample(1 + 0.99 * (strength * 2 - 1), images)
        return (images * factor + smooth * (1 - factor)).clamp_(*self.pixel_range)

    def _posterized(self, images: Tensor, strength: Tensor) -> Tensor:
        low, high = self.pixel_range
        level = (high - low or 1.0) / 255
        step = per_sample(2 ** (strength * 7).floor(), images)
        return ((images - low) / level / step).floor_() * step * level + low

    def _solarized(self, images: Tensor, strength: Tensor) -> Tensor:
        import torch

        low, high = self.pixel_range
        threshold = per_sample(high - strength * (high - low), images)
        return torch.where(images >= threshold, low + high - images, images)

    def _stretched(self, images: Tensor, strength: Tensor) -> Tensor:
        import torch

        low, high = self.pixel_range
        least, greatest = images.amin(dim=(1, 2), keepdim=True), images.amax(dim=(1, 2), keepdim=True)
        scale = (high - low) / (greatest - least)
        return torch.where(greatest > least, ((images - least) * scale + low).clamp_(low, high), images)

    def _equalised(self, images: Tensor, strength: Tensor) -> Tensor:
        equalisation = HistogramEqualisation()
        equalisation.pixel_range = self.pixel_range
        return equalisation.augment(images, strength[:, None])


class _Move(Projection):
    """One of the ways that move pixels; the draws say how far, from -1 to 1, and are 0 but for one of them."""

    num_draws = len(_MOVES)
    stays_inside = False

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        import torch

        most = (0.99, 0.99, min(32, width / 2), min(32, height / 2), math.radians(135))
        shear_x, shear_y, x, y, turn = (draws * constant(most, draws.device)).unbind(dim=1)
        cosine, sine = torch.cos(turn), torch.sin(turn)
        return affine(cosine, shear_x - sine, x, shear_y + sine, cosine, y)


class _Factor(Recolour):
    """One of the ways that blend; the draws say by how much, from -1 to 1, and are 0 but for one of them."""

    num_draws = len(_FACTORS)
    keeps_range = False

    def blend(self, draws: Tensor) -> Blend:
        brightness, colour, contrast = (1 + 0.99 * draws).unbind(dim=1)
        constant = (1 - brightness) * self.pixel_range[0]
        return Blend(brightness * colour * contrast, 1 - colour, 1 - contrast, constant)
