"""Optimizers of torch, in their fastest form."""

from __future__ import annotations

import torch
from torch import nn

from gymtrain.errors import Fault, SpecError, TrainingError
from gymtrain.specs.components import Component

# Those with a fused kernel on CPU and CUDA in every torch that we take: one pass over all parameters, not several
# operations for each.
FUSED = {"Adam", "AdamW", "SGD"}


def build_optimizer(component: Component, module: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimizer of the spec for the parameters of a module.

    Raises:
        SpecError: torch refuses an argument.
        TrainingError: The module has nothing to learn.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise TrainingError(f"model.model: {type(module).__name__} has no parameter that can be learned")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in component.arguments.items()}
    if component.type in FUSED and _may_fuse(arguments, parameters, device):
        arguments["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = Component(component.type, component.target, arguments).build(
            params=parameters
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise SpecError(
            [Fault("model.training.optimizer", f"{component.type} refuses its arguments: {error}")]
        ) from error
    return optimizer


def _may_fuse(arguments: dict[str, object], parameters: list[nn.Parameter], device: torch.device) -> bool:
    asked = [arguments.get(name) for name in ("fused", "foreach", "differentiable", "capturable")]
    floating = all(parameter.is_floating_point() for parameter in parameters)
    return not any(asked) and arguments.get("fused") is None and floating and device.type in {"cpu", "cuda"}
