"""Losses as a task wants them: made from the spec, and weighed by row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from gymtrain.errors import Fault, SpecError
from gymtrain.specs.components import Component

if TYPE_CHECKING:
    import torch

    Loss = Callable[..., torch.Tensor]

# Below it, the smallest normal float32, a sum of weights is zero for all that follows.
_TINY = 2.0**-126


def is_own(component: Component | str) -> TypeGuard[Component]:
    """Tell whether a loss is the user's; those of torch are imported when they are built."""
    return not isinstance(component, str) and callable(component.target)


def build_loss(
    component: Component | str, task: str, losses: Sequence[str], device: torch.device | str, **arguments: Any
) -> Any:
    """Make the loss of a spec.

    Args:
        component: The loss of the spec; `"auto"` is the usual one.
        task: The name of the task.
        losses: The losses of torch.nn that fit it, the usual one first.
        device: Where outputs and targets lie.
        arguments: Further arguments, which a loss of the user's does not take.

    Raises:
        SpecError: The loss does not fit the task.
    """
    from torch import nn

    if isinstance(component, str):
        loss = getattr(nn, losses[0])(**arguments)
    else:
        if not is_own(component) and component.type not in losses:
            usable = f"use {' or '.join(losses)}, or 'auto'"
            raise misfit("loss", f"{component.type} does not fit a {task} task; {usable}")
        if is_own(component) and arguments:
            raise misfit(
                "class_weight", f"the loss {component.type} is yours, and has to weigh the classes itself; leave it out"
            )
        # A loss of the user's is a class, or a function of outputs and targets.
        target: Any = component.target
        is_function = is_own(component) and not isinstance(target, type)
        loss = partial(target, **component.arguments) if is_function else component.build(**arguments)
    return loss.to(device) if isinstance(loss, nn.Module) else loss


def misfit(key: str, message: str) -> SpecError:
    """Return the error for a key of `model.training` that does not fit the task."""
    return SpecError([Fault(f"model.training.{key}", message)])


def own_loss(loss: Any, name: str, *, weighted: bool) -> Loss:
    """Return a loss of the user's as it is to be called: with outputs, targets and, if `weighted`, weights.

    One that cannot do without weights is given ones where the rows are not weighed.

    Raises:
        SpecError: Rows are weighed, and it takes no weights.
    """
    if weighted and not _takes(loss, 3):
        message = f"the loss {name} is yours, and has to take (outputs, targets, weights) to weigh rows"
        raise SpecError([Fault("dataset.dataset.sample_weight", message)])
    if weighted or _takes(loss, 2) or not _takes(loss, 3):
        return loss  # type: ignore[no-any-return]
    return lambda outputs, targets: loss(outputs, targets, outputs.new_ones(len(outputs)))


def _takes(loss: Any, count: int) -> bool:
    """Tell whether a loss can be called with so many arguments by position."""
    from torch import nn

    try:
        inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).bind(*range(count))
    except TypeError:
        return False
    return True


def weighted_mean(losses: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over rows that count differently; 0 where none of them counts.

    Args:
        losses: Of each row, (rows,), or of each of its outputs, (rows, outputs).
        weights: How much each row counts, (rows,), at least 0.
        counts: What the sum is divided by, where it is not the sum of `weights`: (rows,), summed.

    Example:
        >>> import torch
        >>> weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
        tensor(2.)
    """
    rows = losses.flatten(1).mean(dim=1) if losses.ndim > 1 else losses
    return (rows * weights).sum() / (weights if counts is None else counts).sum().clamp_min(_TINY)
