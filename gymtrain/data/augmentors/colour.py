"""Augmentors that change colours; neighbours share a pass over the pixels where no clipping comes between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from gymtrain.data.augmentors.base import (
    Augmentor,
    Drawn,
    Factor,
    Probability,
    any_of,
    change_chosen,
    check_factors,
    per_sample,
)
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class Blend(NamedTuple):
    """What happens to the pixels of each sample: `image * pixel + grey * (the grey of the pixel) + constant`.

    The grey of grey is itself, so that blends after blends are blends.

    Args:
        image: Shape `(B,)` or a number.
        grey: Shape `(B,)` or a number.
        constant: Shape `(B,)` or a number.
    """

    image: Tensor | float = 1.0
    grey: Tensor | float = 0.0
    constant: Tensor | float = 0.0

    def after(self, before: Blend) -> Blend:
        """Return what both do, one after the other."""
        return Blend(
            self.image * before.image,
            self.image * before.grey + self.grey * (before.image + before.grey),
            (self.image + self.grey) * before.constant + self.constant,
        )


class Recolour(Augmentor):
    """An augmentor that blends each image with its grey and a constant; the result is clipped to the pixel range.

    Attributes:
        keeps_range: Whether pixels of the pixel range stay in it, so that nothing is there to be clipped.
    """

    keeps_range: bool = True

    @property
    def family(self) -> type[Augmentor]:
        """All that change colours by blending."""
        return Recolour

    @abstractmethod
    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
        """Return what happens to the pixels.

        Args:
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`.
            mean: Returns the mean grey of each image, of shape `(B,)`; it costs a pass over the pixels.
        """

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Blend every image."""
        import torch

        everyone = torch.ones(len(images), dtype=torch.bool, device=images.device)
        return _blended([Drawn(self, everyone, draws)], images, slice(None))

    @staticmethod
    def run(images: Tensor, members: Sequence[Drawn]) -> Tensor:
        """Blend as often as something has to be clipped, and once at the end."""
        group: list[Drawn] = []
        for member in members:
            group.append(member)
            if member is members[-1] or not _recolour(member).keeps_range:
                images = change_chosen(images, any_of(group), partial(_blended, group))
                group = []
        return images


class RandomBrightness(Recolour):
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

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Factor = 0.5, max_factor: Factor = 1.5) -> None:
        check_factors(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor
        self.keeps_range = max_factor <= 1

    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
        """Blend with black."""
        factor = _between(draws, self.min_factor, self.max_factor)
        return Blend(factor, constant=(1 - factor) * self.pixel_range[0])


class RandomColor(Recolour):
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

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Factor = 0.5, max_factor: Factor = 1.5) -> None:
        check_factors(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor
        self.keeps_range = max_factor <= 1

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images of three channels.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not of shape `(height, width, 3)`.
        """
        super().check(shape)
        _check_colour(self, shape)

    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
        """Blend with the grey."""
        factor = _between(draws, self.min_factor, self.max_factor)
        return Blend(factor, grey=1 - factor)


class RandomContrast(Recolour):
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

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Factor = 0.5, max_factor: Factor = 1.5) -> None:
        check_factors(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor
        self.keeps_range = max_factor <= 1

    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
        """Blend with the mean."""
        factor = _between(draws, self.min_factor, self.max_factor)
        return Blend(factor, constant=(1 - factor) * mean())


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

    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
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

    def blend(self, draws: Tensor, mean: Callable[[], Tensor]) -> Blend:
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


class Greys:
    """The grey of images, and its mean as blends would make it; both are worked out when they are asked for.

    Args:
        images: `(B, H, W)` or `(B, H, W, C)`.
        pixel_range: The range of their values.
    """

    # Sums of whole numbers have no rounding that depends on their order, and so on the batch.
    STEPS = 2**24

    def __init__(self, images: Tensor, pixel_range: tuple[float, float]) -> None:
        self._images, self._low = images, pixel_range[0]
        self._step = (pixel_range[1] - pixel_range[0] or 1.0) / self.STEPS

    @cached_property
    def pixels(self) -> Tensor:
        """The grey of every pixel, `(B, H, W)`."""
        return grey_of(self._images)

    def mean(self, blend: Blend) -> Tensor:
        """Return the mean of the grey of the blended images, of shape `(B,)`."""
        return (blend.image + blend.grey) * self._mean + blend.constant

    @cached_property
    def _mean(self) -> Tensor:
        steps = ((self.pixels - self._low) / self._step).round_().long().sum((1, 2))
        return steps.to(self.pixels.dtype) * (self._step / self.pixels[:1].numel()) + self._low


def grey_of(images: Tensor) -> Tensor:
    """Return the luma of colour images, and the mean of the channels of others, `(B, H, W)`."""
    if images.ndim == 3:
        return images
    if images.shape[3] != 3:
        return images.mean(dim=3)
    red, green, blue = images.unbind(-1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _recolour(member: Drawn) -> Recolour:
    assert isinstance(member.augmentor, Recolour)
    return member.augmentor


def _blended(members: Sequence[Drawn], images: Tensor, rows: Tensor | slice) -> Tensor:
    """Blend images, which are these rows of the batch, as all augmentors that have chosen them say, and clip."""
    import torch

    pixel_range = members[0].augmentor.pixel_range
    greys, uses_grey = Greys(images, pixel_range), False
    one, zero = images.new_ones(len(images)), images.new_zeros(len(images))
    blend = Blend(one, zero, zero)
    for member in members:
        _, chosen, draws = member.of(rows)
        changed = _recolour(member).blend(draws, partial(greys.mean, blend))
        uses_grey |= isinstance(changed.grey, torch.Tensor) or changed.grey != 0
        pairs = zip(changed.after(blend), blend, strict=True)
        blend = Blend(*(torch.where(chosen, new, old).to(images.dtype) for new, old in pairs))
    image, grey, constant = (per_sample(torch.as_tensor(each), images) for each in blend)
    result = images * image
    if uses_grey:
        pixels = greys.pixels
        result += (pixels if images.ndim == 3 else pixels[..., None]) * grey + constant
    else:
        result += constant
    return result.clamp_(*pixel_range)


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + draws[:, 0] * (high - low)


def _check_colour(augmentor: Augmentor, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[2] != 3:
        raise DataError(
            f"{type(augmentor).__name__} needs images with three channels, (height, width, 3); got samples of shape "
            f"{shape}; leave it out of data_augmentors, or give colour images"
        )
