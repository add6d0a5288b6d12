"""Layers that torch does not have."""

from __future__ import annotations

import torch
from torch import nn

from gymtrain.models.networks.arguments import Activation


class ChannelsFirst(nn.Module):
    """Images (rows, height, width[, channels]) seen as (rows, channels, height, width).

    Images lie in memory with their channels last; seen with the channels first they are in torch's channels-last
    format, in which convolutions are fastest on most devices, and nothing is copied.

    Args:
        dimensions: How many axes an image has, 2 or 3.

    Example:
        >>> ChannelsFirst(3)(torch.zeros(1, 5, 7, 3)).is_contiguous(memory_format=torch.channels_last)
        True
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the same memory with other axes."""
        # A channel that is added last has the strides of the format, too; one that is added first has not.
        return (images.unsqueeze(3) if self.dimensions == 2 else images).permute(0, 3, 1, 2)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al., Deep Residual Learning for Image Recognition, CVPR 2016).

    `relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`, where the shortcut is `x` itself, or a convolution of 1 x 1
    with batch norm where the block changes the number of channels or the size of the image.

    Args:
        inputs: The number of channels that come in.
        outputs: The number that goes out.
        stride: By what the height and width are divided.

    Example:
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(subsample(stride), convolution, nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (rows, outputs, height / stride, width / stride), rounded up."""
        learned = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(images)))))
        result: torch.Tensor = self.relu2(learned + self.shortcut(images))
        return result


def subsample(stride: int) -> nn.Module:
    """Return a layer that takes every so many pixels of an image: what a stride does in a convolution of 1 x 1.

    On the CPU, convolutions of 1 x 1 with a stride write beyond the end of their memory in the backward pass, where
    there are fewer than 16 channels in the channels-last format (https://github.com/uxlfoundation/oneDNN/issues/6035).

    Example:
        >>> subsample(2)(torch.arange(6.0).view(1, 1, 2, 3)).tolist()
        [[[[0.0, 2.0]]]]
    """
    return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)


def activation_layer(name: Activation) -> nn.Module:
    """Return a layer by the name that specs have for it."""
    classes: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "elu": nn.ELU,
        "leaky_relu": nn.LeakyReLU,
    }
    return classes[name]()
