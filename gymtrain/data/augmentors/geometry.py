"""Augmentors that move pixels; neighbours are composed, so that an image is resampled once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from gymtrain.data.augmentors.base import (
    Augmentor,
    Change,
    Drawn,
    Probability,
    Rows,
    any_of,
    change_chosen,
    check_factors,
    constant,
    per_sample,
)
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Degrees = Annotated[float, Field(ge=0, le=180)]
ShearDegrees = Annotated[float, Field(ge=0, lt=90)]
Zooming = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# By how much a point may seem to lie beyond the edge, relative to half the image, because of rounding.
_TOLERANCE = 1e-4


class Warp(Augmentor):
    """An augmentor that says, for each pixel of its result, where it comes from.

    Points have their origin in the middle of the image; x grows to the right and y downwards, in pixels. What comes
    from outside the image is black. Neighbours are composed: an image is interpolated once, bilinearly, however many
    of them change it, and not at all where all those that do only rearrange pixels.

    Attributes:
        is_exact: Whether it rearranges pixels, and `augment` does so without interpolation.
        stays_inside: Whether no pixel of the result comes from outside the image.
    """

    is_exact: ClassVar[bool] = False
    stays_inside: bool = True

    @property
    def family(self) -> type[Augmentor]:
        """All that move pixels."""
        return Warp

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Resample every image."""
        everyone = draws.new_ones(len(images)).bool()
        return _Resampling([Drawn(self, everyone, draws)], images.shape[1:])(images, slice(None))

    @staticmethod
    def plan(members: Sequence[Drawn], shape: tuple[int, ...]) -> Change:
        """Rearrange the pixels of samples that need no more than that, and resample the others once."""
        exact = [member for member in members if _warp(member).is_exact]
        others = [member for member in members if not _warp(member).is_exact]
        if not others:
            return Augmentor.plan(exact, shape)
        is_resampled, resampling = any_of(others), _Resampling(members, shape)
        rearrange = Augmentor.plan([each._replace(chosen=each.chosen & ~is_resampled) for each in exact], shape)

        def change(images: Tensor, rows: slice) -> Tensor:
            part = resampling.of(rows)
            return change_chosen(rearrange(images, rows), is_resampled[rows], part)

        return change


class Projection(Warp):
    """A warp that takes straight lines to straight lines: a matrix for each sample.

    Attributes:
        is_affine: Whether it takes parallels to parallels: the last row of the matrix is `(0, 0, 1)`.
    """

    is_affine: ClassVar[bool] = True

    @abstractmethod
    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return which point of the image each point of the result comes from, in homogeneous coordinates.

        Args:
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`.
            height: Rows of an image.
            width: Columns of an image.

        Returns:
            float32 tensor of shape `(B, 3, 3)`.
        """


class Displacement(Warp):
    """A warp that moves the knots of a grid over the image, and what lies between them along with them.

    The outer knots lie on the edges of the image, and stay where they are.

    Attributes:
        grid_width: Into how many tiles the grid divides the image along x, at least 2.
        grid_height: Into how many along y, at least 2.
    """

    stays_inside = False
    grid_width: int
    grid_height: int

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images, or have fewer pixels than the grid has tiles.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not an image, or it is too small.
        """
        super().check(shape)
        if shape[0] < self.grid_height or shape[1] < self.grid_width:
            raise DataError(
                f"{type(self).__name__} has grid_height={self.grid_height}, grid_width={self.grid_width}; got samples "
                f"of shape {shape}, which are smaller; give a coarser grid"
            )

    @abstractmethod
    def moves(self, draws: Tensor) -> Tensor:
        """Return how far away from each inner knot the pixel comes that is shown there, in pixels.

        Args:
            draws: float32 tensor of shape `(B, num_draws)`, uniform in `[0, 1)`.

        Returns:
            float32 tensor of shape `(B, 2, grid_height - 1, grid_width - 1)`, x before y.
        """


class Flip(Projection):
    """Mirror images.

    Args:
        probability: The share of the samples that are mirrored, in `[0, 1]`.
        top_bottom_left_right: `"LEFT_RIGHT"` swaps left and right, `"TOP_BOTTOM"` top and bottom, `"RANDOM"` does one
            of the two.

    Example:
        >>> import torch
        >>> Flip(top_bottom_left_right="TOP_BOTTOM").augment(torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 1))
        tensor([[[2.],
                 [1.]]])
    """

    num_draws = 1
    is_exact = True

    def __init__(
        self,
        probability: Probability = 0.5,
        top_bottom_left_right: Literal["LEFT_RIGHT", "TOP_BOTTOM", "RANDOM"] = "LEFT_RIGHT",
    ) -> None:
        self.probability = probability
        self.top_bottom_left_right = top_bottom_left_right

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Mirror every image; a draw below one half swaps left and right where the direction is random."""
        import torch

        if self.top_bottom_left_right == "LEFT_RIGHT":
            return images.flip(2)
        if self.top_bottom_left_right == "TOP_BOTTOM":
            return images.flip(1)
        return torch.where(per_sample(draws[:, 0] < 0.5, images), images.flip(2), images.flip(1))

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return reflections."""
        import torch

        swaps_sides = draws[:, 0] < {"LEFT_RIGHT": 1.0, "TOP_BOTTOM": 0.0, "RANDOM": 0.5}[self.top_bottom_left_right]
        x = torch.where(swaps_sides, -1.0, 1.0)
        return affine(x, 0.0, 0.0, 0.0, -x, 0.0)


class Rotate(Projection):
    """Turn images by a multiple of 90 degrees, without interpolation.

    Args:
        probability: The share of the samples that are turned, in `[0, 1]`.
        rotation: Degrees counter-clockwise: 90, 180 or 270; -1 draws one of them for each sample. Only square images
            keep their shape when they are turned by 90 or 270 degrees.

    Example:
        >>> import torch
        >>> Rotate(rotation=90).augment(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.zeros(1, 1))
        tensor([[[2., 4.],
                 [1., 3.]]])
    """

    num_draws = 1
    is_exact = True

    def __init__(self, probability: Probability = 0.5, rotation: Literal[90, 180, 270, -1] = -1) -> None:
        self.probability = probability
        self.rotation = rotation

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are not images, and those that would change their shape.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not an image, or it is not square and not turned by 180 degrees.
        """
        super().check(shape)
        if self.rotation != 180 and shape[0] != shape[1]:
            raise DataError(
                f"Rotate needs square images, which keep their shape when they are turned by 90 degrees; got samples "
                f"of shape {shape}; use rotation: 180 or rotate_range, or make the images square by image_resize"
            )

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Turn every image; where the angle is random, draws from the lowest third on give 90, 180, 270 degrees."""
        import torch

        if self.rotation != -1:
            return images.rot90(self.rotation // 90, (1, 2))
        turns = per_sample(self._turns(draws), images)
        once, twice, thrice = (images.rot90(count, (1, 2)) for count in (1, 2, 3))
        return torch.where(turns == 1, once, torch.where(turns == 2, twice, thrice))

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return rotations."""
        import torch

        turns = self._turns(draws)
        sine = torch.where(turns == 1, 1.0, torch.where(turns == 2, 0.0, -1.0))
        cosine = torch.where(turns == 2, -1.0, 0.0)
        return affine(cosine, -sine, 0.0, sine, cosine, 0.0)

    def _turns(self, draws: Tensor) -> Tensor:
        """Return how often each image is turned by 90 degrees, 1 to 3."""
        import torch

        if self.rotation == -1:
            return (draws[:, 0] * 3).floor() + 1
        return torch.full_like(draws[:, 0], self.rotation // 90)


class RotateRange(Projection):
    """Turn images about their centre, each by an angle of its own, and enlarge them until no corner is empty.

    What is shown is the largest rectangle of the shape of the image that fits into the turned one.

    Args:
        probability: The share of the samples that are turned, in `[0, 1]`.
        max_left_rotation: The largest angle to the left (counter-clockwise), in degrees, 0 to 180.
        max_right_rotation: The largest angle to the right (clockwise), in degrees, 0 to 180.

    Example:
        >>> import torch
        >>> left = RotateRange(max_left_rotation=90, max_right_rotation=0).augment(torch.eye(3)[None], torch.ones(1, 1))
        >>> left[0].round().abs()
        tensor([[0., 0., 1.],
                [0., 1., 0.],
                [1., 0., 0.]])
    """

    num_draws = 1

    def __init__(
        self, probability: Probability = 0.5, max_left_rotation: Degrees = 10.0, max_right_rotation: Degrees = 10.0
    ) -> None:
        self.probability = probability
        self.max_left_rotation = max_left_rotation
        self.max_right_rotation = max_right_rotation

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return rotations; a draw of 0 is the largest angle to the right, 1 the largest to the left."""
        import torch

        degrees = draws[:, 0] * (self.max_left_rotation + self.max_right_rotation) - self.max_right_rotation
        cosine, sine = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
        long = max(height / width, width / height)
        scale = 1 / (cosine.abs() + sine.abs() * long)
        return affine(scale * cosine, -scale * sine, 0.0, scale * sine, scale * cosine, 0.0)


class Shear(Projection):
    """Shear images along one of their axes, each by an angle of its own, and stretch them until no corner is empty.

    Args:
        probability: The share of the samples that are sheared, in `[0, 1]`.
        max_shear_left: The largest angle by which the upright edges lean to the left, in degrees, below 90.
        max_shear_right: The largest angle by which they lean to the right. Half of the samples are sheared along the
            other axis, up and down.

    Example:
        >>> import torch
        >>> Shear().augment(torch.ones(1, 4, 4), torch.tensor([[0.9, 0.0]])).shape
        torch.Size([1, 4, 4])
    """

    num_draws = 2

    def __init__(
        self, probability: Probability = 0.5, max_shear_left: ShearDegrees = 10.0, max_shear_right: ShearDegrees = 10.0
    ) -> None:
        self.probability = probability
        self.max_shear_left = max_shear_left
        self.max_shear_right = max_shear_right

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples of which nothing would be left.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not an image, or so long that the shear moves one end past the other.
        """
        super().check(shape)
        height, width = shape[:2]
        limit = math.degrees(math.atan(min(height / width, width / height)))
        if max(self.max_shear_left, self.max_shear_right) >= limit:
            raise DataError(
                f"Shear leaves nothing of samples of shape {shape} from an angle of {limit:.3g} degrees on; got "
                f"max_shear_left={self.max_shear_left}, max_shear_right={self.max_shear_right}; give smaller angles"
            )

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return shears; the first draw goes from left to right, the second below one half is along the x axis."""
        import torch

        degrees = draws[:, 0] * (self.max_shear_left + self.max_shear_right) - self.max_shear_left
        slope = torch.tan(degrees * (math.pi / 180))
        is_sideways = draws[:, 1] < 0.5
        x, y = torch.where(is_sideways, slope, 0.0), torch.where(is_sideways, 0.0, slope)
        return affine(1 - x.abs() * (height / width), x, 0.0, y, 1 - y.abs() * (width / height), 0.0)


# By how much a skew moves the corners of the image, top left, top right, bottom right, bottom left, as multiples of its
# amount: tilts to the left, right, forwards and backwards, then each corner along each of the axes.
_SKEWS = (
    ((0, -1), (0, 0), (0, 0), (0, 1)),
    ((0, 0), (0, -1), (0, 1), (0, 0)),
    ((-1, 0), (1, 0), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (1, 0), (-1, 0)),
    ((-1, 0), (0, 0), (0, 0), (0, 0)),
    ((0, -1), (0, 0), (0, 0), (0, 0)),
    ((0, 0), (1, 0), (0, 0), (0, 0)),
    ((0, 0), (0, -1), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (1, 0), (0, 0)),
    ((0, 0), (0, 0), (0, 1), (0, 0)),
    ((0, 0), (0, 0), (0, 0), (-1, 0)),
    ((0, 0), (0, 0), (0, 0), (0, 1)),
)
# The first and the last of them that a type draws from, and the share of its samples.
_SKEW_TYPES = {
    "TILT": ((0, 4, 1.0),),
    "TILT_LEFT_RIGHT": ((0, 2, 1.0),),
    "TILT_TOP_BOTTOM": ((2, 4, 1.0),),
    "CORNER": ((4, 12, 1.0),),
    "RANDOM": ((0, 4, 0.75), (4, 12, 0.25)),
}


class Skew(Projection):
    """Show images as if they were tilted, each by an amount of its own; what leaves the frame is cut off.

    Args:
        probability: The share of the samples that are tilted, in `[0, 1]`.
        skew_type: `"TILT"` tilts to the left or right, forwards or backwards, `"TILT_LEFT_RIGHT"` and
            `"TILT_TOP_BOTTOM"` one of two of these, `"CORNER"` pulls at one corner along one axis, and `"RANDOM"` does
            any of it.
        magnitude: How far a corner is pulled out of the frame at most, relative to the longer side, above 0 up to 1.

    Example:
        >>> import torch
        >>> Skew().augment(torch.ones(1, 4, 4), torch.tensor([[0.9, 0.0]])).shape
        torch.Size([1, 4, 4])
    """

    num_draws = 2
    is_affine = False

    def __init__(
        self,
        probability: Probability = 0.5,
        skew_type: Literal["TILT", "TILT_LEFT_RIGHT", "TILT_TOP_BOTTOM", "CORNER", "RANDOM"] = "RANDOM",
        magnitude: Annotated[float, Field(gt=0, le=1)] = 0.3,
    ) -> None:
        self.probability = probability
        self.skew_type = skew_type
        self.magnitude = magnitude

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return projections; the first draw is the amount, the second the direction."""
        import torch

        amount = draws[:, 0] * (self.magnitude * max(height, width))
        which, begin = torch.zeros_like(amount), 0.0
        for first, end, share in _SKEW_TYPES[self.skew_type]:
            among = first + ((draws[:, 1] - begin) * ((end - first) / share)).floor()
            which, begin = torch.where(draws[:, 1] >= begin, among.clamp(max=end - 1), which), begin + share
        moves = constant(_SKEWS, amount.device)[which.long()]
        x, y = width / 2, height / 2
        corners = constant(((-x, -y), (x, -y), (x, y), (-x, y)), amount.device)
        to_unit_square = _adjugate(_from_unit_square(corners + moves * amount[:, None, None]))
        from_unit_square = affine(torch.full_like(amount, width), 0.0, -width / 2, 0.0, float(height), -height / 2)
        return _product(from_unit_square, to_unit_square)


class Zoom(Projection):
    """Enlarge images about their centre, each by a factor of its own; they keep their shape.

    Args:
        probability: The share of the samples that are enlarged, in `[0, 1]`.
        min_factor: The least factor, above 0; below 1 the image shrinks, and black comes in from outside.
        max_factor: The greatest factor, at least `min_factor`.

    Raises:
        ValueError: `min_factor` is greater than `max_factor`.

    Example:
        >>> import torch
        >>> Zoom(min_factor=2, max_factor=2).augment(torch.tensor([[[0.0, 1, 2, 3]]]), torch.zeros(1, 1))
        tensor([[[0.7500, 1.2500, 1.7500, 2.2500]]])
    """

    num_draws = 1

    def __init__(self, probability: Probability = 0.5, min_factor: Zooming = 1.0, max_factor: Zooming = 1.5) -> None:
        check_factors(min_factor, max_factor)
        self.probability = probability
        self.min_factor = min_factor
        self.max_factor = max_factor
        self.stays_inside = min_factor >= 1

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return scalings."""
        scale = 1 / (self.min_factor + draws[:, 0] * (self.max_factor - self.min_factor))
        return affine(scale, 0.0, 0.0, 0.0, scale, 0.0)


class ZoomRandom(Projection):
    """Enlarge a part of each image, which lies anywhere in it, to the shape of the whole.

    Args:
        probability: The share of the samples that are enlarged, in `[0, 1]`.
        percentage_area: The sides of the part relative to those of the image, 0.1 to 1. (The name is that of the
            library Augmentor, which multiplies the sides by it too.)
        randomise: Draw the sides of each sample's part from 0.1 to `percentage_area`.

    Example:
        >>> import torch
        >>> ZoomRandom(percentage_area=0.5).augment(torch.tensor([[[0.0, 1, 2, 3]]]), torch.zeros(1, 3))
        tensor([[[0.0000, 0.2500, 0.7500, 1.2500]]])
    """

    num_draws = 3

    def __init__(
        self,
        probability: Probability = 0.5,
        percentage_area: Annotated[float, Field(ge=0.1, le=1)] = 0.8,
        randomise: bool = False,
    ) -> None:
        self.probability = probability
        self.percentage_area = percentage_area
        self.randomise = randomise

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return scalings with a shift; the draws are where it lies, along x and along y, and the size."""
        least = 0.1 if self.randomise else self.percentage_area
        scale = least + draws[:, 2] * (self.percentage_area - least)
        x, y = ((draws[:, axis] - 0.5) * (1 - scale) * size for axis, size in enumerate((width, height)))
        return affine(scale, 0.0, x, 0.0, scale, y)


class RandomCrop(Projection):
    """Shift images by whole pixels, as if they were cut at random out of images with a black margin.

    Args:
        probability: The share of the samples that are shifted, in `[0, 1]`.
        padding: The width of the margin in pixels, at least 1: how far an image is shifted at most, along each axis.

    Example:
        >>> import torch
        >>> RandomCrop(padding=1).augment(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[0.9, 0.5]]))
        tensor([[[2., 3., 0.]]])
    """

    num_draws = 2
    is_exact = True
    stays_inside = False

    def __init__(self, probability: Probability = 1.0, padding: Annotated[int, Field(ge=1, le=10_000)] = 4) -> None:
        self.probability = probability
        self.padding = padding

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that would be shifted out of sight.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: A sample is not an image, or no larger than the margin.
        """
        super().check(shape)
        if self.padding >= min(shape[:2]):
            raise DataError(
                f"RandomCrop shifts by up to padding={self.padding} pixels; got samples of shape {shape}, of which "
                "nothing may be left; give a smaller padding"
            )

    def augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Shift every image; a draw of 0 shows what lies to the left or above, 1 what lies to the right or below."""
        import torch

        height, width = images.shape[1:3]
        x, y = (
            torch.arange(size, device=images.device) + self._shift(draws[:, axis])[:, None]
            for axis, size in enumerate((width, height))
        )
        samples = torch.arange(len(images), device=images.device)[:, None, None]
        shifted = images[samples, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
        is_outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
        return shifted.masked_fill(is_outside.view(*is_outside.shape, *[1] * (images.ndim - 3)), self.pixel_range[0])

    def matrix(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return shifts."""
        import torch

        x, y = (self._shift(draws[:, axis]).to(draws.dtype) for axis in (0, 1))
        return affine(torch.ones_like(x), 0.0, x, 0.0, 1.0, y)

    def _shift(self, draws: Tensor) -> Tensor:
        return (draws * (2 * self.padding + 1)).long() - self.padding


def affine(*entries: Tensor | float) -> Tensor:
    """Return matrices of shape `(B, 3, 3)` from their first two rows: shape `(B,)` or numbers."""
    import torch

    like = next(each for each in entries if not isinstance(each, float))
    entries = (*entries, 0.0, 0.0, 1.0)
    numbers = {each: torch.full_like(like, each) for each in {each for each in entries if isinstance(each, float)}}
    rows = [numbers[each] if isinstance(each, float) else each for each in entries]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _warp(member: Drawn) -> Warp:
    assert isinstance(member.augmentor, Warp)
    return member.augmentor


class _Resampling:
    """One interpolation of images, for all that the augmentors do which have chosen them.

    Args:
        members: Neighbouring warps.
        shape: The shape of an image.
    """

    def __init__(self, members: Sequence[Drawn], shape: tuple[int, ...]) -> None:
        import torch

        self._black, device = members[0].augmentor.pixel_range[0], members[0].draws.device
        across, down = (torch.arange(size, device=device) - (size - 1) / 2 for size in (shape[1], shape[0]))
        self._places = across.view(1, 1, -1), down.view(1, -1, 1)
        self._steps: list[_Step] = []
        self._affine = True
        self._matrix: Tensor | None = None
        # From the result back to the image: the last augmentor is asked first, and matrices are gathered until it has
        # to be known where the points are.
        for member in reversed(members):
            self._add(member, *shape[:2])
        self._apply_matrix()

    def of(self, rows: slice) -> Callable[[Tensor, Rows], Tensor]:
        """Return what resamples some consecutive images; it is told which of them."""
        steps = [step.of(rows) for step in self._steps]
        return lambda images, chosen: self._resampled(images, [step.of(chosen) for step in steps])

    def __call__(self, images: Tensor, rows: Rows) -> Tensor:
        """Resample images, which are these rows of the batch."""
        return self._resampled(images, [step.of(rows) for step in self._steps])

    def _add(self, member: Drawn, height: int, width: int) -> None:
        import torch

        augmentor, chosen, draws = member
        if isinstance(augmentor, Projection):
            identity = constant(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), draws.device)
            matrix = torch.where(chosen[:, None, None], augmentor.matrix(draws, height, width), identity)
            self._matrix = matrix if self._matrix is None else _product(matrix, self._matrix)
            self._affine &= augmentor.is_affine
        elif isinstance(augmentor, Displacement):
            self._apply_matrix()
            self._steps.append(_Step(_Points.displace, augmentor.moves(draws) * chosen[:, None, None, None]))
        if not _warp(member).stays_inside:
            self._apply_matrix()
            self._steps.append(_Step(_Points.look_outside, chosen))

    def _apply_matrix(self) -> None:
        if self._matrix is not None:
            self._steps.append(_Step(_Points.map if self._affine else _Points.project, self._matrix))
        self._matrix, self._affine = None, True

    def _resampled(self, images: Tensor, steps: Sequence[_Step]) -> Tensor:
        from torch.nn.functional import grid_sample

        points = _Points(len(images), *self._places)
        for step in steps:
            step.act(points, step.values)
        planes = images.movedim(-1, 1) if images.ndim == 4 else images[:, None]
        grid = points.grid().to(images.dtype)
        sampled = grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
        if points.is_outside is not None:
            sampled = sampled.masked_fill(points.is_outside[:, None], self._black)
        return sampled.movedim(1, -1) if images.ndim == 4 else sampled[:, 0]


class _Points:
    """Where the pixels of results come from, step by step, beginning at their own places.

    No matrix product of torch is used: its rounding follows the precision that the user chose for the model (TF32,
    bfloat16) and may change with the size of the batch.
    """

    def __init__(self, count: int, x: Tensor, y: Tensor) -> None:
        self.count, self.height, self.width = count, y.numel(), x.numel()
        self.x, self.y = x, y
        self.is_outside: Tensor | None = None
        """Which of them have been seen outside the image, bool of shape `(B, H, W)`."""
        self._pending: Tensor | None = None

    def map(self, matrices: Tensor) -> None:
        """Take points through matrices of which the last row is `(0, 0, 1)`, when they are needed."""
        self._settle()
        self._pending = matrices

    def project(self, matrices: Tensor) -> None:
        """Take points through matrices."""
        self._settle()
        x, y, weight = (_row(matrices[:, axis], self.x, self.y) for axis in range(3))
        self.x, self.y = x / weight, y / weight

    def displace(self, moves: Tensor) -> None:
        """Move points by what lies between the knots around them."""
        from torch.nn.functional import grid_sample, pad

        self._settle()
        knots = pad(moves, (1, 1, 1, 1))
        fields = grid_sample(knots, self.grid(), mode="bilinear", padding_mode="border", align_corners=True)
        self.x, self.y = self.x + fields[:, 0], self.y + fields[:, 1]

    def look_outside(self, _: Tensor) -> None:
        """Note which points lie outside the image now."""
        import torch

        self._settle()
        x, y = self.x.abs() * (2 / self.width), self.y.abs() * (2 / self.height)
        is_outside = torch.maximum(x, y) > 1 + _TOLERANCE
        self.is_outside = is_outside if self.is_outside is None else self.is_outside | is_outside

    def grid(self) -> Tensor:
        """Return the points as `grid_sample` takes them: shape `(B, H, W, 2)`, the edges of the image at -1 and 1."""
        import torch

        grid = torch.empty(self.count, self.height, self.width, 2, device=self.x.device)
        for axis, (points, size) in enumerate(((self.x, self.width), (self.y, self.height))):
            if self._pending is None:
                torch.mul(points.expand(grid.shape[:3]), 2 / size, out=grid[..., axis])
            else:
                _row(self._pending[:, axis] * (2 / size), self.x, self.y, out=grid[..., axis])
        return grid

    def _settle(self) -> None:
        if self._pending is not None:
            x, y = (_row(self._pending[:, axis], self.x, self.y) for axis in range(2))
            self.x, self.y, self._pending = x, y, None


class _Step(NamedTuple):
    """What is done to points, with a value for each image."""

    act: Callable[[_Points, Tensor], None]
    values: Tensor

    def of(self, rows: Rows) -> _Step:
        """Return the same for some of the images."""
        return _Step(self.act, self.values[rows])


def _row(coefficients: Tensor, x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """Return a row of the products of matrices with points, `(B, H, W)`, from the row of each matrix, `(B, 3)`."""
    import torch

    along_x, along_y, shift = coefficients.T[..., None, None]
    return torch.add(along_x * x, along_y * y + shift, out=out)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of matrices of shape `(B, 3, 3)`."""
    first, second, third = (left[:, :, column, None] * right[:, None, column] for column in range(3))
    return first + second + third


def _adjugate(matrix: Tensor) -> Tensor:
    """Return the inverses of projections of shape `(B, 3, 3)`, each up to a factor, which they do not care about."""
    import torch

    a, b, c = matrix.unbind(dim=1)
    return torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=2)


def _cross(left: Tensor, right: Tensor) -> Tensor:
    import torch

    (a, b, c), (d, e, f) = left.unbind(dim=1), right.unbind(dim=1)
    return torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], dim=1)


def _from_unit_square(corners: Tensor) -> Tensor:
    """Return the projections that take the unit square to quadrilaterals.

    Args:
        corners: Where its corners (0, 0), (1, 0), (1, 1) and (0, 1) go, `(B, 4, 2)`.

    Returns:
        Tensor of shape `(B, 3, 3)` (P. Heckbert, Fundamentals of Texture Mapping, 1989).
    """
    import torch

    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (corner.unbind(dim=1) for corner in corners.unbind(dim=1))
    x_sum, y_sum = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    determinant = (x1 - x2) * (y3 - y2) - (x3 - x2) * (y1 - y2)
    g = (x_sum * (y3 - y2) - (x3 - x2) * y_sum) / determinant
    h = ((x1 - x2) * y_sum - x_sum * (y1 - y2)) / determinant
    entries = [x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, torch.ones_like(g)]
    return torch.stack(entries, dim=1).view(-1, 3, 3)
