"""The safetensors layout, written to and parsed from the middle of another file.

Any reader of safetensors reads these bytes: https://huggingface.co/docs/safetensors. The library itself can neither
write into a member of a zip nor map from one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from gymtrain.bundle import strict_json
from gymtrain.bundle.format import ALIGNMENT
from gymtrain.errors import BundleError, SaveError, some

ITEM_BYTES: Final = MappingProxyType(
    {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "U16": 2,
        "I16": 2,
        "F16": 2,
        "BF16": 2,
        "U32": 4,
        "I32": 4,
        "F32": 4,
        "U64": 8,
        "I64": 8,
        "F64": 8,
        "C64": 8,
    }
)
_NUMPY: Final = MappingProxyType(
    {
        "BOOL": "|b1",
        "U8": "|u1",
        "I8": "|i1",
        "U16": "<u2",
        "I16": "<i2",
        "F16": "<f2",
        "U32": "<u4",
        "I32": "<i4",
        "F32": "<f4",
        "U64": "<u8",
        "I64": "<i8",
        "F64": "<f8",
        "C64": "<c8",
    }
)
_FROM_NUMPY: Final = MappingProxyType({np.dtype(numpy).str: name for name, numpy in _NUMPY.items()})
MAX_DIMENSIONS: Final = 32  # what numpy 1 can hold
_MAX_BYTES: Final = 2**63 - 1
_PIECE_BYTES: Final = 1 << 20  # what one processor keeps near while it is written and hashed


class Tensor(NamedTuple):
    """An array as it lies in a file: `data` holds the elements in C order, little endian.

    Example:
        >>> Tensor("F32", (2,), bytes(8)).shape
        (2,)
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview | bytes | bytearray


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array as a tensor; its memory is shared where it already is in C order and little endian.

    Args:
        array: Any shape; bool, 8 to 64 bit integers, 16 to 64 bit floats or complex64, in either byte order.

    Raises:
        SaveError: The dtype has no place in the format (objects, strings, dates, longdouble, complex128).

    Example:
        >>> from_numpy(np.zeros((2, 3), np.float32))[:2]
        ('F32', (2, 3))
    """
    little = array.dtype.newbyteorder("<")
    if little.str not in _FROM_NUMPY:
        raise SaveError(f"an array of dtype {array.dtype} cannot be saved; expected one of {sorted(_NUMPY)}")
    ordered = np.asarray(array, dtype=little, order="C")
    return Tensor(_FROM_NUMPY[little.str], array.shape, ordered.reshape(-1).view(np.uint8).data)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as an array over the same memory; it can be written to where that memory can.

    Raises:
        BundleError: `weights_dtype`: numpy has no such dtype (BF16 and the 8-bit floats).

    Example:
        >>> to_numpy(Tensor("I64", (1, 2), bytes(16)))
        array([[0, 0]])
    """
    if tensor.dtype not in _NUMPY:
        raise BundleError(f"numpy has no dtype for {tensor.dtype}; read it with torch", reason="weights_dtype")
    dtype = np.dtype(_NUMPY[tensor.dtype])
    if 0 in tensor.shape:  # older numpy takes no empty buffer
        return np.empty(tensor.shape, dtype)
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def encode_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Return the header with its length before it, padded so that the data begins at a multiple of 64, and the order.

    The format allows no gap between tensors. Those whose length is a multiple of 64 come first, then of 32, and so on;
    each then begins at a multiple of what its own length is a multiple of: nearly always 64, never less than an item.

    Raises:
        SaveError: A tensor is not what its dtype and shape say, or the header would be too large to be read.

    Example:
        >>> header, order = encode_header({"b": Tensor("U8", (1,), b"1"), "w": Tensor("F32", (16,), bytes(64))}, {})
        >>> len(header) % 64, order
        (0, ['w', 'b'])
    """
    for name, tensor in tensors.items():
        _check_writable(name, tensor)
    order = sorted(tensors, key=lambda name: (-_alignment(tensors[name]), name))
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in order:
        end = position + memoryview(tensors[name].data).nbytes
        entries[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": [position, end],
        }
        position = end
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    if (fault := strict_json.excess(header, _max_header(position))) is not None:
        raise SaveError(f"{len(tensors)} tensors are too many: a header of {fault}")
    return len(header).to_bytes(8, "little") + header, order


def encoded_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return how many bytes `encoded` yields for these tensors without metadata.

    Example:
        >>> encoded_bytes({"w": Tensor("F32", (2,), bytes(8))})
        72
    """
    return len(encode_header(tensors, {})[0]) + sum(memoryview(tensor.data).nbytes for tensor in tensors.values())


def encoded(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = MappingProxyType({})
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of tensors, one after another, in pieces of at most 1 MiB, none of them copied.

    Equal tensors give equal bytes. A tensor must not change between two calls that are to give the same.

    Args:
        tensors: By name.
        metadata: Text for readers; empty leaves the entry out.

    Raises:
        SaveError: A tensor is not what its dtype and shape say, or the header would be too large to be read.

    Example:
        >>> b"".join(encoded({"w": Tensor("U8", (2,), b"hi")}))[-2:]
        b'hi'
    """
    header, order = encode_header(tensors, metadata)
    yield header
    for name in order:
        data = memoryview(tensors[name].data).cast("B")
        for start in range(0, data.nbytes, _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]


def write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write what `encoded` yields to anything that has `write`.

    Raises:
        SaveError: A tensor is not what its dtype and shape say, or the header would be too large to be read.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> write(file, {"w": Tensor("U8", (2,), b"hi")})
        >>> file.getvalue()[-2:]
        b'hi'
    """
    for piece in encoded(tensors, metadata):
        file.write(piece)


def parse(
    buffer: memoryview | bytes | bytearray,
    *,
    expected: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    where: str = "weights.safetensors",
) -> dict[str, Tensor]:
    """Find the tensors in a buffer; their data are views into it.

    Args:
        buffer: The whole of what `write` wrote, and nothing after it.
        expected: The dtype and shape of every tensor that must be there, where the caller knows them.
        where: The name of the buffer, for messages.

    Returns:
        The tensors by name, in the order of their data.

    Raises:
        BundleError: `weights_header`, `weights_layout`, `weights_dtype`, `weights_names` or `weights_shape`.

    Example:
        >>> parse((2).to_bytes(8, "little") + b"{}")
        {}
    """
    view = memoryview(buffer)
    header, start = _read_header(view, where)
    items = sorted(_parse_item(name, entry, where) for name, entry in header.items() if name != "__metadata__")
    tensors: dict[str, Tensor] = {}
    position = 0
    for begin, end, name, dtype, shape in items:
        if begin != position:
            problem = "overlaps the one before it" if begin < position else "leaves a gap before it"
            raise BundleError(f"{where}: tensor {name!r} {problem}", reason="weights_layout")
        if (start + begin) % ITEM_BYTES[dtype]:
            raise BundleError(f"{where}: tensor {name!r} is not aligned to its items", reason="weights_layout")
        tensors[name] = Tensor(dtype, shape, view[start + begin : start + end])
        position = end
    if start + position != len(view):
        message = f"{where}: the tensors end at byte {start + position}, the member at byte {len(view)}"
        raise BundleError(message, reason="weights_layout")
    if expected is not None:
        _check_expected(tensors, expected, where)
    return tensors


def _alignment(tensor: Tensor) -> int:
    num_bytes = memoryview(tensor.data).nbytes
    return min(num_bytes & -num_bytes, ALIGNMENT) or ALIGNMENT


def _max_header(data_bytes: int) -> int:
    return (1 << 20) + data_bytes // 64


def _check_writable(name: str, tensor: Tensor) -> None:
    if name == "__metadata__" or len(name) > 1000 or any("\ud800" <= character <= "\udfff" for character in name):
        raise SaveError(f"a tensor cannot be saved under the name {name[:100]!r}")
    if tensor.dtype not in ITEM_BYTES:
        raise SaveError(f"tensor {name!r} is {tensor.dtype!r}; expected one of {sorted(ITEM_BYTES)}")
    num_bytes, expected = memoryview(tensor.data).nbytes, math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
    if num_bytes != expected or len(tensor.shape) > MAX_DIMENSIONS:
        raise SaveError(f"tensor {name!r}: {num_bytes} bytes are not {tensor.dtype} of shape {tensor.shape}")


def _read_header(view: memoryview, where: str) -> tuple[dict[str, Any], int]:
    """Return the entries of the header and where the data begins."""
    length = int.from_bytes(view[:8], "little")
    limit = min(len(view) - 8, _max_header(len(view)))
    if not 2 <= length <= limit:
        message = f"{where}: a header of {length} bytes; expected 2 to {max(limit, 2)}: these are not safetensors"
        raise BundleError(message, reason="weights_header")
    encoded = bytes(view[8 : 8 + length])
    if not encoded.startswith(b"{"):
        raise BundleError(f"{where}: the header does not begin with an object", reason="weights_header")
    try:
        header = strict_json.loads(encoded, f"{where}, header", max_bytes=length)
    except BundleError as error:
        raise BundleError(str(error), reason="weights_header") from None
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BundleError(f"{where}: __metadata__ holds something but text", reason="weights_header")
    return header, 8 + length


def _parse_item(name: str, entry: object, where: str) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Return begin, end, name, dtype and shape of one entry of the header."""
    at = f"{where}: tensor {name[:100]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{at}: expected dtype, shape and data_offsets, nothing else", reason="weights_header")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        message = f"{at}: dtype is {str(dtype)[:100]!r}; expected one of {sorted(ITEM_BYTES)}"
        raise BundleError(message, reason="weights_dtype")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        message = f"{at}: expected a shape of at most {MAX_DIMENSIONS} integers from 0"
        raise BundleError(message, reason="weights_layout")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise BundleError(f"{at}: expected data_offsets of two integers from 0", reason="weights_layout")
    # Zeros are left out of this product: numpy cannot hold a shape like (0, 2**62, 2**62) either.
    if math.prod(size for size in shape if size) * ITEM_BYTES[dtype] > _MAX_BYTES:
        raise BundleError(f"{at}: the shape has more items than memory has addresses", reason="weights_layout")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        message = f"{at}: {end - begin} bytes are not {dtype} of shape {tuple(shape)}"
        raise BundleError(message, reason="weights_layout")
    return begin, end, name, dtype, tuple(shape)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_expected(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[str, tuple[int, ...]]], where: str
) -> None:
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        parts = [f"missing {some(missing)}"] * bool(missing) + [f"unexpected {some(extra)}"] * bool(extra)
        raise BundleError(f"{where}: {'; '.join(parts)}", reason="weights_names")
    for name, (dtype, shape) in expected.items():
        if tensors[name].shape != tuple(shape):
            message = f"{where}: tensor {name!r} has shape {tensors[name].shape}, expected {tuple(shape)}"
            raise BundleError(message, reason="weights_shape")
        if tensors[name].dtype != dtype:
            message = f"{where}: tensor {name!r} is {tensors[name].dtype}, expected {dtype}"
            raise BundleError(message, reason="weights_dtype")
