"""Networks of linear layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gymtrain.models.networks.arguments import Activation, Probability, Sizes

if TYPE_CHECKING:
    from torch import nn


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

    from gymtrain.models.networks.layers import activation_layer

    layers = _flatten(input_shape)
    size = math.prod(input_shape)
    for width in hidden:
        layers += [nn.Linear(size, width), activation_layer(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        size = width
    return nn.Sequential(*layers, nn.Linear(size, output_size))


def _flatten(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """Rows that are flat already need no layer for it, which would cost a small network a tenth of its time."""
    from torch import nn

    return [] if len(input_shape) == 1 else [nn.Flatten()]
