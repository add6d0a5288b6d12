"""Randomness as a pure function of (seed, epoch, position).

No generator state is kept anywhere, so nothing has to be saved or restored: a resumed epoch draws what the
uninterrupted one drew, and a sample draws the same numbers whichever batch, worker or device it is in. The hash is that
of splitmix64 (https://prng.di.unimi.it/splitmix64.c): in Python integers for keys, in wrapping int64s for tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def mix(*integers: int) -> int:
    """Hash integers, in their order, to one key.

    Args:
        integers: Any integers; what lies above their lowest 64 bits is not looked at.

    Returns:
        A key in `[0, 2**63)`, which is what `uniform` and `torch.Generator.manual_seed` take.

    Example:
        >>> mix(0, 1), mix(1, 0)
        (1534736266818221247, 3395948882924712079)
    """
    state = 0
    for integer in integers:
        state = (state + integer + _GAMMA) & _MASK
        for shift, multiplier in _ROUNDS:
            state = ((state ^ (state >> shift)) * multiplier) & _MASK
        state ^= state >> _LAST_SHIFT
    return state >> 1


def uniform(key: int, ids: Tensor, count: int) -> Tensor:
    """Draw `count` numbers for each id; row `i` depends on `key` and `ids[i]` alone.

    Args:
        key: What the numbers are for, from `mix`, in `[0, 2**63)`.
        ids: int64 tensor of shape `(B,)`: the positions of the samples in their dataset.
        count: Numbers per id, at least 0. The first ones do not depend on how many are drawn.

    Returns:
        float32 tensor of shape `(B, count)` on the device of `ids`, in `[0, 1)`, the same bits on every device.

    Example:
        >>> import torch
        >>> a, b = uniform(mix(0, 1), torch.tensor([7, 8]), 2)
        >>> torch.equal(b, uniform(mix(0, 1), torch.tensor([8]), 2)[0])
        True
    """
    return uniforms([key], ids, [count])[0]


def uniforms(keys: Sequence[int], ids: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Draw numbers for several purposes at once, which takes little longer than for one of them.

    Args:
        keys: What the numbers are for, as for `uniform`; at least one.
        ids: As for `uniform`.
        counts: Numbers per id, for each key.

    Returns:
        For each key what `uniform` returns.

    Example:
        >>> import torch
        >>> ids = torch.tensor([7, 8])
        >>> _, second = uniforms([mix(0, 1), mix(0, 2)], ids, [3, 2])
        >>> torch.equal(second, uniform(mix(0, 2), ids, 2))
        True
    """
    import torch

    scaled = ids * _signed(_GAMMA)
    streams = _finalise(torch.stack([scaled + key for key in keys], dim=1))
    counters = torch.arange(1, max(counts) + 1, device=ids.device) * _signed(_GAMMA)
    pairs = zip(streams.split(1, dim=1), counts, strict=True)  # type: ignore[no-untyped-call]
    bits = _finalise(torch.cat([stream + counters[:count] for stream, count in pairs], dim=1))
    # 24 bits are what a float32 below 1 holds exactly: no draw can round up to 1.
    numbers = _shifted(bits, 40).to(torch.float32) * 2.0**-24
    return list(numbers.split(list(counts), dim=1))  # type: ignore[no-untyped-call]


def order(seed: int, epoch: int, size: int, shuffle: bool) -> Tensor:
    """Return the order in which an epoch goes through its samples.

    Args:
        seed: The seed of the dataset.
        epoch: The epoch, counted from 1.
        size: Number of samples, at least 0.
        shuffle: Whether the order is a permutation that changes with the epoch, or `0, 1, ..., size - 1`.

    Returns:
        int64 tensor of shape `(size,)` on the CPU. For one version of torch it is the same on every machine.

    Example:
        >>> order(seed=0, epoch=1, size=4, shuffle=False)
        tensor([0, 1, 2, 3])
        >>> order(seed=0, epoch=1, size=4, shuffle=True).sort().values
        tensor([0, 1, 2, 3])
    """
    import torch

    if not shuffle:
        return torch.arange(size)
    # Sorting the samples by their hash would do without a generator, and takes 25 times as long.
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))


def draw(seed: int, epoch: int, weights: Tensor) -> Tensor:
    """Draw as many samples as there are, with replacement, in proportion to their weights.

    Args:
        seed: The seed of the dataset.
        epoch: The epoch, counted from 1.
        weights: How often each sample is wanted, of shape `(size,)`: finite, at least 0, and one of them above. Only
            their ratios matter.

    Returns:
        int64 tensor of shape `(size,)` on the CPU. For one version of torch it is the same on every machine.

    Example:
        >>> import torch
        >>> draw(seed=0, epoch=1, weights=torch.tensor([0.0, 1.0, 0.0])).tolist()
        [1, 1, 1]
    """
    import torch

    generator = torch.Generator().manual_seed(mix(seed, epoch))
    points = torch.rand(len(weights), generator=generator, dtype=torch.float64)
    # Without the samples of weight 0, so that no rounding at an edge can hit one.
    rows = weights.cpu().nonzero().squeeze(1)
    edges = weights.cpu()[rows].to(torch.float64).cumsum(0)
    return rows[torch.searchsorted(edges[:-1], points * edges[-1], right=True)]


def _finalise(bits: Tensor) -> Tensor:
    for shift, multiplier in _ROUNDS:
        bits = (bits ^ _shifted(bits, shift)) * _signed(multiplier)
    return bits ^ _shifted(bits, _LAST_SHIFT)


def _shifted(bits: Tensor, shift: int) -> Tensor:
    """Shift right as if the tensor were unsigned: torch carries the sign along."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)


def _signed(unsigned: int) -> int:
    """Return the int64 with the bits of a 64-bit unsigned integer."""
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned
