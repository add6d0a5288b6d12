"""Pictures as PNG and as arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def encode_png(image: NDArray[np.uint8]) -> bytes:
    r"""Return a uint8 array of shape `(height, width)` or `(height, width, 3)` as PNG.

    Raises:
        ArgumentError: the array has another shape or dtype.

    Example:
        >>> import numpy as np
        >>> encode_png(np.zeros((2, 3), np.uint8))[:4]
        b'\x89PNG'
    """
    import numpy as np
    from PIL import Image

    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise ArgumentError(
            f"image: got shape {array.shape} and dtype {array.dtype}; "
            "expected uint8 of shape (height, width) or (height, width, 3)"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """Return a PNG as a uint8 array of shape `(height, width)` if it is grey, else `(height, width, 3)`.

    Example:
        >>> import numpy as np
        >>> decode_png(encode_png(np.full((2, 3), 7, np.uint8))).tolist()
        [[7, 7, 7], [7, 7, 7]]
    """
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"), dtype=np.uint8)


def figure_png(figure: Any) -> bytes:
    """Return a `matplotlib.figure.Figure` as PNG; its canvas and backend stay as they are."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
