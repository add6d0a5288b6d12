"""What is said where something fails that is not of our own making."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from gymtrain.errors import GymtrainError, TrainingError
from gymtrain.training.callbacks import TrainingState

T = TypeVar("T")

# What models, losses, metrics and crafted files raise. An OSError keeps its own type, which says more.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def explained(events: Iterator[T], state: TrainingState, batch_size: int) -> Iterator[T]:
    """Say where it was, when the model, the loss or a metric fails in the middle.

    Raises:
        TrainingError: With the cause chained.
    """
    try:
        yield from events
    except GymtrainError:
        raise
    except FAILURES as error:
        hint = ""
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            hint = (
                f"; there is not enough memory, and model.training.batch_size is {batch_size}: try a smaller one, with "
                f"accumulate for steps of as many rows"
            )
        message = f"training failed after step {state.step}, in epoch {state.epoch}: {error}{hint}"
        raise TrainingError(message) from error


@contextmanager
def blamed_on(checkpoint: Path) -> Iterator[None]:
    """Name the checkpoint where its content fails: it may be of anybody's making.

    Raises:
        TrainingError: With the cause chained.
    """
    try:
        yield
    except GymtrainError:
        raise
    except FAILURES as error:
        raise TrainingError(f"resume: what is in {checkpoint} does not fit this training: {error!r}") from error
