"""What an augmentor is, and how it comes to the samples that it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union

from pydantic import Field

from gymtrain.data.images import check_channels_last
from gymtrain.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rows = Union["Tensor", slice]
"""Which rows of a batch."""
Change = Callable[["Tensor", slice], "Tensor"]

Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
        pixel_range: The least and the greatest value of a pixel, `(black, white)`; set by the `Augmentation`.

    Example:
        >>> import torch
        >>> from gymtrain.data.augmentors import Augmentation
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
    num_draws: int = 0
    pixel_range: tuple[float, float] = (0.0, 255.0)

    @abstractmethod
    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change every image that is given.

        Args:
            images: float32 tensor of shape `(B, H, W)` or `(B, H, W, C)`, the pixels before they are normalised. It
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
        check_channels_last(shape, type(self).__name__)

    @property
    def family(self) -> type[Augmentor]:
        """The class whose `plan` does neighbours of this kind in one go."""
        return Augmentor

    @staticmethod
    def plan(members: Sequence[Drawn], shape: tuple[int, ...]) -> Change:
        """Return what neighbouring augmentors of this family do to the images of a batch, in their order.

        Args:
            members: The augmentors, with which samples they change and how.
            shape: The shape of an image.

        Returns:
            A function of some consecutive images of the batch and of the rows of the batch that they are. It may write
            into the images; what it returns has their shape and dtype, and samples that no augmentor has chosen keep
            their bits in it. It raises a `DataError` where `augment` returns another shape or dtype.
        """

        def change(images: Tensor, rows: slice) -> Tensor:
            for member in members:
                drawn = member.of(rows)
                images = change_chosen(images, drawn.chosen, drawn.augmented)
            return images

        return change


class Drawn(NamedTuple):
    """An augmentor and what was drawn for the samples of a batch.

    Args:
        augmentor: The augmentor.
        chosen: Which samples it changes, bool of shape `(B,)`.
        draws: How, float32 of shape `(B, num_draws)`, uniform in `[0, 1)`.
    """

    augmentor: Augmentor
    chosen: Tensor
    draws: Tensor

    def of(self, rows: Rows) -> Drawn:
        """Return the same for some of the samples."""
        return Drawn(self.augmentor, self.chosen[rows], self.draws[rows])

    def augmented(self, images: Tensor, rows: Rows) -> Tensor:
        """Return images, which are these rows of the batch, as `augment` changes all of them.

        Raises:
            DataError: `augment` returned another shape or dtype.
        """
        augmented = self.augmentor.augment(images, self.draws[rows])
        if augmented.shape != images.shape or augmented.dtype != images.dtype:
            raise DataError(
                f"{type(self.augmentor).__name__}.augment got {images.dtype} images of shape {tuple(images.shape)} "
                f"and returned {augmented.dtype} of shape {tuple(augmented.shape)}; it must keep both"
            )
        return augmented


def change_chosen(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Rows], Tensor]) -> Tensor:
    """Change some of the images of a batch; the others keep their bits.

    Args:
        images: `(B, H, W)` or `(B, H, W, C)`; it may be written into.
        chosen: Which of them are changed, bool of shape `(B,)`.
        change: Called with images and with the rows of the batch that they are; what it makes of an image may not
            depend on the others.

    Returns:
        A tensor of the shape of `images`, or `images` itself.
    """
    import torch

    if images.device.type != "cpu":
        # To pick the chosen ones out of the batch, the host would have to wait until it knows how many they are.
        return torch.where(per_sample(chosen, images), change(images, slice(None)), images)
    rows = chosen.nonzero().squeeze(1)
    if len(rows):
        changed = change(images.index_select(0, rows), rows)
        if changed.is_contiguous():
            images.index_copy_(0, rows, changed)
        else:  # planes of channels, which are copied several times as fast one by one
            for place, plane in zip(images.unbind(-1), changed.unbind(-1), strict=True):
                place.index_copy_(0, rows, plane)
    return images


def per_sample(values: Tensor, images: Tensor) -> Tensor:
    """Shape `(B,)` values so that they broadcast over the images of a batch."""
    return values.view(-1, *[1] * (images.ndim - 1))


@cache
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Return numbers as a float32 tensor; they are copied to a device once, because a GPU would be waited for."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device)


def any_of(members: Sequence[Drawn]) -> Tensor:
    """Return which samples one of the augmentors changes, bool of shape `(B,)`."""
    chosen = members[0].chosen
    for member in members[1:]:
        chosen = chosen | member.chosen
    return chosen


def check_factors(min_factor: float, max_factor: float) -> None:
    """Refuse a range of factors that is the wrong way round.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.
    """
    if min_factor > max_factor:
        raise ValueError(f"min_factor must not be greater than max_factor; got {min_factor=}, {max_factor=}")
