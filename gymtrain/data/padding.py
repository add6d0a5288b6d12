"""Rows filled up to a number at which libraries compute each row alike, whatever is computed beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[Any]

ROWS_ALIKE = 32
"""Of a multiple of so many rows, each gets the bits that it gets among any other multiple: a library adds up in another
order for a few rows, and takes other instructions for what does not fill its registers."""


def padded(X: Matrix, multiple: int = ROWS_ALIKE) -> Matrix:
    """Return rows, and behind them the last of them again until there are a multiple.

    Args:
        X: At least one row, shape (rows, …).
        multiple: Of what the number of rows is to be a multiple.

    Example:
        >>> padded(np.array([[1.0], [2.0]]), 4).ravel()
        array([1., 2., 2., 2.])
    """
    rows = len(X)
    missing = -rows % multiple
    if not missing:
        return X
    full = np.empty((rows + missing, *X.shape[1:]), dtype=X.dtype)
    full[:rows] = X
    full[rows:] = X[-1]
    return full
