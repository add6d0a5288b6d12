"""Optimizers of torch, in their fastest form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from gymtrain.errors import Fault, SpecError, TrainingError, some
from gymtrain.models.parameter_names import spoken_of
from gymtrain.models.torch_model import TorchModel, call_own
from gymtrain.specs.components import Component

# Those with a fused kernel on CPU and CUDA in every torch that we take: one pass over all parameters, not several
# operations for each.
FUSED = {"Adam", "AdamW", "SGD"}


def build_optimizers(
    component: Component, module: nn.Module, device: torch.device, lr_multipliers: Mapping[str, float] = {}
) -> dict[str, torch.optim.Optimizer]:
    """Make the optimizers of a module, by name: its own choice where it makes one, else that of the spec as `"loss"`.

    Args:
        component: The optimizer of the spec.
        module: What learns.
        device: Where it lies.
        lr_multipliers: How much of the learning rate parameters take, by patterns of their names.

    Raises:
        SpecError: torch refuses an argument, or a pattern matches no parameter.
        TrainingError: The module has nothing to learn, or makes something that is no optimizer.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrainingError(f"model.model: {type(module).__name__} has no parameter that can be learned")
    make: Callable[..., torch.optim.Optimizer] = partial(make_optimizer, component, device)
    if lr_multipliers:
        make = partial(_make_with_factors, component, device, _factors(module, lr_multipliers))
    if not isinstance(module, TorchModel):
        return {"loss": make([parameter for parameter in module.parameters() if parameter.requires_grad])}
    made = call_own(module, "configure_optimizer", make)
    optimizers = dict(made) if isinstance(made, Mapping) else {"loss": made}
    odd = [type(each).__name__ for each in optimizers.values() if not isinstance(each, torch.optim.Optimizer)]
    if odd or not optimizers:
        raise TrainingError(
            f"model.model: configure_optimizer of {type(module).__name__} returned {some(odd) or 'an empty dict'}; "
            f"expected an optimizer of torch, or a dict of them by name"
        )
    _check_apart(optimizers)
    return optimizers


def _check_apart(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    owners: dict[int, str] = {}
    for name, optimizer in optimizers.items():
        for parameter in [each for group in optimizer.param_groups for each in group["params"]]:
            if owners.setdefault(id(parameter), name) != name:
                first = owners[id(parameter)]
                raise TrainingError(
                    f"model.model: configure_optimizer gave a parameter of shape {tuple(parameter.shape)} to both "
                    f"{first!r} and {name!r}, which would both change it; give it to one"
                )


def _factors(module: nn.Module, lr_multipliers: Mapping[str, float]) -> dict[int, float]:
    """Return how much of the learning rate each parameter takes, by its `id`, for those that do not take all of it."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found = spoken_of(lr_multipliers, list(parameters), "model.training.lr_multipliers")
    # In the order of the alphabet, because JSON does not keep another one.
    return {id(parameters[name]): math.prod(lr_multipliers[each] for each in sorted(by)) for name, by in found.items()}


def _make_with_factors(
    component: Component,
    device: torch.device,
    factors: Mapping[int, float],
    parameters: Sequence[Any],
    **changes: Any,
) -> torch.optim.Optimizer:
    """Make the optimizer with a group for each factor.

    The first group takes the whole rate, even if no parameter does: the others keep their ratio to it when a schedule
    changes it.
    """
    lr: float = changes.get("lr", component.arguments["lr"])  # every optimizer of torch has one
    groups: list[dict[str, Any]] = []
    for given in _in_groups(parameters):
        by_factor: dict[float, list[Any]] = {1.0: []}
        for parameter in given["params"]:
            by_factor.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        for factor, own in by_factor.items():
            groups.append({**given, "params": own, "lr": given.get("lr", lr) * factor})
    return make_optimizer(component, device, groups, **changes)


def _in_groups(parameters: Sequence[Any]) -> list[dict[str, Any]]:
    parameters = list(parameters)
    if any(isinstance(each, dict) for each in parameters):
        return [{**each, "params": _listed(each["params"])} for each in parameters]
    return [{"params": parameters}]


def make_optimizer(
    component: Component, device: torch.device, parameters: Sequence[Any], **changes: Any
) -> torch.optim.Optimizer:
    """Make the optimizer of the spec for parameters, or groups of them.

    Raises:
        SpecError: torch refuses an argument.
        TrainingError: There are no parameters.
    """
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in component.arguments.items()}
    arguments |= changes
    # Generators too, which could be gone through but once.
    parameters = [
        {**each, "params": _listed(each["params"])} if isinstance(each, dict) else each for each in parameters
    ]
    flat = [item for each in parameters for item in (each["params"] if isinstance(each, dict) else [each])]
    if not flat:
        raise TrainingError("model.model: configure_optimizer made an optimizer of no parameters")
    if component.type in FUSED and _may_fuse(arguments, flat, device):
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


def _listed(parameters: Any) -> list[Any]:
    return [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)


def _may_fuse(arguments: dict[str, object], parameters: Sequence[torch.Tensor], device: torch.device) -> bool:
    asked = [arguments.get(name) for name in ("fused", "foreach", "differentiable", "capturable")]
    floating = all(parameter.is_floating_point() for parameter in parameters)
    return not any(asked) and arguments.get("fused") is None and floating and device.type in {"cpu", "cuda"}
