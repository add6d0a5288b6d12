"""What a model learns from at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """Rows that are learned from together.

    Args:
        inputs: Rows, as the preprocessors and augmentors made them, (rows, …).
        targets: What the loss compares with, (rows,) or (rows, outputs).
        weights: How much each row counts, float32 (rows,); None for all alike.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None

    @property
    def size(self) -> int | Tensor:
        """How much the batch counts: its rows, or what they weigh, a tensor of shape () on the device."""
        return len(self.targets) if self.weights is None else self.weights.sum()
