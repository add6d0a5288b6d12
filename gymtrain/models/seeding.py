"""Randomness that comes from a seed and leaves that of the caller's program as it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """While this is entered, the global generators of torch, numpy and Python are those of a seed; then as before.

    Args:
        seed: From 0, below 2**63.
        device: Where torch computes, if not on the CPU alone.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     print(torch.equal(torch.rand(1), first))
        True
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    others = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        reseed(seed)
        try:
            yield
        finally:
            np.random.set_state(others[0])
            random.setstate(others[1])


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """While this is entered, torch uses deterministic algorithms alone, if that was asked for.

    On a GPU some operations then raise, because there is no such algorithm; torch says which
    (https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html).
    """
    if not asked:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def reseed(seed: int) -> None:
    """Set the global generators of torch (on every device), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return where the global generators stand, as plain values and tensors.

    Example:
        >>> here = random_state(torch.device("cpu"))
        >>> number = torch.rand(1)
        >>> set_random_state(here, torch.device("cpu"))
        >>> torch.equal(torch.rand(1), number)
        True
    """
    name, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [name, keys, *rest],
        "python": [version, np.array(words, dtype=np.uint64), gauss],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators where they stood."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
