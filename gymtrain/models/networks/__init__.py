"""Ready networks: functions that return plain `torch.nn.Sequential`s.

torch is imported inside them, because specs are checked against their signatures without it. `input_shape` (the shape
of one row, without the rows) and `output_size` (the number of outputs that the task needs) come from the data.
"""

from __future__ import annotations

from typing import Any


def is_ours(thing: Any) -> bool:
    """Tell whether a function or a class is one of those in here: torch computes each row of these on its own.

    Example:
        >>> from gymtrain.models.networks.dense import mlp
        >>> is_ours(mlp), is_ours(print)
        (True, False)
    """
    return str(thing.__module__).startswith(f"{__name__}.")
