"""Weights in fewer bytes, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from gymtrain.errors import BundleError, SaveError
from gymtrain.specs import Training
from gymtrain.trainer.fitting import evaluation_of
from gymtrain.trainer.held_out import HeldOut
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.tensors import DTYPES, TORCH_DTYPES

REDUCED: Final = MappingProxyType({"bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8})

_MOST: Final = 127  # -128 would have no counterpart above 0
_SCALE: Final = ":scale"


def reduced(state: Mapping[str, torch.Tensor], dtype: str) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, str]]]:
    """Return tensors in fewer bytes, and what they were.

    Floating tensors of more than two bytes an item are rounded to `"bf16"` or `"fp16"`. With `"int8"`, floating tensors
    of at least two axes become whole numbers from -127 to 127, times a scale for each index of the first axis, the
    output channels; those of fewer axes, and masks that hold infinities, stay as they are.

    Args:
        state: By name, on the CPU.
        dtype: One of `REDUCED`.

    Returns:
        The tensors, among them the scales, float32 of shape (channels,); and for each tensor that is not what it was
        its `dtype`, as safetensors has it, and with `"int8"` the name of its `scale`.

    Raises:
        SaveError: A value is too large for the type.

    Example:
        >>> tensors, said = reduced({"weight": torch.tensor([[0.5, -1.0], [0.0, 0.0]])}, "int8")
        >>> tensors["weight"].tolist(), said
        ([[64, -127], [0, 0]], {'weight': {'dtype': 'F32', 'scale': 'weight:scale'}})
    """
    tensors, said = dict(state), {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or (tensor.ndim < 2 if dtype == "int8" else tensor.element_size() <= 2):
            continue
        if dtype == "int8" and not tensor.isfinite().all():
            continue  # a mask of infinities has no scale
        said[name] = {"dtype": DTYPES[tensor.dtype]}
        if dtype == "int8":
            scale_name = name + _SCALE
            while scale_name in tensors:
                scale_name += _SCALE
            tensors[name], tensors[scale_name] = _quantized(name, tensor)
            said[name]["scale"] = scale_name
        else:
            tensors[name] = _rounded(name, tensor, dtype)
    return tensors, said


def enlarged(tensors: Mapping[str, torch.Tensor], given: object) -> dict[str, torch.Tensor]:
    """Return tensors as they were but for what was rounded away, in the types that they had.

    Args:
        tensors: By name.
        given: What `reduced` says of them, out of a file.

    Raises:
        BundleError: `inconsistent`: `reduced` says nothing like it of these tensors.
    """
    if not isinstance(given, dict):
        raise _misfit("expected an object")
    state = dict(tensors)
    for name, was in given.items():
        if not isinstance(was, dict) or not was.keys() <= {"dtype", "scale"} or name not in tensors:
            raise _misfit(f"{name[:100]!r}: expected 'dtype' and 'scale' of a tensor of weights.safetensors")
        dtype = TORCH_DTYPES.get(str(was.get("dtype")))
        if dtype is None or not dtype.is_floating_point:
            raise _misfit(f"{name[:100]!r}: 'dtype' is {str(was.get('dtype'))[:100]!r}; expected that of a float")
        tensor = tensors[name]
        if "scale" in was:
            scale = state.pop(was["scale"], None) if isinstance(was["scale"], str) else None
            state[name] = _dequantized(name, tensor, scale).to(dtype)
        elif tensor.dtype not in (torch.bfloat16, torch.float16):
            raise _misfit(f"{name[:100]!r} is {DTYPES[tensor.dtype]}; expected BF16 or F16")
        else:
            state[name] = tensor.to(dtype)
    return state


def change(before: Predictor, after: Predictor, training: Training) -> dict[str, Any]:
    """Measure what other weights change.

    Returns:
        `scores`: the largest `difference` of what the model says of so many `rows`, those of the self-check; None where
        there are none. `metrics`: by name, `before` and `after`, with the `part` and number of `rows` that were held
        out; None where there are none, as in a trainer that was loaded.
    """
    found: dict[str, Any] = {"scores": None, "metrics": None}
    if before.examples is not None and len(before.examples):
        one, other = before.scores(before.examples), after.scores(before.examples)
        found["scores"] = {"rows": len(one), "difference": float(np.abs(one - other).max())}
    if before.held_out is not None:
        held = before.held_out
        both = [_metrics(each, training, held) for each in (before, after)]
        values = {name: {"before": both[0][name], "after": both[1][name]} for name in both[0]}
        found["metrics"] = {"part": held.part, "rows": len(held.inputs), "values": values}
    return found


def _metrics(predictor: Predictor, training: Training, held: HeldOut) -> dict[str, float]:
    return evaluation_of(predictor.learner, training, held.part, held.inputs, held.targets)(predictor.learner)


def _rounded(name: str, tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    target = REDUCED[dtype]
    rounded = tensor.to(target)
    lost = (tensor.isfinite() & ~rounded.isfinite()).sum()
    if lost:
        largest = tensor[tensor.isfinite()].abs().max().item()
        raise SaveError(
            f"dtype: {lost} values of {name!r} are too large for {dtype!r}, up to {largest:.4g}, where "
            f"{torch.finfo(target).max:.4g} is the most; use another dtype, or none"
        )
    return rounded


def _quantized(name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (tensor.reshape(len(tensor), -1).abs().amax(1) / _MOST).float() if tensor.numel() else torch.empty(0)
    if not scale.isfinite().all():
        raise SaveError(f"dtype: {name!r} has values that are too large for 'int8'")
    scale = scale if tensor.numel() else torch.zeros(len(tensor))
    divisor = torch.where(scale > 0, scale, 1.0).view(-1, *[1] * (tensor.ndim - 1))
    return (tensor.float() / divisor).round().clamp(-_MOST, _MOST).to(torch.int8), scale


def _dequantized(name: str, tensor: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    if tensor.dtype is not torch.int8 or tensor.ndim < 2 or scale is None:
        raise _misfit(f"{name[:100]!r}: expected I8 of at least two axes, and its own scale")
    if scale.dtype is not torch.float32 or scale.shape != tensor.shape[:1]:
        found = f"{DTYPES[scale.dtype]} of shape {tuple(scale.shape)}"
        raise _misfit(f"{name[:100]!r}: its scale is {found}; expected F32 of shape {tuple(tensor.shape[:1])}")
    return tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))


def _misfit(message: str) -> BundleError:
    return BundleError(f"storage.json: reduced.tensors: {message}", reason="inconsistent")
