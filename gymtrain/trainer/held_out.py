"""Rows that nothing was learned from, kept to see later what a change of the model does to its metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gymtrain.trainer.preparation import Prepared

# Bounds what a trainer keeps in memory after training, in numbers of 4 bytes.
MAX_VALUES = 1 << 24


@dataclass(frozen=True)
class HeldOut:
    """Rows of one part.

    Args:
        part: `"test"` or `"val"`.
        inputs: As the model gets them, float32 of shape (rows, …).
        targets: As the task has them.
    """

    part: str
    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.generic]


def held_out(data: Prepared) -> HeldOut | None:
    """Return the test part, else the val part, else None; of a large one as many rows, evenly spaced, as are kept."""
    part = next((name for name in ("test", "val") if name in data.inputs), None)
    if part is None:
        return None
    inputs, targets = data.inputs[part], data.targets[part]
    count = max(1, MAX_VALUES * len(inputs) // max(inputs.size, 1))
    if count >= len(inputs):
        return HeldOut(part, data.ready(part), targets)
    chosen = np.linspace(0, len(inputs) - 1, count).astype(np.int64)
    return HeldOut(part, data.ready(part, chosen), targets[chosen])
