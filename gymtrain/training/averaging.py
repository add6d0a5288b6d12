"""The exponential moving average of a module's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Average:
    """A copy of a module whose weights follow the module's own slowly (Polyak averaging).

    After each step `average = decay * average + (1 - decay) * weights`; with `warmup` the decay begins small, because
    the first weights are random: `min(decay, (1 + updates) / (10 + updates))`, as TensorFlow's ExponentialMovingAverage
    has it (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage). Buffers, such as the
    statistics of batch norm, are averages already, and are taken over as they are.

    Args:
        module: What learns.
        decay: How much of the average stays, from 0 to 1.
        warmup: Whether the decay begins small.

    Example:
        >>> module = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(module.weight)
        >>> average = Average(module, decay=0.75, warmup=False)
        >>> _ = nn.init.ones_(module.weight)
        >>> average.update()
        >>> average.current().weight.item()
        0.25
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self._copy = copy.deepcopy(module).requires_grad_(False).eval()
        self._updates = 0
        self._live, self._averaged = _floating(module), _floating(self._copy)
        self._module = module  # whose buffers may be others after each step

    @torch.no_grad()
    def current(self) -> nn.Module:
        """Return the copy with the averaged weights, and the module's buffers as they are now, in evaluation mode."""
        for own, live in zip(self._copy.buffers(), self._module.buffers(), strict=True):
            own.copy_(live)
        return self._copy

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._updates += 1
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averaged, self._live, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how many updates are in it."""
        return {"weights": self.current().state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self._copy.load_state_dict(state["weights"])
        self._updates = state["updates"]


def _floating(module: nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in module.parameters() if parameter.is_floating_point()]
