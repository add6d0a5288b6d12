"""Preprocessors of images: what is done to each picture when it is decoded, and to the numbers later.

The former (`PicturePreprocessor`) work on images of PIL, of any size, and are done once; their results are pixels,
uint8 where pixels came in. The latter are elementwise: in training they are done to each batch, on the model's device,
after augmentation, and the pixels are kept as they are, in a quarter of the memory.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from gymtrain.data.images import check_channels_last
from gymtrain.data.preprocessors import Matrix, Preprocessor, State
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Side = Annotated[int, pydantic.Field(ge=1, le=16384)]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Channels = Annotated[list[Annotated[float, pydantic.Field(allow_inf_nan=False)]], pydantic.Field(min_length=1)]

# ITU-R 601, as Pillow has it.
_LUMA = (0.299, 0.587, 0.114)


class PicturePreprocessor(Preprocessor):
    """Base of the preprocessors that work on one picture at a time.

    Example:
        >>> class Quarter(PicturePreprocessor):
        ...     def picture(self, image):
        ...         return image.reduce(2)
        >>> Quarter().transform(np.zeros((1, 8, 6, 3), np.uint8)).shape
        (1, 4, 3, 3)
    """

    takes_pictures = True
    # Whether what comes out has one size whatever came in.
    fixes_size = False

    @abstractmethod
    def picture(self, image: Image) -> Image:
        """Return what becomes of an image of PIL: of RGB or L one of these, of F (one channel of floats) another."""

    def suffices(self) -> tuple[int, int] | None:
        """Return the width and the height that a picture need not exceed to become the same; None for its own."""
        return None

    def transform(self, X: Matrix) -> Matrix:
        """Return what becomes of pictures of one size.

        Args:
            X: uint8 or floating-point numbers of shape (rows, height, width) or (rows, height, width, channels).

        Raises:
            DataError: They have another shape.
        """
        check_shape(X.shape, type(self).__name__)
        return np.stack([self._of_array(image) for image in X]) if len(X) else X

    def _of_array(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        import PIL.Image

        if pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (1,), (3,)):
            flat = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
            changed = np.asarray(self.picture(PIL.Image.fromarray(np.ascontiguousarray(flat))))
            return changed[:, :, None] if pixels.shape[2:] == (1,) else changed
        # Pillow has pictures of one channel of floats, and of none of more: each is one.
        planes = pixels[:, :, None] if pixels.ndim == 2 else pixels
        images = [
            PIL.Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in np.moveaxis(planes, -1, 0)
        ]
        changed = np.stack([np.asarray(self.picture(image)) for image in images], axis=-1)
        changed = np.round(changed).astype(np.uint8) if pixels.dtype == np.uint8 else changed.astype(pixels.dtype)
        return changed[:, :, 0] if pixels.ndim == 2 else changed


class ImageResize(PicturePreprocessor):
    """Bring images to one size.

    A large JPEG is decoded at a fraction of its size, which is still at least twice what is asked for: that is several
    times faster, and looks the same.

    Args:
        width: In pixels.
        height: In pixels.
        aspect: `"stretch"` changes the proportions, `"crop"` keeps them and cuts off what is too much, evenly on both
            sides.
        resample: The filter of Pillow; all but `"nearest"` look at every pixel that is made smaller.

    Example:
        >>> ImageResize(width=100, height=50).transform(np.zeros((2, 375, 500, 3), np.uint8)).shape
        (2, 50, 100, 3)
    """

    fixes_size = True

    def __init__(
        self,
        width: Side,
        height: Side,
        aspect: Literal["stretch", "crop"] = "stretch",
        resample: Filter = "bilinear",
    ) -> None:
        self.width, self.height, self.aspect, self.resample = width, height, aspect, resample

    def picture(self, image: Image) -> Image:
        """Return the image resized."""
        from PIL.Image import Resampling

        return image.resize((self.width, self.height), Resampling[self.resample.upper()], box=self._box(image))

    def suffices(self) -> tuple[int, int] | None:
        """Return the size, unless single pixels are picked out: which they are depends on how many there are."""
        return None if self.resample == "nearest" else (self.width, self.height)

    def _box(self, image: Image) -> tuple[float, float, float, float] | None:
        if self.aspect == "stretch":
            return None
        scale = min(image.width / self.width, image.height / self.height)
        width, height = self.width * scale, self.height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return left, top, left + width, top + height


class CenterCrop(PicturePreprocessor):
    """Cut out the middle; what an image lacks on a side is black.

    Args:
        width: In pixels.
        height: In pixels.

    Example:
        >>> CenterCrop(width=1, height=1).transform(np.arange(9, dtype=np.float32).reshape(1, 3, 3)).tolist()
        [[[4.0]]]
    """

    fixes_size = True

    def __init__(self, width: Side, height: Side) -> None:
        self.width, self.height = width, height

    def picture(self, image: Image) -> Image:
        """Return the middle of the image."""
        left, top = (image.width - self.width) // 2, (image.height - self.height) // 2
        return image.crop((left, top, left + self.width, top + self.height))


class Grayscale(PicturePreprocessor):
    """Turn colours into grey, one channel (the luma of ITU-R 601)."""

    def picture(self, image: Image) -> Image:
        """Return the image in grey."""
        return image if image.mode == "F" else image.convert("L")

    def transform(self, X: Matrix) -> Matrix:
        """Return the images in grey: (rows, height, width, 1), or as they are where they have no channels.

        Raises:
            DataError: They are no images of one or three channels.
        """
        check_shape(X.shape, "Grayscale", channels=(1, 3))
        if X.shape[3:] in ((), (1,)):
            return X
        if X.dtype == np.uint8:
            return super().transform(X)[..., None]
        grey: Matrix = (X @ np.array(_LUMA, dtype=X.dtype))[..., None]
        return grey


class GrayscaleToColor(PicturePreprocessor):
    """Turn grey images into colour ones of three equal channels."""

    def picture(self, image: Image) -> Image:
        """Return the image in colour."""
        return image.convert("RGB")

    def transform(self, X: Matrix) -> Matrix:
        """Return the images in colour: (rows, height, width, 3).

        Raises:
            DataError: They are no images of one or three channels.
        """
        check_shape(X.shape, "GrayscaleToColor", channels=(1, 3))
        if X.shape[3:] == (3,):
            return X
        return np.repeat(X if X.ndim == 4 else X[..., None], 3, axis=3)


class Normalize(Preprocessor):
    """Shift and scale each channel: `(x - mean) / std`.

    Args:
        mean: For each channel what to subtract, in the units that come in; learned from the train part when not given.
        std: For each channel what to divide by, above 0; learned, or given with `mean`.

    Raises:
        ValueError: One is given without the other, in another number, or a standard deviation is not above 0.

    Example:
        >>> Normalize(mean=[1.0], std=[2.0]).transform(np.full((1, 1, 1, 1), 5, np.float32)).item()
        2.0
    """

    def __init__(self, mean: Channels | None = None, std: Channels | None = None) -> None:
        if (mean is None) != (std is None):
            raise ValueError("mean and std belong together; give both, or none to learn them")
        if mean is not None and std is not None:
            if len(mean) != len(std):
                raise ValueError(f"got {len(mean)} means and {len(std)} standard deviations; one for each channel")
            if min(std) <= 0:
                raise ValueError(f"std is {std}; expected numbers above 0")
            self.shift, self.scale = np.array(mean, np.float32), np.array(std, np.float32)
        self.mean, self.std = mean, std
        self._there: dict[Any, tuple[Tensor, Tensor]] = {}

    def fit(self, X: Any, y: npt.NDArray[Any]) -> None:
        """Learn the mean and the standard deviation of each channel, if they were not given.

        Raises:
            DataError: The rows are no images, or do not have as many channels as were given.
        """
        check_shape(X.shape, "Normalize")
        channels = X.shape[3] if len(X.shape) == 4 else 1
        if self.mean is not None:
            if len(self.mean) not in (1, channels):
                raise DataError(f"got {len(self.mean)} means for images of {channels} channels; give one for each")
            return
        count, total, squares = 0, np.zeros(channels), np.zeros(channels)
        for start in range(0, len(X), 256):
            block = np.asarray(X[start : start + 256]).reshape(-1, channels).astype(np.float64)
            count, total, squares = count + len(block), total + block.sum(0), squares + (block**2).sum(0)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        self.shift, self.scale = mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)
        self._there.clear()

    def transform(self, X: Matrix) -> Matrix:
        """Return the images normalised."""
        shift, scale = (each.astype(X.dtype, copy=False) for each in (self.shift, self.scale))
        normalised: Matrix = (X - shift) / scale if X.ndim == 4 else (X - shift[0]) / scale[0]
        return normalised

    def transform_batch(self, images: Tensor) -> Tensor:
        """Return float32 images normalised, the same numbers as `transform` gives."""
        import torch

        if images.ndim == 3:
            return (images - float(self.shift[0])) / float(self.scale[0])
        if images.device not in self._there:  # kept: to copy them for each batch would make a GPU wait
            shift, scale = (torch.from_numpy(each).to(images.device) for each in (self.shift, self.scale))
            self._there[images.device] = shift, scale
        shift, scale = self._there[images.device]
        return (images - shift) / scale

    def save(self) -> State:
        """Return what was learned."""
        return {} if self.mean is not None else {"shift": self.shift, "scale": self.scale}

    def restore(self, state: State) -> None:
        """Take back what was learned."""
        if self.mean is None:
            self.shift, self.scale = state["shift"], state["scale"]
            self._there.clear()


def check_shape(shape: tuple[int, ...], name: str, channels: tuple[int, ...] | None = None) -> None:
    """Check that rows are images.

    Args:
        shape: Theirs, with the rows.
        name: Who asks.
        channels: How many channels they may have; None for any number.

    Raises:
        DataError: They are none.
    """
    fits = len(shape) == 3 or (len(shape) == 4 and (channels is None or shape[3] in channels))
    check_channels_last(shape[1:], name)
    if not fits:
        wanted = "" if channels is None else f" of {' or '.join(map(str, channels))}"
        raise DataError(
            f"{name} works on images, (rows, height, width) or (rows, height, width, channels){wanted}; got rows of "
            f"shape {shape[1:]}"
        )
