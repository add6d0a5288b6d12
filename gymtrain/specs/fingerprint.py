"""Live arrays and frames in a spec: named by a digest over all their bytes where they cannot be written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt


def fingerprint(value: Any) -> dict[str, Any]:
    """Return what stands for an array or a frame in a saved spec: its shape, its type and the SHA-256 of its content.

    Args:
        value: A numpy array, a torch tensor, a pandas, polars or pyarrow frame, a dict of columns, or a sequence.

    Example:
        >>> import numpy as np
        >>> fingerprint(np.zeros((2, 3)))["fingerprint"]["shape"]
        [2, 3]
    """
    digest = hashlib.sha256()
    columns = list(value.items()) if isinstance(value, Mapping) else frame_columns(value)
    if columns is None:
        array = _as_array(value)
        _feed(digest, array)
        described: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    else:
        for name, column in columns:
            digest.update(json.dumps(name).encode())
            _feed(digest, _as_array(column))
        rows = len(columns[0][1]) if columns else 0
        described = {"shape": [rows, len(columns)], "columns": [name for name, _ in columns]}
    return {"fingerprint": {**described, "sha256": digest.hexdigest()}}


def is_fingerprint(value: Any) -> bool:
    """Tell whether a value of a spec stands for data that was not written down."""
    return isinstance(value, dict) and set(value) == {"fingerprint"}


def is_live(value: Any) -> bool:
    """Tell whether a value is an array, a tensor or a frame."""
    return hasattr(value, "shape") or hasattr(value, "__array__") or frame_columns(value) is not None


def frame_columns(value: Any) -> list[tuple[str, Any]] | None:
    """Return the columns of a pandas, polars or pyarrow frame with their names; None for anything else.

    Frames are recognised by what they have, so that none of these packages is imported. Names are made text.
    """
    if hasattr(value, "column_names") and hasattr(value, "column"):  # pyarrow.Table
        return [(str(name), value.column(position)) for position, name in enumerate(value.column_names)]
    # By position, because two columns may have one name; the length, because a lazy frame of polars has none.
    if hasattr(value, "__len__") and hasattr(value, "columns") and hasattr(value, "dtypes"):
        by_position = value.iloc if hasattr(value, "iloc") else value
        return [(str(name), by_position[:, position]) for position, name in enumerate(value.columns)]
    return None


def column_array(column: Any) -> npt.NDArray[Any]:
    """Return a column of pandas, polars or pyarrow as an array; what has missing values may become objects."""
    import numpy as np

    if not hasattr(column, "to_pylist"):
        return np.asarray(column.to_numpy())
    if hasattr(column.type, "index_type"):
        # Of categories, pyarrow gives the last one where a value is missing.
        column = column.cast(column.type.value_type)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _as_array(value: Any) -> npt.NDArray[Any]:
    import numpy as np

    if hasattr(value, "detach"):  # torch.Tensor, wherever it lies
        value = value.detach().cpu()
    elif hasattr(value, "to_numpy"):
        return column_array(value)
    try:
        return np.asarray(value)
    except ValueError:
        # Rows of different length: what is wrong with them is said when they are loaded.
        return np.array([repr(item) for item in value])


def _feed(digest: Any, array: npt.NDArray[Any]) -> None:
    import numpy as np

    digest.update(f"{array.dtype}{array.shape}".encode())
    if array.dtype.hasobject or array.dtype.kind in "UT":
        for item in array.ravel().tolist():
            digest.update(f"{type(item).__name__}:{item!r};".encode())
    else:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
