"""In how many bits a model learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# "32", "bf16", "16" or "bf16-true", as the spec has it.
Precision = str

_AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


def parameter_dtype(precision: Precision) -> torch.dtype | None:
    """Return the type that all weights are brought to; None where each keeps its own.

    Example:
        >>> parameter_dtype("bf16"), parameter_dtype("bf16-true")
        (None, torch.bfloat16)
    """
    return torch.bfloat16 if precision == "bf16-true" else None


def with_precision(step: Callable[..., Any], precision: Precision, device: torch.device) -> Callable[..., Any]:
    """Return a training step whose matrix products and convolutions run in half precision, where that is asked for."""
    dtype = _AUTOCAST.get(precision)
    if dtype is None:
        return step

    def cast(*arguments: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return step(*arguments)

    return cast


def in_float32(loss_of: Callable[..., torch.Tensor], precision: Precision) -> Callable[..., torch.Tensor]:
    """Return a loss that sees outputs in float32, where all of the model is in half precision."""
    if precision != "bf16-true":
        return loss_of
    return lambda outputs, *others: loss_of(outputs.float(), *others)


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what keeps gradients of 16 bits from vanishing; None where they cannot."""
    return torch.amp.GradScaler(device.type) if precision == "16" else None
