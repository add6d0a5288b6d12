"""Randomness that comes from a seed and leaves that of the caller's program as it was."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

# The generators are those of the whole process: trainings in several threads take turns.
_generators = threading.RLock()


def _begin_in_forked_child() -> None:
    """A forked child has none of the threads that torch computes with, and would wait for them, or for the lock."""
    global _generators
    _generators = threading.RLock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_forked_child)


@contextmanager
def seeded(seed: int, device: torch.device | None = None, *, alone: bool = True) -> Iterator[None]:
    """While this is entered, the global generators of torch, numpy and Python are those of a seed; then as before.

    Args:
        seed: From 0, below 2**63.
        device: Where torch computes, if not on the CPU alone.
        alone: Whether to wait until no other thread is within such a block. Who does not wait shares the generators
            with a training that is going on.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     print(torch.equal(torch.rand(1), first))
        True
    """
    with _generators if alone else nullcontext():
        yield from _seeded(seed, device)


def _seeded(seed: int, device: torch.device | None) -> Iterator[None]:
    devices = [device] if device is not None and device.type == "cuda" else []
    others = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        _reseed_others(seed)
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
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def reseed(seed: int, device: torch.device) -> None:
    """Set the global generators of torch on the CPU and on a device, of numpy and of Python.

    `torch.manual_seed` takes 400 µs, most of it to write down the stack of the program for devices that are not in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    _reseed_others(seed)


def _reseed_others(seed: int) -> None:
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
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "numpy": [name, keys, *rest],
        "python": [version, np.array(words, dtype=np.uint64), gauss],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators where they stood."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and state["mps"] is not None:
        torch.mps.set_rng_state(state["mps"])
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
