"""Ready networks: functions that return plain `torch.nn.Sequential`s.

torch is imported inside them, because specs are checked against their signatures without it. `input_shape` (the shape
of one row, without the rows) and `output_size` (the number of outputs that the task needs) come from the data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import nn

Size = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
Sizes = Annotated[list[Size], pydantic.Field(max_length=1000)]
Probability = Annotated[float, pydantic.Field(ge=0, lt=1)]
Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"]
_RISING = ("relu", "tanh", "elu", "leaky_relu")  # gelu and silu fall before they rise


def linear(*, input_shape: tuple[int, ...], output_size: int) -> nn.Sequential:
    """One linear layer: linear or logistic regression."""
    from torch import nn

    return nn.Sequential(*_flatten(input_shape), nn.Linear(math.prod(input_shape), output_size))


def mlp(
    *,
    input_shape: tuple[int, ...],
    output_size: int,
    hidden: Sizes = [64, 64],
    dropout: Probability = 0.0,
    activation: Activation = "relu",
) -> nn.Sequential:
    """Linear layers with an activation between them.

    Args:
        input_shape: The shape of one row; it is flattened.
        output_size: The number of outputs.
        hidden: The width of each hidden layer.
        dropout: The probability that a hidden value is dropped in training.
        activation: The function between the layers.

    Example:
        >>> mlp(input_shape=(4,), output_size=3, hidden=[8])
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=3, bias=True)
        )
    """
    from torch import nn

    layers = _flatten(input_shape)
    size = math.prod(input_shape)
    for width in hidden:
        layers += [nn.Linear(size, width), _activation(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        size = width
    return nn.Sequential(*layers, nn.Linear(size, output_size))


def cnn(
    *,
    input_shape: tuple[int, ...],
    output_size: int,
    channels: Sizes = [16, 32],
    kernel_size: Annotated[int, pydantic.Field(ge=1, le=31)] = 3,
    hidden: Sizes = [64],
    dropout: Probability = 0.0,
    activation: Activation = "relu",
) -> nn.Sequential:
    """Convolutions, each followed by a halving of the image, then linear layers.

    Args:
        input_shape: The shape of an image: (height, width) or (height, width, channels).
        output_size: The number of outputs.
        channels: The number of channels of each convolution.
        kernel_size: The height and width of the kernels, in pixels.
        hidden: The width of each linear layer behind them.
        dropout: The probability that a value of those layers is dropped in training.
        activation: The function between the layers.

    Raises:
        DataError: The rows are no images, or too small to be halved so often.
    """
    from torch import nn

    if len(input_shape) not in (2, 3):
        raise DataError(
            f"model.model: cnn takes images of shape (height, width) or (height, width, channels); got rows of shape "
            f"{tuple(input_shape)}"
        )
    height, width = input_shape[:2]
    size = input_shape[2] if len(input_shape) == 3 else 1
    if min(height, width) < 2 ** len(channels):
        raise DataError(
            f"model.model.channels: {len(channels)} convolutions halve an image {len(channels)} times; got images of "
            f"{height} x {width} pixels, give fewer channels or larger images"
        )
    # Images lie in memory with their channels last; seen with the channels first they are in torch's channels-last
    # format, in which convolutions are fastest on most devices, and nothing is copied.
    layers: list[nn.Module] = [_channels_first(len(input_shape))]
    for channel in channels:
        layers.append(nn.Conv2d(size, channel, kernel_size, padding="same"))
        if activation in _RISING:
            # The largest value stays the largest under a function that never falls, which has a quarter as much to do.
            layers += [nn.MaxPool2d(2), _activation(activation)]
        else:
            layers += [_activation(activation), nn.MaxPool2d(2)]
        size = channel
        height, width = height // 2, width // 2
    head = mlp(
        input_shape=(size, height, width),
        output_size=output_size,
        hidden=hidden,
        dropout=dropout,
        activation=activation,
    )
    return nn.Sequential(*layers, *head)


def _flatten(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """Rows that are flat already need no layer for it, which would cost a small network a tenth of its time."""
    from torch import nn

    return [] if len(input_shape) == 1 else [nn.Flatten()]


def _channels_first(dimensions: int) -> nn.Module:
    import torch
    from torch import nn

    class ChannelsFirst(nn.Module):
        """(rows, height, width[, channels]) seen as (rows, channels, height, width)."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # A channel that is added last has the strides of the format, too; one that is added first has not.
            return (images.unsqueeze(3) if dimensions == 2 else images).permute(0, 3, 1, 2)

    return ChannelsFirst()


def _activation(name: Activation) -> nn.Module:
    from torch import nn

    classes: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "elu": nn.ELU,
        "leaky_relu": nn.LeakyReLU,
    }
    return classes[name]()
