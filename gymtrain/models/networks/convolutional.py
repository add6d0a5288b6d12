"""Networks of convolutions, one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymtrain.errors import DataError
from gymtrain.models.networks.arguments import Activation, Kernel, Probability, Sizes, image_size
from gymtrain.models.networks.layer_list import (
    AvgPool,
    Conv,
    Dense,
    Dropout,
    GlobalAvgPool,
    Layer,
    Layers,
    MaxPool,
    read_layers,
)

if TYPE_CHECKING:
    from torch import nn

_RISING = {"ReLU", "Tanh", "ELU", "LeakyReLU"}  # GELU and SiLU fall before they rise


def cnn(
    *,
    input_shape: tuple[int, ...],
    output_size: int,
    channels: Sizes = [16, 32],
    kernel_size: Kernel = 3,
    hidden: Sizes = [64],
    dropout: Probability = 0.0,
    activation: Activation = "relu",
    layers: Layers = None,
) -> nn.Sequential:
    """Convolutions, each followed by a halving of the image, then linear layers; or any layers one behind the other.

    Its parts are `features`, up to the last layer that takes images, and `head`, whose last layer is `head.output`.

    Args:
        input_shape: The shape of an image: (height, width) or (height, width, channels).
        output_size: The number of outputs.
        channels: The number of channels of each convolution.
        kernel_size: The height and width of the kernels, in pixels.
        hidden: The width of each linear layer behind them.
        dropout: The probability that a value of those layers is dropped in training.
        activation: The function between the layers.
        layers: Instead of all these, the layers one by one, but for the last one, which the data decide: null for none.

    Raises:
        DataError: The rows are no images, or too small to be halved so often.

    Example:
        >>> layers = [{"type": "conv", "filters": 4, "batch_norm": True}, {"type": "global_avg_pool"}]
        >>> list(cnn(input_shape=(8, 8, 3), output_size=2, layers=layers).state_dict())[:3]
        ['features.conv1.weight', 'features.conv1_norm.weight', 'features.conv1_norm.bias']
    """
    height, width, _ = image_size("cnn", input_shape)
    if layers is not None:
        return _network("cnn", read_layers(layers), input_shape, output_size)
    if min(height, width) < 2 ** len(channels):
        raise DataError(
            f"model.model.channels: {len(channels)} convolutions halve an image {len(channels)} times; got images of "
            f"{height} x {width} pixels, give fewer channels or larger images"
        )
    simple: list[Layer] = []
    for filters in channels:
        simple += [Conv(filters=filters, kernel_size=kernel_size, activation=activation), MaxPool()]
    for units in hidden:
        simple.append(Dense(units=units, activation=activation))
        if dropout:
            simple.append(Dropout(probability=dropout))
    return _network("cnn", simple, input_shape, output_size)


def dogs_vs_cats_cnn(*, input_shape: tuple[int, ...], output_size: int) -> nn.Sequential:
    """The small network for `dogs_vs_cats` of gymnos (https://github.com/Telefonica/gymnos), whose layers it has.

    Two convolutions of 32 and 64 channels without padding, each halved and with dropout of 0.7, a linear layer of 256
    with dropout of 0.5, and the output. Before them a batch norm brings each channel to a mean of 0 and a deviation of
    1, so that pixels from 0 to 255 are learned from as well as those that were scaled. Its parts are named as those of
    `cnn`.

    Args:
        input_shape: The shape of an image: (height, width) or (height, width, channels), at least 10 x 10 pixels.
        output_size: The number of outputs.

    Raises:
        DataError: The rows are no images, or too small.

    Example:
        >>> network = dogs_vs_cats_cnn(input_shape=(100, 100, 3), output_size=1)
        >>> sum(parameter.numel() for parameter in network.parameters())
        8687047
    """
    layers: list[Layer] = []
    for filters in (32, 64):
        layers += [Conv(filters=filters, padding="valid"), MaxPool(), Dropout(probability=0.7)]
    layers += [Dense(units=256), Dropout(probability=0.5)]
    return _network("dogs_vs_cats_cnn", layers, input_shape, output_size, normalise=True)


def _network(
    name: str, layers: list[Layer], input_shape: tuple[int, ...], output_size: int, *, normalise: bool = False
) -> nn.Sequential:
    from collections import OrderedDict

    from torch import nn

    from gymtrain.models.networks.layers import ChannelsFirst

    height, width, channels = image_size(name, input_shape)
    stack = _Stack(height, width, channels)
    for position, layer in enumerate(layers):
        try:
            stack.add(layer)
        except ValueError as error:
            raise DataError(f"model.model ({name}): layer {position + 1} of {len(layers)}: {error}") from error
    stack.flatten()
    stack.head["output"] = nn.Linear(stack.channels, output_size)
    parts = {
        "channels_first": ChannelsFirst(len(input_shape)),
        **({"input_norm": nn.BatchNorm2d(channels)} if normalise else {}),
        "features": nn.Sequential(OrderedDict(stack.features)),
        "head": nn.Sequential(OrderedDict(stack.head)),
    }
    return nn.Sequential(OrderedDict(parts))


class _Stack:
    """Layers that were put one behind the other, by name, and the size of what comes out of them.

    Args:
        height: Of an image, in pixels.
        width: Of an image, in pixels.
        channels: How many it has.
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.features: dict[str, nn.Module] = {}
        self.head: dict[str, nn.Module] = {}
        self._counts: dict[str, int] = {}

    def add(self, layer: Layer) -> None:
        """Put a layer on top.

        Raises:
            ValueError: The images have become too small for it.
        """
        from torch import nn

        match layer:
            case Conv():
                self._add_conv(layer)
            case MaxPool():
                self._add_pool(layer)
            case GlobalAvgPool():
                self.features[self._name("global_avg_pool")] = nn.AdaptiveAvgPool2d(1)
                self.height = self.width = 1
            case Dense():
                self.flatten()
                name = self._name("dense")
                self.head[name] = nn.Linear(self.channels, layer.units, bias=not layer.batch_norm)
                self.channels = layer.units
                self._add_behind(name, layer, nn.BatchNorm1d, self.head)
            case Dropout():
                (self.head or self.features)[self._name("dropout")] = nn.Dropout(layer.probability)

    def flatten(self) -> None:
        """Make rows of values of the images, unless they are such rows."""
        from torch import nn

        if not self.head:
            self.head["flatten"] = nn.Flatten()
            self.channels *= self.height * self.width

    def _add_conv(self, layer: Conv) -> None:
        from torch import nn

        from gymtrain.models.networks.layers import subsample

        around = 0 if layer.padding == "valid" else layer.kernel_size - 1
        self._shrink("conv", layer.kernel_size, layer.stride, around)
        name, stride = self._name("conv"), layer.stride
        if layer.kernel_size == 1 and stride > 1:
            self.features[f"{name}_subsample"], stride = subsample(stride), 1
        # For a stride torch wants the padding in pixels.
        padding = layer.kernel_size // 2 if layer.padding == "same" and stride > 1 else layer.padding
        self.features[name] = nn.Conv2d(
            self.channels,
            layer.filters,
            layer.kernel_size,
            stride=stride,
            padding=padding,
            bias=not layer.batch_norm,
        )
        self.channels = layer.filters
        self._add_behind(name, layer, nn.BatchNorm2d, self.features)

    def _add_pool(self, layer: MaxPool) -> None:
        from torch import nn

        stride = layer.stride or layer.size
        if isinstance(layer, AvgPool):
            self._shrink("avg_pool", layer.size, stride)
            self.features[self._name("avg_pool")] = nn.AvgPool2d(layer.size, stride)
            return
        self._shrink("max_pool", layer.size, stride)
        last = next(reversed(self.features), None)
        # The largest value stays the largest under a function that never falls, which has less to do behind the pool.
        swapped = last is not None and type(self.features[last]).__name__ in _RISING
        behind = {last: self.features.pop(last)} if last is not None and swapped else {}
        self.features[self._name("max_pool")] = nn.MaxPool2d(layer.size, stride)
        self.features |= behind

    def _add_behind(self, name: str, layer: Conv | Dense, norm: type[nn.Module], modules: dict[str, nn.Module]) -> None:
        from gymtrain.models.networks.layers import activation_layer

        if layer.batch_norm:
            modules[f"{name}_norm"] = norm(self.channels)
        if layer.activation is not None:
            modules[f"{name}_{layer.activation}"] = activation_layer(layer.activation)

    def _shrink(self, kind: str, size: int, stride: int, around: int = 0) -> None:
        if min(self.height, self.width) + around < size:
            raise ValueError(
                f"{kind} needs images of at least {size} x {size} pixels, and those that reach it have "
                f"{self.height} x {self.width}; give larger images, or fewer layers that make them smaller"
            )
        self.height = (self.height + around - size) // stride + 1
        self.width = (self.width + around - size) // stride + 1

    def _name(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}{self._counts[kind]}"
