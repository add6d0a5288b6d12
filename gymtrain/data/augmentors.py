"""Augmentors: they change the images of a batch, sample by sample, differently in every epoch.

Nothing here imports torch before a batch comes: a spec is checked against these constructors without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from gymtrain.data.randomness import mix, uniform
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Degrees = Annotated[float, Field(ge=0, le=180)]


class Augmentor(ABC):
    """Base of all augmentors: subclass it to write your own.

    A subclass has a constructor whose arguments are annotated keywords with JSON-able values (the spec is checked
    against that signature; ranges are written as `Annotated[float, Field(ge=0)]`), `num_draws`, how many random numbers
    it needs for each sample, and `augment`, a function of its images and those numbers and of nothing else: what it
    does to a sample is then the same after a resume and in any batch. Which samples are changed it need not care
    about: that is decided here, by `probability`.

    Attributes:
        probability: The share of the samples that are changed, in `[0, 1]`; all of them unless a constructor sets it.
        num_draws: Random numbers that `augment` gets for each sample.

    Example:
        >>> import torch
        >>> class Noise(Augmentor):
        ...     num_draws = 1
        ...
        ...     def __init__(self, probability: Probability = 0.5, amount: Factor = 0.1) -> None:
        ...         self.probability = probability
        ...         self.amount = amount
        ...
        ...     def augment(self, images, draws):
        ...         return images + self.amount * draws.view(-1, *[1] * (images.ndim - 1))
        >>> augmentation = Augmentation([Noise(probability=1.0)], seed=0)
        >>> augmentation(torch.zeros(2, 8, 8), epoch=1, ids=torch.tensor([0, 1])).shape
        torch.Size([2, 8, 8])
    """

    probability: float = 1.0
    num_draws: ClassVar[int] = 0

    @abstractmethod
    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change every image of a batch; which of them are kept is decided by the caller.

        Args:
            images: float32 tensor of shape `(B, H, W)` or `(B, H, W, C)`, values as the preprocessors gave them. It
                belongs to the caller: return another tensor instead of writing into it.
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`, on the device of `images`.

        Returns:
            A tensor of the shape and dtype of `images`.
        """

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that this augmentor cannot work on, before training.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not an image, `(height, width)` or `(height, width, channels)`.
        """
        if len(shape) not in (2, 3):
            raise DataError(
                f"{type(self).__name__} works on images, (height, width) or (height, width, channels); "
                f"got samples of shape {shape}; leave it out of data_augmentors, or reshape the samples"
            )

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment the samples whose first draw is below the probability; the others keep their bits.

        Args:
            images: As for `augment`.
            draws: float32 tensor of shape `(B, 1 + num_draws)`, uniform in `[0, 1)`.

        Returns:
            A new contiguous tensor of the shape and dtype of `images`.

        Raises:
            DataError: `augment` returned another shape or dtype.
        """
        import torch

        augmented = self.augment(images, draws[:, 1:])
        if augmented.shape != images.shape or augmented.dtype != images.dtype:
            raise DataError(
                f"{type(self).__name__}.augment got {images.dtype} images of shape {tuple(images.shape)} and returned "
                f"{augmented.dtype} of shape {tuple(augmented.shape)}; it must keep both"
            )
        # Picking the chosen samples out of the batch would make a GPU wait to learn how many they are.
        chosen = _per_sample(draws[:, 0] < self.probability, images)
        return torch.where(chosen, augmented, images).contiguous()


class Augmentation:
    """A chain of augmentors whose randomness is a pure function of (seed, epoch, sample, place in the chain).

    Args:
        augmentors: Applied in this order.
        seed: The seed of the dataset.

    Example:
        >>> import torch
        >>> augmentation = Augmentation([Flip(probability=1.0)], seed=0)
        >>> augmentation(torch.tensor([[[1.0, 2.0, 3.0]]]), epoch=1, ids=torch.tensor([0]))
        tensor([[[3., 2., 1.]]])
    """

    def __init__(self, augmentors: Sequence[Augmentor], seed: int) -> None:
        self.augmentors = tuple(augmentors)
        self.seed = seed

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that one of the augmentors cannot work on, before training.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: An augmentor cannot work on such samples; the message says which one and why.
        """
        for index, augmentor in enumerate(self.augmentors):
            try:
                augmentor.check(shape)
            except DataError as error:
                raise DataError(f"dataset.data_augmentors[{index}]: {error}") from error

    def __call__(self, batch: Tensor, epoch: int, ids: Tensor) -> Tensor:
        """Augment a batch; what becomes of a sample does not depend on the batch that it is in.

        Args:
            batch: float32 tensor of shape `(B, H, W)` or `(B, H, W, C)`; it is not changed.
            epoch: The epoch, counted from 1.
            ids: int64 tensor of shape `(B,)`: the positions of the samples in their dataset.

        Returns:
            float32 tensor of the shape and on the device of `batch`; `batch` itself where the chain is empty.
        """
        ids = ids.to(batch.device, non_blocking=True)
        for index, augmentor in enumerate(self.augmentors):
            batch = augmentor(batch, uniform(mix(self.seed, epoch, index), ids, 1 + augmentor.num_draws))
        return batch


class Flip(Augmentor):
    """Mirror images.

    Args:
        probability: The share of the samples that are mirrored, in `[0, 1]`.
        direction: `"horizontal"` swaps left and right, `"vertical"` top and bottom, `"random"` does one of the two.

    Example:
        >>> import torch
        >>> Flip(direction="vertical").augment(torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 1)).flatten()
        tensor([2., 1.])
    """

    num_draws = 1

    def __init__(
        self, probability: Probability = 0.5, direction: Literal["horizontal", "vertical", "random"] = "horizontal"
    ) -> None:
        self.probability = probability
        self.direction = direction

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Mirror every image; a draw below one half is horizontal where the direction is random."""
        import torch

        if self.direction == "horizontal":
            return images.flip(2)
        if self.direction == "vertical":
            return images.flip(1)
        return torch.where(_per_sample(draws[:, 0] < 0.5, images), images.flip(2), images.flip(1))


class Rotate(Augmentor):
    """Turn images about their centre, each by an angle of its own; what comes in from outside is 0.

    Args:
        probability: The share of the samples that are turned, in `[0, 1]`.
        max_left_degrees: The largest angle to the left (counter-clockwise), in degrees, 0 to 180.
        max_right_degrees: The largest angle to the right (clockwise), in degrees, 0 to 180.

    Example:
        >>> import torch
        >>> left = Rotate(max_left_degrees=90, max_right_degrees=0).augment(torch.eye(3)[None], torch.ones(1, 1))
        >>> left[0].round().abs()
        tensor([[0., 0., 1.],
                [0., 1., 0.],
                [1., 0., 0.]])
    """

    num_draws = 1

    def __init__(
        self, probability: Probability = 0.5, max_left_degrees: Degrees = 10.0, max_right_degrees: Degrees = 10.0
    ) -> None:
        self.probability = probability
        self.max_left_degrees = max_left_degrees
        self.max_right_degrees = max_right_degrees

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Turn every image, bilinearly; a draw of 0 is the largest angle to the right, 1 the largest to the left."""
        from torch.nn.functional import grid_sample

        degrees = draws[:, 0] * (self.max_left_degrees + self.max_right_degrees) - self.max_right_degrees
        planes = images.movedim(-1, 1) if images.ndim == 4 else images[:, None]
        grid = _rotation_grid(degrees * (math.pi / 180), *planes.shape[2:]).to(images.dtype)
        turned = grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return turned.movedim(1, -1) if images.ndim == 4 else turned[:, 0]


class RandomColor(Augmentor):
    """Make images more or less colourful, by blending each with its own grey (the luma of ITU-R 601).

    The result is not clipped: what the range of the values is, only the preprocessors know.

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
        _check_range(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images of three channels.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not of shape `(height, width, 3)`.
        """
        super().check(shape)
        if len(shape) != 3 or shape[2] != 3:
            raise DataError(
                f"RandomColor needs images with three channels, (height, width, 3); got samples of shape {shape}; "
                "leave it out of data_augmentors, or give colour images"
            )

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Blend every image with its grey."""
        import torch

        red, green, blue = images.unbind(-1)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-1)
        return torch.lerp(grey, images, _factors(draws, self.min_factor, self.max_factor, images))


class RandomBrightness(Augmentor):
    """Multiply the values of each image by a factor of its own.

    The result is not clipped. Values that a preprocessor centred about 0 gain or lose contrast instead of light.

    Args:
        probability: The share of the samples that are changed, in `[0, 1]`.
        min_factor: The least factor, at least 0: 0 is black, 1 is the image as it was.
        max_factor: The greatest factor, at least `min_factor`.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.

    Example:
        >>> import torch
        >>> RandomBrightness(min_factor=2, max_factor=2).augment(torch.ones(1, 1, 2), torch.zeros(1, 1))
        tensor([[[2., 2.]]])
    """

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Factor = 0.5, max_factor: Factor = 1.5) -> None:
        _check_range(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Multiply every image by its factor."""
        return images * _factors(draws, self.min_factor, self.max_factor, images)


def _check_range(min_factor: float, max_factor: float) -> None:
    if min_factor > max_factor:
        raise ValueError(f"min_factor must not be greater than max_factor; got {min_factor=}, {max_factor=}")


def _factors(draws: Tensor, low: float, high: float, images: Tensor) -> Tensor:
    return _per_sample(low + draws[:, 0] * (high - low), images).to(images.dtype)


def _per_sample(values: Tensor, images: Tensor) -> Tensor:
    """Shape `(B,)` values so that they broadcast over the images of a batch."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _rotation_grid(radians: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel of images turned counter-clockwise comes from, (B, H, W, 2), for `grid_sample`.

    `torch.nn.functional.affine_grid` gets there by a matrix product, whose rounding follows the precision that the user
    chose for the model (TF32, bfloat16) and may change with the size of the batch.
    """
    import torch

    radians = radians.view(-1, 1, 1)
    x = torch.arange(width, device=radians.device) - (width - 1) / 2
    y = (torch.arange(height, device=radians.device) - (height - 1) / 2)[:, None]
    cosine, sine = torch.cos(radians), torch.sin(radians)
    from_x = (cosine * x - sine * y) * (2 / width)
    from_y = (sine * x + cosine * y) * (2 / height)
    return torch.stack([from_x, from_y], dim=-1)
