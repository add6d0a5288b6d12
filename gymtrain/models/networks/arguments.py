"""What the arguments of networks may be."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from gymtrain.errors import DataError

Size = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
Sizes = Annotated[list[Size], pydantic.Field(max_length=1000)]
Kernel = Annotated[int, pydantic.Field(ge=1, le=31)]
Probability = Annotated[float, pydantic.Field(ge=0, lt=1)]
Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"]


def image_size(network: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return height, width and channels of images, which have one channel where they have no axis for it.

    Raises:
        DataError: The rows are no images.

    Example:
        >>> image_size("cnn", (28, 28))
        (28, 28, 1)
    """
    if len(input_shape) not in (2, 3):
        raise DataError(
            f"model.model: {network} takes images of shape (height, width) or (height, width, channels); got rows of "
            f"shape {tuple(input_shape)}"
        )
    height, width, channels = (*input_shape, 1)[:3]
    return height, width, channels
