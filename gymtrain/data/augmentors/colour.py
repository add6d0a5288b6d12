"""Augmentors that change colours; neighbours share a pass over the pixels where no clipping comes between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gymtrain.data.augmentors.base import (
    Augmentor,
    Change,
    Drawn,
    Factor,
    Probability,
    any_of,
    check_factors,
    per_sample,
)
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class Blend(NamedTuple):
    """What becomes of the pixels of an image: `image * pixel + grey * its grey + mean * mean grey + constant`.

    The grey of grey is itself, and so is the mean of means, so that a blend of a blend is a blend.

    Args:
        image: For each image, `(B,)`, or a number for all of them.
        grey: What the grey of each pixel counts.
        mean: What the mean of the grey of all pixels counts.
        constant: What is added.
    """

    image: Tensor | float = 1.0
    grey: Tensor | float = 0.0
    mean: Tensor | float = 0.0
    constant: Tensor | float = 0.0

    def after(self, before: Blend) -> Blend:
        """Return what both do, one after the other."""
        of_grey, of_mean = before.image + before.grey, before.image + before.grey + before.mean
        return Blend(
            _product(self.image, before.image),
            _product(self.image, before.grey) + _product(self.grey, of_grey),
            _product(self.image + self.grey, before.mean) + _product(self.mean, of_mean),
            _product(self.image + self.grey + self.mean, before.constant) + self.constant,
        )


class Recolour(Augmentor):
    """An augmentor that blends each image with its grey, its mean and a constant, and clips it to the pixel range.

    Attributes:
        keeps_range: Whether pixels of the pixel range stay in it, so that nothing is there to be clipped.
    """

    keeps_range: bool = True

    @property
    def family(self) -> type[Augmentor]:
        """All that change colours by blending."""
        return Recolour

    @abstractmethod
    def blend(self, draws: Tensor) -> Blend:
        """Return what becomes of the pixels.

        Args:
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`.
        """

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Blend every image."""
        everyone = draws.new_ones(len(images)).bool()
        return _Blending([Drawn(self, everyone, draws)])(images.clone(), slice(None))

    @staticmethod
    def plan(members: Sequence[Drawn], shape: tuple[int, ...]) -> Change:
        """Blend as often as something has to be clipped, and once in the end."""
        blendings: list[_Blending] = []
        group: list[Drawn] = []
        for place, member in enumerate(members, 1):
            assert isinstance(member.augmentor, Recolour)
            group.append(member)
            if place == len(members) or not member.augmentor.keeps_range:
                blendings.append(_Blending(group))
                group = []

        def change(images: Tensor, rows: slice) -> Tensor:
            for blending in blendings:
                images = blending(images, rows)
            return images

        return change


class _RecolourByFactor(Recolour):
    """A blend with a factor of its own for each image: 1 leaves it as it was."""

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Factor = 0.5, max_factor: Factor = 1.5) -> None:
        check_factors(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor
        self.keeps_range = max_factor <= 1

    def factor(self, draws: Tensor) -> Tensor:
        """Return the factor of each image."""
        return self.min_factor + draws[:, 0] * (self.max_factor - self.min_factor)


class RandomBrightness(_RecolourByFactor):
    """Make images brighter or darker, by blending each with black.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.
        min_factor: The least brightness, at least 0: 0 is black, 1 is the image as it was.
        max_factor: The greatest brightness, at least `min_factor`.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.

    Example:
        >>> import torch
        >>> RandomBrightness(min_factor=2, max_factor=2).augment(torch.tensor([[[1.0, 200.0]]]), torch.zeros(1, 1))
        tensor([[[  2., 255.]]])
    """

    def blend(self, draws: Tensor) -> Blend:
        """Blend with black."""
        factor = self.factor(draws)
        low = self.pixel_range[0]
        return Blend(factor, constant=(1 - factor) * low if low else 0.0)


class RandomColor(_RecolourByFactor):
    """Make images more or less colourful, by blending each with its own grey (the luma of ITU-R 601).

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.
        min_factor: The least colour, at least 0: 0 is grey, 1 is the image as it was.
        max_factor: The most colour, at least `min_factor`: above 1 the colours are stronger than they were.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.

    Example:
        >>> import torch
        >>> red = torch.tensor([[[[1.0, 0.0, 0.0]]]])
        >>> RandomColor(min_factor=0, max_factor=0).augment(red, torch.zeros(1, 1)).flatten()
        tensor([0.2990, 0.2990, 0.2990])
    """

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images of three channels.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not of shape `(height, width, 3)`.
        """
        super().check(shape)
        _check_colour(self, shape)

    def blend(self, draws: Tensor) -> Blend:
        """Blend with the grey."""
        factor = self.factor(draws)
        return Blend(factor, grey=1 - factor)


class RandomContrast(_RecolourByFactor):
    """Make the contrast of images weaker or stronger, by blending each with the mean of its grey.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.
        min_factor: The least contrast, at least 0: 0 is an even grey, 1 is the image as it was.
        max_factor: The greatest contrast, at least `min_factor`.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.

    Example:
        >>> import torch
        >>> strong = RandomContrast(min_factor=2, max_factor=2)
        >>> strong.augment(torch.tensor([[[10.0, 30.0]]]), torch.zeros(1, 1)).round()
        tensor([[[ 0., 40.]]])
    """

    def blend(self, draws: Tensor) -> Blend:
        """Blend with the mean."""
        factor = self.factor(draws)
        return Blend(factor, mean=1 - factor)


class Grayscale(Recolour):
    """Take the colour out of images, which keep their three channels (the luma of ITU-R 601).

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.

    Example:
        >>> import torch
        >>> Grayscale().augment(torch.tensor([[[[0.0, 100.0, 0.0]]]]), torch.zeros(1, 0)).flatten()
        tensor([58.7000, 58.7000, 58.7000])
    """

    def __init__(self, probability: Probability = 0.5) -> None:
        self.probability = probability

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images of three channels.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not of shape `(height, width, 3)`.
        """
        super().check(shape)
        _check_colour(self, shape)

    def blend(self, draws: Tensor) -> Blend:
        """Give the grey."""
        return Blend(image=0.0, grey=1.0)


class Invert(Recolour):
    """Make negatives: black becomes white.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.

    Example:
        >>> import torch
        >>> Invert().augment(torch.tensor([[[0.0, 55.0]]]), torch.zeros(1, 0))
        tensor([[[255., 200.]]])
    """

    def __init__(self, probability: Probability = 0.5) -> None:
        self.probability = probability

    def blend(self, draws: Tensor) -> Blend:
        """Give the distance from white, above black."""
        return Blend(image=-1.0, constant=sum(self.pixel_range))


class HistogramEqualisation(Augmentor):
    """Spread the values of each channel so that all of its 256 levels are about equally frequent.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.

    Example:
        >>> import torch
        >>> dark = torch.arange(256.0).view(1, 16, 16) / 16
        >>> HistogramEqualisation().augment(dark, torch.zeros(1, 0)).max()
        tensor(255.)
    """

    LEVELS = 256

    def __init__(self, probability: Probability = 0.5) -> None:
        self.probability = probability

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Look every pixel up in a table, one for each channel of each image."""
        import torch

        low, high = self.pixel_range
        step = (high - low or 1.0) / (self.LEVELS - 1)
        channels = images[..., None] if images.ndim == 3 else images
        tables = channels.shape[0] * channels.shape[3]
        level = ((channels - low) / step).round_().clamp_(0, self.LEVELS - 1).long()
        first = torch.arange(tables, device=images.device).view(-1, 1, 1, channels.shape[3]) * self.LEVELS
        places = (level + first).flatten()
        counts = torch.zeros(tables * self.LEVELS, dtype=torch.int64, device=images.device)
        counts.scatter_add_(0, places, torch.ones_like(places))
        counts = counts.view(tables, self.LEVELS)
        # The pixels of the brightest level do not count, so that white stays white.
        last = torch.where(counts > 0, torch.arange(self.LEVELS, device=images.device), 0).amax(dim=1, keepdim=True)
        total = counts.sum(dim=1, keepdim=True) - counts.gather(1, last)
        below = counts.cumsum(1) - counts
        table = (below * (self.LEVELS - 1) + total // 2) // total.clamp(min=1)
        table = table.clamp(max=self.LEVELS - 1).to(images.dtype) * step + low
        found = table.flatten().index_select(0, places).view_as(channels)
        has_levels = (total > 0).view(-1, 1, 1, channels.shape[3])
        return torch.where(has_levels, found, channels).view_as(images)


def grey_of(images: Tensor) -> Tensor:
    """Return the luma of colour images, and the mean of the channels of others, `(B, H, W)`."""
    if images.ndim == 3:
        return images
    if images.shape[3] != 3:
        return images.mean(dim=3)
    red, green, blue = images.unbind(-1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def mean_grey_of(images: Tensor, pixel_range: tuple[float, float]) -> Tensor:
    """Return the mean of what `grey_of` returns, `(B,)`, to a small part of a level.

    Whole numbers are summed, so that no rounding depends on the order, and so on the batch; those of a column stay
    below 2**24, which float32 holds exactly.
    """
    low, high = pixel_range
    height, width = images.shape[1:3]
    steps = max(min(2**16, 2**24 // height), 1)
    step = (high - low or 1.0) / steps
    scaled = images.mul(1 / step) if low == 0 else (images - low).mul_(1 / step)
    columns = scaled.round_().sum(dim=1).long()
    means = columns.sum(dim=1).to(images.dtype) * (step / max(height * width, 1)) + low
    return means if images.ndim == 3 else grey_of(means[:, None, None])[:, 0, 0]


class _Blending:
    """One pass over images, for all that neighbouring augmentors do which have chosen them, and the clipping behind it.

    Args:
        members: The augmentors.
    """

    def __init__(self, members: Sequence[Drawn]) -> None:
        import torch

        self._range = low, high = members[0].augmentor.pixel_range
        chosen = any_of(members)
        self._bounds = torch.where(chosen, low, -torch.inf), torch.where(chosen, high, torch.inf)
        self._blend = Blend()
        for augmentor, is_chosen, draws in members:
            assert isinstance(augmentor, Recolour)
            changed = augmentor.blend(draws).after(self._blend)
            self._blend = Blend(*(_either(is_chosen, *pair) for pair in zip(changed, self._blend, strict=True)))

    def __call__(self, images: Tensor, rows: slice) -> Tensor:
        """Blend images, which are these rows of the batch, in place."""
        import torch

        def part(values: Tensor | float) -> Tensor | float:
            return values if isinstance(values, float) else per_sample(values[rows], images).to(images.dtype)

        image, grey, mean, constant = map(part, self._blend)
        greys = grey_of(images) if _counts(grey) else images
        if _counts(mean):
            constant = mean * per_sample(mean_grey_of(images, self._range), images) + constant
        if _counts(grey) and greys is not images:
            greys = greys[..., None] * grey
            images.mul_(image).add_(greys)
        else:
            images.mul_(image + grey)
        if _counts(constant):
            images.add_(constant)
        # With one bound at a time, clipping is several times as fast where each image has bounds of its own.
        low, high = (per_sample(bound[rows], images).to(images.dtype) for bound in self._bounds)
        torch.maximum(images, low, out=images)
        return torch.minimum(images, high, out=images)


def _product(one: Tensor | float, other: Tensor | float) -> Tensor | float:
    """Return a product, which is known to be 0 where a factor is: what is not there costs no pass over the pixels."""
    return one * other if _counts(one) and _counts(other) else 0.0


def _counts(values: Tensor | float) -> bool:
    """Tell whether something is not known to be 0."""
    return not isinstance(values, float) or values != 0


def _either(chosen: Tensor, new: Tensor | float, old: Tensor | float) -> Tensor | float:
    import torch

    if isinstance(new, float) and isinstance(old, float) and new == old:
        return new
    return torch.where(chosen, new, old)


def _check_colour(augmentor: Augmentor, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[2] != 3:
        raise DataError(
            f"{type(augmentor).__name__} needs images with three channels, (height, width, 3); got samples of shape "
            f"{shape}; leave it out of data_augmentors, or give colour images"
        )
