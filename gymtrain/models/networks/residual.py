"""Residual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from gymtrain.models.networks.arguments import Probability, image_size

if TYPE_CHECKING:
    from torch import nn

Blocks = Annotated[list[Annotated[int, pydantic.Field(ge=1, le=64)]], pydantic.Field(min_length=1, max_length=6)]
Stem = Literal["auto", "cifar", "imagenet"]

_LARGE = 64  # pixels


def resnet(
    *,
    input_shape: tuple[int, ...],
    output_size: int,
    blocks: Blocks = [3, 3, 3],
    width: Annotated[int, pydantic.Field(ge=1, le=4096)] = 16,
    stem: Stem = "auto",
    dropout: Probability = 0.0,
) -> nn.Sequential:
    """A residual network of basic blocks (He et al., Deep Residual Learning for Image Recognition, CVPR 2016).

    Each stage but the first halves the image and doubles the channels; behind the last one each channel is averaged.
    As it is, it is the ResNet-20 of that paper's section 4.2; `blocks: [2, 2, 2, 2], width: 64` is its ResNet-18,
    `blocks: [3, 4, 6, 3], width: 64` its ResNet-34. Weights are drawn as He et al. (https://arxiv.org/abs/1502.01852)
    do. Its parts are `stem`, `stage1` and so on, and `head`, whose last layer is `head.output`.

    Args:
        input_shape: The shape of an image: (height, width) or (height, width, channels).
        output_size: The number of outputs.
        blocks: The number of blocks in each stage, each of two convolutions.
        width: The number of channels in the first stage.
        stem: What comes first: `"cifar"` is a convolution of 3 x 3 that keeps the size of small images; `"imagenet"`
            one of 7 x 7 and a pool, which make large ones four times smaller; `"auto"` takes the latter for images of
            at least 64 x 64 pixels.
        dropout: The probability that a value before the last layer is dropped in training.

    Raises:
        DataError: The rows are no images.

    Example:
        >>> network = resnet(input_shape=(32, 32, 3), output_size=10)
        >>> [name for name, _ in network.named_children()]
        ['channels_first', 'stem', 'stage1', 'stage2', 'stage3', 'head']
        >>> sum(parameter.numel() for parameter in network.parameters())
        272474
    """
    from collections import OrderedDict

    from torch import nn

    from gymtrain.models.networks.layers import BasicBlock, ChannelsFirst

    height, breadth, channels = image_size("resnet", input_shape)
    is_large = stem == "imagenet" or (stem == "auto" and min(height, breadth) >= _LARGE)
    first = {
        "conv": nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        if is_large
        else nn.Conv2d(channels, width, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
        **({"pool": nn.MaxPool2d(3, stride=2, padding=1)} if is_large else {}),
    }
    parts: dict[str, nn.Module] = {
        "channels_first": ChannelsFirst(len(input_shape)),
        "stem": nn.Sequential(OrderedDict(first)),
    }
    size = width
    for stage, count in enumerate(blocks):
        layers = []
        for block in range(count):
            outputs = width * 2**stage
            layers.append(BasicBlock(size, outputs, stride=2 if stage and not block else 1))
            size = outputs
        parts[f"stage{stage + 1}"] = nn.Sequential(*layers)
    head = {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        **({"dropout": nn.Dropout(dropout)} if dropout else {}),
        "output": nn.Linear(size, output_size),
    }
    network = nn.Sequential(OrderedDict({**parts, "head": nn.Sequential(OrderedDict(head))}))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network
