"""A training step, compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from gymtrain.data.batch import Batch

Step = Callable[[Batch], Any]


def compiled(step_with: Callable[[Mapping[str, Any]], Step], values: Mapping[str, float]) -> Step:
    """Return a training step that torch compiles when it is first called, and again for batches of another size.

    Args:
        step_with: Makes the step, given the keywords of the model's own.
        values: What these are, step by step. They are handed on as tensors of shape (): for each new number the step
            would be compiled anew, a few times, and then no more.
    """
    tensors: dict[str, torch.Tensor] = {}
    eager = step_with(tensors)

    def own(batch: Batch) -> Any:
        return eager(batch)

    # torch counts what it compiled by the code object, which the steps of all trainings would share, and gives up after
    # a few: each training gets a copy. `torch.compiler.reset` would drop what else the program has compiled.
    own.__code__ = own.__code__.replace()
    step = torch.compile(own, dynamic=False)

    def call(batch: Batch) -> Any:
        tensors.update({name: torch.tensor(value) for name, value in values.items()})
        return step(batch)

    return call
