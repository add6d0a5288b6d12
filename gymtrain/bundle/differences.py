"""What two bundles have learned differently, tensor by tensor, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gymtrain.bundle import format as bundle_format
from gymtrain.bundle.format import preprocessor_name
from gymtrain.bundle.reader import Bundle
from gymtrain.bundle.tensors import Tensor, to_numpy

# What a bundle says of itself, and of the few rows that it holds; the rest is what it has learned.
_SAID = (
    bundle_format.SPEC,
    bundle_format.SCHEMA,
    bundle_format.RESULTS,
    bundle_format.README,
    bundle_format.SELFCHECK,
)
_ITEMS = 1 << 20  # that are compared at a time


class Difference(NamedTuple):
    """A tensor, or a member that holds none, which is not the same in two bundles.

    Args:
        name: The member, and behind it the tensor: `weights/layers.0.bias`, `model.skops`.
        one: What it is in the first, such as `F32 (64, 10) 3f2a91c0…`, with its SHA-256; None where it is not there.
        other: The same of the second.
        largest: The largest difference between two numbers; None where shapes or types differ, for a member, and where
            it is not finite.
        differing: How many numbers differ; None where `largest` could not be asked for.
    """

    name: str
    one: str | None
    other: str | None
    largest: float | None = None
    differing: int | None = None


def differences(one: Bundle, other: Bundle) -> list[Difference]:
    """Compare what two bundles have learned: their tensors bit by bit, other members by their digests.

    Raises:
        BundleError: `weights_header`, `weights_layout` or `weights_dtype`.

    Example:
        >>> import os, tempfile
        >>> from gymtrain.bundle import Contents, from_numpy, open_bundle, write
        >>> paths = [os.path.join(tempfile.mkdtemp(), "model.zip") for _ in range(2)]
        >>> for path, number in zip(paths, (1.0, 1.5)):
        ...     write(path, Contents(
        ...         spec={}, schema={}, results={}, selfcheck={}, readme="", which_weights="last", versions={},
        ...         created="2027-01-01T00:00:00+00:00", weights={"bias": from_numpy(np.array([number, 2.0]))},
        ...     ))
        >>> with open_bundle(paths[0]) as one, open_bundle(paths[1]) as other:
        ...     [(each.name, each.largest, each.differing) for each in differences(one, other)]
        [('weights/bias', 0.5, 1)]
    """
    # That one is a checkpoint and the other is not is told by the members.
    both = all(bundle_format.TRAINING_STATE in bundle.manifest["members"] for bundle in (one, other))
    return [*_between_members(one, other), *_between_tensors(_tensors(one, both), _tensors(other, both))]


def _between_members(one: Bundle, other: Bundle) -> Iterator[Difference]:
    listed = [bundle.manifest["members"] for bundle in (one, other)]
    for name in sorted({*listed[0], *listed[1]}):
        if name in _SAID or bundle_format.is_tensors(name):
            continue
        here, there = (_member(members.get(name)) for members in listed)
        if here != there:
            yield Difference(name, here, there)


def _member(listed: Mapping[str, Any] | None) -> str | None:
    return None if listed is None else f"{listed['size']} bytes {listed['sha256']}"


def _tensors(bundle: Bundle, with_training: bool) -> dict[str, Tensor]:
    members = {bundle_format.WEIGHTS: bundle.weights() or {}}
    for index, state in enumerate(bundle.preprocessors()):
        members[preprocessor_name(index, "safetensors")] = dict(state.tensors)
    training = bundle.training() if with_training else None
    if training is not None:
        members[bundle_format.TRAINING_TENSORS] = dict(training.tensors)
    return {
        f"{member.removesuffix('.safetensors')}/{name}": tensor
        for member, named in members.items()
        for name, tensor in named.items()
    }


def _between_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[Difference]:
    for name in {**one, **other}:
        here, there = one.get(name), other.get(name)
        if here is None or there is None or here[:2] != there[:2]:
            yield Difference(name, _described(here), _described(there))
        elif not np.array_equal(_bytes(here), _bytes(there)):
            yield Difference(name, _described(here), _described(there), *_measured(here, there))


def _described(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{tensor.dtype} {tensor.shape} {hashlib.sha256(tensor.data).hexdigest()}"


def _measured(one: Tensor, other: Tensor) -> tuple[float | None, int]:
    """Return the largest difference and the number of items that differ, a piece at a time."""
    largest, differing = 0.0, 0
    pairs = zip(_pieces(one), _pieces(other), strict=True)
    for (mine, numbers), (theirs, others) in pairs:
        differs = (mine != theirs).any(axis=1)
        differing += int(differs.sum())
        if numbers is not None and others is not None and len(numbers):
            with np.errstate(invalid="ignore", over="ignore"):
                largest = np.maximum(largest, np.abs(numbers - others)[differs].max(initial=0.0))
        else:
            largest = np.nan
    return (float(largest) if np.isfinite(largest) else None), differing


def _pieces(tensor: Tensor) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[Any] | None]]:
    """Yield the bytes of some items, (items, bytes), and what numbers they are; None for those of 8 bits."""
    raw = _bytes(tensor)
    size = len(raw) // max(int(np.prod(tensor.shape)), 1)
    for start in range(0, len(raw), _ITEMS * size):
        piece = raw[start : start + _ITEMS * size]
        yield piece.reshape(-1, size), _numbers(tensor.dtype, piece, len(piece) // size)


def _numbers(dtype: str, piece: npt.NDArray[np.uint8], items: int) -> npt.NDArray[Any] | None:
    if dtype.startswith("F8"):
        return None
    if dtype == "BF16":  # the upper half of a float32
        return (piece.view("<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    numbers = to_numpy(Tensor(dtype, (items,), piece.data))
    return numbers.astype(np.complex128 if dtype == "C64" else np.float64)


def _bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.data, np.uint8) if memoryview(tensor.data).nbytes else np.empty(0, np.uint8)
