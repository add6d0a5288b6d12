"""Tensors of a model that share memory: written once, and sharing again when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from gymtrain.errors import BundleError

Ties = dict[str, dict[str, Any]]

_VIEW = {"of", "offset", "shape", "stride"}


class _Place(NamedTuple):
    """Where the elements of a tensor lie in its storage, counted in elements."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + _reach(self.shape, self.stride)


def ties(state: Mapping[str, torch.Tensor]) -> Ties:
    """Find the tensors that are other ones under a second name, or a view of some of their elements.

    Tensors whose memory overlaps in another way are not among them, nor are those that only lie side by side in one
    storage: each of these is a tensor of its own.

    Returns:
        By the name of each such tensor, `{"of": …}`, the name of the other one; for a view also `offset`, `shape` and
        `stride` in it, in elements.

    Example:
        >>> weight = torch.zeros(3, 2)
        >>> ties({"encode": weight, "decode": weight, "row": weight[1]})
        {'decode': {'of': 'encode'}, 'row': {'of': 'encode', 'offset': 2, 'shape': [2], 'stride': [1]}}
    """
    groups: dict[tuple[Any, ...], dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        if tensor.layout is torch.strided and tensor.device.type != "meta" and tensor.numel():
            key = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.dtype)
            groups.setdefault(key, {})[name] = tensor
    found: Ties = {}
    for group in groups.values():
        owners: dict[str, torch.Tensor] = {}
        # The largest first, which may have others in it; sorting keeps the order of equal ones.
        for name, tensor in sorted(group.items(), key=lambda item: (-_span(item[1]), not item[1].is_contiguous())):
            matches = (_tie(tensor, other, other_name) for other_name, other in owners.items())
            tie = next((match for match in matches if match is not None), None)
            if tie is None:
                owners[name] = tensor
            else:
                found[name] = tie
    return {name: found[name] for name in state if name in found}


def tied(tensors: Mapping[str, torch.Tensor], given: object) -> dict[str, torch.Tensor]:
    """Return tensors with those that lie in them.

    Args:
        tensors: By name.
        given: What `ties` found, out of a file.

    Raises:
        BundleError: `inconsistent`: `ties` finds nothing like it in these tensors.
    """
    if not isinstance(given, dict):
        raise _misfit("expected an object")
    state = dict(tensors)
    for name, tie in given.items():
        owner = tensors.get(tie["of"]) if isinstance(tie, dict) and isinstance(tie.get("of"), str) else None
        if owner is None or name in tensors:
            raise _misfit(f"{name[:100]!r}: expected the name of a tensor of weights.safetensors under 'of'")
        if tie.keys() == {"of"}:
            state[name] = owner
            continue
        offset, shape, stride = (tie.get(key) for key in ("offset", "shape", "stride"))
        if tie.keys() != _VIEW or not _fits(offset, shape, stride, owner.numel()):
            raise _misfit(f"{name[:100]!r}: expected a view of {owner.numel()} elements by 'offset', 'shape', 'stride'")
        state[name] = owner.as_strided(shape, stride, offset)
    return state


def _tie(tensor: torch.Tensor, other: torch.Tensor, other_name: str) -> dict[str, Any] | None:
    one, two = _place(tensor), _place(other)
    if one == two:
        return {"of": other_name}
    # A file holds tensors without gaps between their elements, so that places in others are not the same there.
    if not other.is_contiguous() or one.offset < two.offset or one.end > two.end or tensor.numel() > other.numel():
        return None
    return {
        "of": other_name,
        "offset": one.offset - two.offset,
        "shape": list(one.shape),
        "stride": list(one.stride),
    }


def _place(tensor: torch.Tensor) -> _Place:
    return _Place(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())


def _span(tensor: torch.Tensor) -> int:
    return _reach(tuple(tensor.shape), tensor.stride())


def _reach(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Return how many elements lie from the first to the last one."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _fits(offset: Any, shape: Any, stride: Any, elements: int) -> bool:
    for numbers in ([offset], shape, stride):
        if not isinstance(numbers, list) or not all(type(each) is int and 0 <= each < 2**63 for each in numbers):
            return False
    # Not more elements than there are: what a file makes others allocate is bounded by its size.
    return (
        len(shape) == len(stride) <= 32
        and 0 < math.prod(shape) <= elements
        and offset + _reach(shape, stride) <= elements
    )


def _misfit(message: str) -> BundleError:
    return BundleError(f"storage.json: tied: {message}", reason="inconsistent")
