"""Rows of any form, and some of them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gymtrain.data.decoding import ImageArray
from gymtrain.data.frames import Frame
from gymtrain.data.images import Images

Rows = Frame | Images | ImageArray | npt.NDArray[Any]
R = TypeVar("R", bound=Rows)


def taken(rows: R, positions: npt.NDArray[np.int64] | slice) -> R:
    """Return some of the rows, by position.

    Example:
        >>> taken(np.array([5, 6, 7]), np.array([2, 0])).tolist()
        [7, 5]
    """
    chosen: Any = rows[positions] if isinstance(rows, np.ndarray) else rows.take(positions)
    return chosen  # type: ignore[no-any-return]
