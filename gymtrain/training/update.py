"""What becomes of a loss: gradients, clipped, then a step of the optimizers and of the average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gymtrain.errors import TrainingError, some
from gymtrain.models.torch_model import Outcome
from gymtrain.training.averaging import Average


class Update:
    """One step of learning, in the textbook's parts: `zero_grad`, `backward`, `step`.

    Args:
        optimizers: By name; a model that has one has it under `"loss"`.
        clip_grad_norm: The largest norm that the gradients of a step may have, over all parameters together.
        clip_grad_value: The largest size that each of their elements may have.
        scaler: Scales the loss up, so that gradients in half precision do not vanish.
        average: The average of the weights that is kept up to date.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> update = Update({"loss": torch.optim.SGD([weight], lr=0.5)})
        >>> loss = update.backward((weight * 2.0).sum())
        >>> update.step()
        >>> weight.item()
        0.0
    """

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
        average: Average | None = None,
    ) -> None:
        self.optimizers, self.average = dict(optimizers), average
        self._clip_grad_norm, self._clip_grad_value, self._scaler = clip_grad_norm, clip_grad_value, scaler
        self._parameters: dict[str, list[nn.Parameter]] = {
            name: _parameters_of(optimizer) for name, optimizer in self.optimizers.items()
        }
        self._all_parameters = [parameter for group in self._parameters.values() for parameter in group]

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        for parameter in self._all_parameters:
            parameter.grad = None

    def backward(self, outcome: Outcome, share: float | torch.Tensor | None = None) -> torch.Tensor:
        """Add to the gradients.

        Args:
            outcome: The mean loss of a batch, shape (); or what a model's own step returned by name: under `"loss"` or
                the names of the optimizers what is made smaller, under others what is only noted.
            share: How much of the step the batch is, from 0 to 1; None for all of it.

        Returns:
            The loss, its share only, without a graph; the sum where there are several.

        Raises:
            TrainingError: There is no loss in it.
        """
        if isinstance(outcome, torch.Tensor):
            return self._backward(outcome, share)
        if "loss" in outcome:
            return self._backward(outcome["loss"], share)
        names = [name for name in self.optimizers if name in outcome]
        if not names:
            raise TrainingError(
                f"model.model: training_step returned a dict with {some(outcome)}; expected the key 'loss', or the "
                f"name of an optimizer: {some(self.optimizers)}"
            )
        # Each loss reaches the parameters of its own optimizer alone: a generator learns nothing from the loss that its
        # discriminator makes smaller.
        parts = [
            self._backward(outcome[name], share, inputs=self._parameters[name], retain_graph=name != names[-1])
            for name in names
        ]
        return torch.stack(parts).sum()

    def _backward(self, loss: torch.Tensor, share: float | torch.Tensor | None, **options: Any) -> torch.Tensor:
        if share is not None:
            loss = loss * share
        (loss if self._scaler is None else self._scaler.scale(loss)).backward(**options)  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self) -> None:
        """Change the weights."""
        scaler = self._scaler
        if self._clip_grad_norm is not None or self._clip_grad_value is not None:
            self._clip()
        for name, optimizer in self.optimizers.items():
            if scaler is None:
                optimizer.step()
            elif any(parameter.grad is not None for parameter in self._parameters[name]):  # the scaler insists on one
                scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
        if self.average is not None:
            self.average.update()

    def _clip(self) -> None:
        if self._scaler is not None:
            for optimizer in self.optimizers.values():
                self._scaler.unscale_(optimizer)
        if self._clip_grad_value is not None:
            nn.utils.clip_grad_value_(self._all_parameters, self._clip_grad_value)
        if self._clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._all_parameters, self._clip_grad_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            ValueError: It is of other parameters.
        """
        for name, optimizer in self.optimizers.items():
            _restore(optimizer, state["optimizers"][name])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give an optimizer its state.

    torch does not look at its shapes, and a fused kernel writes beyond the end of a tensor that is too small; and it
    casts what is kept in float32 for weights in half precision.

    Raises:
        ValueError: It is of other parameters.
    """
    optimizer.load_state_dict(saved)
    positions = {id(each): position for position, each in enumerate(_parameters_of(optimizer))}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if not isinstance(value, torch.Tensor):
                    continue
                if group.get("fused") and value.shape not in (parameter.shape, ()):
                    raise ValueError(
                        f"optimizer: {name} has the shape {tuple(value.shape)}; its parameter has "
                        f"{tuple(parameter.shape)}"
                    )
                exact = saved["state"][positions[id(parameter)]][name]
                if value.dtype != exact.dtype:
                    state[name] = exact.to(value.device)


def _parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
