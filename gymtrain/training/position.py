"""Where a training stands: all that the loop itself has to know to go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gymtrain.errors import NonFiniteLossError

Size = float | torch.Tensor


class Losses:
    """What the steps of an epoch gave, left on the device and fetched in blocks: fetching each would wait for it."""

    BLOCK = 1000

    def __init__(self) -> None:
        self._pending: list[torch.Tensor] = []
        self._sizes: list[Size] = []
        self._noted: dict[str, list[tuple[torch.Tensor, Size]]] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        self._step = 0

    def add(self, loss: torch.Tensor, size: Size, step: int) -> None:
        """Take in the mean loss of a step over so many rows, or so much weight.

        Raises:
            NonFiniteLossError: One of the block that is full now was NaN or infinite.
        """
        self._pending.append(loss)
        self._sizes.append(size)
        self._step = step
        if len(self._pending) == self.BLOCK:
            self.fetch()

    def note(self, values: Mapping[str, torch.Tensor], size: Size) -> None:
        """Take in what else a training step gave for a batch."""
        for name, value in values.items():
            if name != "loss":
                self._noted.setdefault(name, []).append((value.detach(), size))

    def fetch(self) -> None:
        """Bring to the host what is still on the device.

        Raises:
            NonFiniteLossError: A loss was NaN or infinite.
        """
        values = _numbers(self._pending)
        for step, value in enumerate(values, self._step - len(values) + 1):
            check_finite(value, step)
        self._sum("loss", values, self._sizes)
        for name, noted in self._noted.items():
            self._sum(name, _numbers([value for value, _ in noted]), [size for _, size in noted])
        self._pending.clear()
        self._sizes.clear()
        self._noted.clear()

    def _sum(self, name: str, values: list[float], sizes: Sequence[Size]) -> None:
        if not values:
            return
        total, count = self._sums.get(name, (0.0, 0.0))
        for value, size in zip(values, _numbers(sizes), strict=True):
            total, count = total + value * size, count + size
        self._sums[name] = total, count

    def means(self) -> dict[str, float]:
        """Return the mean of each over all rows, `loss` first, and begin anew.

        Raises:
            NonFiniteLossError: A loss was NaN or infinite.
        """
        self.fetch()
        means = {name: total / count if count else 0.0 for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far.

        Raises:
            NonFiniteLossError: A loss was NaN or infinite: there is nothing to go on from.
        """
        self.fetch()
        return {"sums": [[name, total, count] for name, (total, count) in self._sums.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the sums."""
        self._sums = {str(name): (float(total), float(count)) for name, total, count in state["sums"]}


@dataclass
class Position:
    """Where a training stands.

    Args:
        epochs: The epochs that are over.
        step: The optimizer steps that were taken, in all epochs.
        steps_in_epoch: Those of them in the epoch that is running; 0 when none is.
        losses: What these steps gave.
        is_whole: Whether the last step is over; within one there is nothing that could be gone on from.
        validated: The step after which the model was last validated within an epoch.
    """

    epochs: int = 0
    step: int = 0
    steps_in_epoch: int = 0
    losses: Losses = field(default_factory=Losses)
    is_whole: bool = True
    validated: int = 0

    def begin_step(self) -> None:
        """Say that what is computed now belongs to the next step."""
        self.is_whole = False

    def take(self, loss: torch.Tensor, size: Size) -> None:
        """Count a step with its mean loss over so many rows, or so much weight."""
        self.step += 1
        self.steps_in_epoch += 1
        self.losses.add(loss, size, self.step)
        self.is_whole = True

    def end_epoch(self) -> None:
        """Count an epoch; it is for whoever goes through the events to say when all that belongs to it is done."""
        self.is_whole = False
        self.epochs += 1
        self.steps_in_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as plain values."""
        return {
            "epochs": self.epochs,
            "step": self.step,
            "steps_in_epoch": self.steps_in_epoch,
            "losses": self.losses.state_dict(),
            "validated": self.validated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.epochs, self.step, self.steps_in_epoch, self.validated = (
            int(state[name]) for name in ("epochs", "step", "steps_in_epoch", "validated")
        )
        self.losses.load_state_dict(state["losses"])


def _numbers(values: Sequence[Size]) -> list[float]:
    """Bring numbers to the host, those on the device all at once."""
    if values and isinstance(values[0], torch.Tensor):
        return torch.stack(list(values)).tolist()  # type: ignore[arg-type]
    return [float(value) for value in values]


def check_weights(module: nn.Module, step: int) -> None:
    """Refuse weights that nothing can be predicted with; buffers may hold infinity, such as a mask.

    Raises:
        NonFiniteLossError: One of them is NaN or infinite.
    """
    # Of none there is no largest: a parameter may have no elements.
    weights = [each.detach() for each in module.parameters() if each.is_floating_point() and each.numel()]
    largest = torch._foreach_norm(weights, math.inf) if weights else []
    if largest and not torch.stack([each.double() for each in largest]).isfinite().all():
        raise NonFiniteLossError(f"the weights became NaN or infinite at step {step}; {_REMEDY}")


_REMEDY = (
    "try a smaller learning rate (model.training.optimizer.lr), scaled features (a preprocessor such as "
    "standard_scaler), or targets of moderate size"
)


def check_finite(loss: float, step: int) -> None:
    """Refuse a loss that nothing can be learned from.

    Raises:
        NonFiniteLossError: It is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise NonFiniteLossError(f"the loss became {loss} at step {step}; {_REMEDY}")
