"""Tensors of torch, for those who do not import it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def is_tensor(value: Any) -> bool:
    """Tell whether something is a tensor of torch; files, too, have a `detach`."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def as_numpy(tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor of torch as an array; numpy has no bfloat16, whose values float32 holds exactly."""
    tensor = tensor.detach().cpu()
    return np.asarray(tensor.float() if "bfloat16" in str(tensor.dtype) else tensor)
