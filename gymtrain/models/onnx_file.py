"""What a file in ONNX may hold: looked at byte by byte, before any library for it sees it.

It may be of anybody's making. Libraries follow paths of tensors that lie in other files, and let a few bytes grow to
objects of any number. Here are no such tensors, no functions, no loops or branches, no operators but those of ONNX
itself, and every tensor holds as many bytes as its shape says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

MAX_FIELDS: Final = 500_000  # of nodes, attributes and tensors: bounds the memory that the graph takes
DOMAINS: Final = (b"", b"ai.onnx")

# By the numbers that onnx.proto gives to fields: what is in them, None for anything. Others are refused.
_FIELDS: Final = MappingProxyType(
    {
        "model": {1: None, 2: None, 3: None, 7: "graph", 8: "opset"},
        "opset": {1: "domain", 2: None},
        "graph": {1: "node", 2: None, 5: "tensor", 11: None, 12: None},
        "node": {1: None, 2: None, 3: None, 4: None, 5: "attribute", 7: "domain"},
        "attribute": {1: None, 2: None, 3: None, 4: None, 5: "tensor", 7: None, 8: None, 9: None, 20: None},
        "tensor": {1: "dim", 2: "type", 8: None, 9: "data"},
    }
)
_ITEM_BYTES: Final = MappingProxyType(
    {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
)


def refusal(data: bytes) -> str | None:
    """Return what is in a file that may not be there; None if it is fine.

    Example:
        >>> refusal(b"")
        'no graph'
        >>> refusal(bytes([0xCA, 0x01, 0]))
        'field 25 of a model'
    """
    try:
        if "graph" not in list(_walk(memoryview(data), "model", [0])):
            return "no graph"
    except (ValueError, IndexError) as error:
        return str(error) if isinstance(error, ValueError) else "it ends too early"
    return None


def _walk(view: memoryview, kind: str, count: list[int]) -> Iterator[str]:
    """Yield what the fields of a message hold.

    Raises:
        ValueError: Something may not be there.
    """
    dims: list[int] = []
    item_bytes, num_bytes = None, 0
    for number, value in _fields(view):
        count[0] += 1
        if count[0] > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        if number not in _FIELDS[kind]:
            raise ValueError(f"field {number} of {'an' if kind[0] in 'ao' else 'a'} {kind}")
        holds = _FIELDS[kind][number]
        if holds == "domain" and (not isinstance(value, memoryview) or bytes(value[:8]) not in DOMAINS):
            raise ValueError("operators that are not those of ONNX itself")
        if holds == "dim":
            dims += [value] if isinstance(value, int) else [size for size, _ in _varints(value)]
        elif holds == "type":
            item_bytes = _ITEM_BYTES.get(value) if isinstance(value, int) else None
        elif holds == "data":
            num_bytes = len(value) if isinstance(value, memoryview) else -1
        elif holds is not None and holds in _FIELDS:
            if not isinstance(value, memoryview):
                raise ValueError(f"no message where a {kind} has {holds}")
            for _ in _walk(value, holds, count):
                pass
        if holds is not None:
            yield holds
    if kind == "tensor" and (item_bytes is None or len(dims) > 32 or math.prod(dims) * item_bytes != num_bytes):
        raise ValueError("a tensor whose bytes are not here, or not those of its type and shape")


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(view, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(view, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if position + length > len(view):
            raise IndexError
        yield number, view[position : position + length]
        position += length


def _varints(view: memoryview) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(view):
        value, position = _varint(view, position)
        yield value, position


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")
