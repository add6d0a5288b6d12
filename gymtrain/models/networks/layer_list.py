"""The layers of a `cnn` as a spec lists them: which kinds there are, and what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from gymtrain.errors import SpecError, did_you_mean
from gymtrain.models.networks.arguments import Activation, Kernel, Probability, Size
from gymtrain.specs.section import FaultsFound, Section, fault, gathered
from gymtrain.specs.wording import shortened

Stride = Annotated[int, pydantic.Field(ge=1, le=31)]


class Conv(Section):
    """A convolution, with batch norm and an activation behind it where they are asked for."""

    filters: Size
    """The number of channels that come out."""
    kernel_size: Kernel = 3
    """The height and width of the kernels, in pixels."""
    stride: Stride = 1
    """How many pixels lie from one place of a kernel to the next."""
    padding: Literal["same", "valid"] = "same"
    """`"same"` puts zeros around the image, so that it keeps its size (divided by the stride); `"valid"` puts none."""
    batch_norm: bool = False
    """Whether batch norm comes behind it, which takes the place of its bias."""
    activation: Activation | None = "relu"
    """The function behind it; null for none."""

    @pydantic.model_validator(mode="after")
    def _check_padding(self) -> Conv:
        if self.padding == "same" and self.stride > 1 and self.kernel_size % 2 == 0:
            raise fault(f"got {self.kernel_size}; with a stride and padding 'same', expected an odd number")
        return self


class MaxPool(Section):
    """The largest value of each square."""

    size: Kernel = 2
    """The height and width of the squares, in pixels."""
    stride: Stride | None = None
    """How many pixels lie from one square to the next; null for `size`."""


class AvgPool(MaxPool):
    """The mean of each square."""


class GlobalAvgPool(Section):
    """The mean of each channel over the whole image, which is then of 1 x 1 pixel."""


class Dropout(Section):
    """In training, some values become 0."""

    probability: Probability = 0.5
    """The probability that a value is dropped."""


class Dense(Section):
    """A linear layer, with batch norm and an activation behind it where they are asked for; images are flattened."""

    units: Size
    """The number of values that come out."""
    batch_norm: bool = False
    """Whether batch norm comes behind it, which takes the place of its bias."""
    activation: Activation | None = "relu"
    """The function behind it; null for none."""


Layer = Conv | MaxPool | GlobalAvgPool | Dropout | Dense

LAYERS: dict[str, type[Layer]] = {
    "avg_pool": AvgPool,
    "conv": Conv,
    "dense": Dense,
    "dropout": Dropout,
    "global_avg_pool": GlobalAvgPool,
    "max_pool": MaxPool,
}
_MOST = 200
# What a network takes instead of layers.
_INSTEAD = {"channels": [16, 32], "kernel_size": 3, "hidden": [64], "dropout": 0.0, "activation": "relu"}


def read_layers(given: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """Return layers that were checked as objects.

    Example:
        >>> read_layers([{"type": "max_pool"}])
        [MaxPool(size=2, stride=None)]
    """
    return [LAYERS[each["type"]](**{key: value for key, value in each.items() if key != "type"}) for each in given]


def _check_layer(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, dict) or "type" not in given:
        raise fault(f"got {shortened(given)}; expected a layer such as {{'type': 'conv', 'filters': 32}}")
    kind = given["type"]
    if not isinstance(kind, str) or kind not in LAYERS:
        raise fault(f"got {shortened(kind)}{did_you_mean(str(kind), LAYERS)}; known: {', '.join(LAYERS)}", "type")
    try:
        (layer,) = read_layers([given])
    except SpecError as error:
        raise FaultsFound(error.faults) from error
    return {"type": kind, **layer.to_dict()}


def _check_layers(given: Any, info: pydantic.ValidationInfo) -> list[dict[str, Any]] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not 1 <= len(given) <= _MOST:
        raise fault(f"got {shortened(given)}; expected a list of 1 to {_MOST} layers, or null")
    beside = info.context or {}
    more = [name for name, default in _INSTEAD.items() if beside.get(name, default) != default]
    if more:
        raise fault(f"stands beside {', '.join(more)}, which say otherwise what the layers are; leave one of them out")
    layers = gathered(given, _check_layer)
    kinds = [layer["type"] for layer in layers]
    first_dense = kinds.index("dense") if "dense" in kinds else len(kinds)
    for position, kind in enumerate(kinds):
        if position > first_dense and kind not in {"dense", "dropout"}:
            raise fault(f"{kind} takes images, and a dense layer before it has flattened them", f"[{position}].type")
    return layers


Layers = Annotated[
    list[dict[str, Any]] | None,
    pydantic.PlainValidator(_check_layers),
    pydantic.WithJsonSchema({"anyOf": [{"type": "array", "items": {"title": "layer"}}, {"type": "null"}]}),
]
"""Layers in a spec: a list of dicts with a `type`, of which all defaults are written out."""
