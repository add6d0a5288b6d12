"""What makes the bits of a row the same whatever is computed beside it, and by how many threads, on the CPU.

What torch calls adds up in another order for a few rows than for many, and for one number of threads than for another.
So rows come in multiples of what was found to be computed alike, each piece of them is computed by one thread, and
matrices are multiplied whose rows all begin at multiples of 16 bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gymtrain.data.padding import ROWS_ALIKE
from gymtrain.models.contract import Array
from gymtrain.models.networks import is_ours

# Of layers that multiply matrices and take the larger of two values alone, fewer rows are computed alike: nothing in
# them depends on what fills the registers of the processor.
_FEW_ALIKE = 8
_FOR_FEW = {
    nn.Sequential,
    nn.Flatten,
    nn.Identity,
    nn.Linear,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Dropout,
}
# A piece with fewer rows is not worth another thread.
_ROWS_OF_A_PIECE = 256


def has_ready_layers(module: nn.Module) -> bool:
    """Tell whether a module consists of layers of torch and of ours alone, which several threads may run at once."""
    return all(
        is_ours(type(layer)) or type(layer).__module__.startswith("torch.nn.modules.") for layer in module.modules()
    )


def rows_alike(module: nn.Module, dtype: torch.dtype) -> int:
    """Return of what the number of rows has to be a multiple for each to get the same bits."""
    few = dtype == torch.float32 and all(map(_is_for_few, module.modules()))
    return _FEW_ALIKE if few else ROWS_ALIKE


def _is_for_few(layer: nn.Module) -> bool:
    # A convolution of 1 x 1 is one product of a matrix that has a row for each pixel of all images.
    is_product = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    return (is_ours(type(layer)) or type(layer) in _FOR_FEW) and not is_product


# Libraries add up what lies before the first multiple of so many bytes by itself.
_ALIGNMENT_BYTES = 16


def has_uneven_rows(module: nn.Module, dtype: torch.dtype) -> bool:
    """Tell whether a module multiplies matrices whose rows begin at any place, and needs `AlignedRows` to be exact."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return any(layer.in_features * dtype.itemsize % _ALIGNMENT_BYTES for layer in layers)


class AlignedRows(TorchFunctionMode):
    """While this is entered, linear layers get zeros behind each row, up to the next multiple of 16 bytes.

    Example:
        >>> module = nn.Linear(9, 3)
        >>> rows = torch.randn(8, 9)
        >>> with torch.inference_mode(), AlignedRows():
        ...     print(torch.equal(module(rows).flip(0), module(rows.flip(0))))
        True
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        if function is not nn.functional.linear or kwargs:
            return function(*args, **(kwargs or {}))
        rows, weight, *bias = args
        missing = -rows.shape[-1] % (_ALIGNMENT_BYTES // rows.element_size())
        return function(nn.functional.pad(rows, (0, missing)), nn.functional.pad(weight, (0, missing)), *bias)


def in_pieces(scores_of: Callable[[Array], Array], X: Array) -> Array:
    """Compute rows with each piece of them in a single thread, several pieces at once.

    Args:
        scores_of: What is computed, for any rows of `X`, without regard to the others.
        X: At least one row, shape (rows, …).
    """
    if torch.get_num_threads() == 1 and not _OneThread.is_new_here():
        return scores_of(X)
    with _OneThread() as threads:
        pieces = min(threads, len(X) // _ROWS_OF_A_PIECE)
        if pieces < 2:
            return scores_of(X)
        size = -(-len(X) // (pieces * ROWS_ALIKE)) * ROWS_ALIKE
        workers = _workers(os.getpid(), threads)
        others = [workers.submit(_alone, scores_of, X[start : start + size]) for start in range(size, len(X), size)]
        return np.concatenate([scores_of(X[:size]), *(other.result() for other in others)])


@cache
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads of this very process: those of a parent do not live on in a fork."""
    return ThreadPoolExecutor(threads - 1, "gymtrain-predict")


def _alone(scores_of: Callable[[Array], Array], X: Array) -> Array:
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    return scores_of(X)


class _OneThread:
    """While this is entered, torch computes what this thread asks for in this thread alone.

    The number of threads belongs to the thread that sets it, and to threads that use torch for the first time; such a
    one must not take over for good what another thread has set for a moment.
    """

    _before: dict[int, int] = {}
    _known = threading.local()

    @classmethod
    def is_new_here(cls) -> bool:
        """Tell whether this thread has never entered it."""
        return not hasattr(cls._known, "here")

    def __enter__(self) -> int:
        others = list(self._before.values())
        self._threads = torch.get_num_threads()
        if self.is_new_here():
            self._known.here = True
            self._threads = max(self._threads, *others, *list(self._before.values()), 1)
        if self._threads > 1:
            self._before[threading.get_ident()] = self._threads
            torch.set_num_threads(1)
        return self._threads

    def __exit__(self, *exception: object) -> None:
        if self._threads > 1:
            torch.set_num_threads(self._threads)
            del self._before[threading.get_ident()]

    @classmethod
    def forget(cls) -> None:
        """Drop what threads of the parent had set."""
        cls._before.clear()


@cache
def survive_forks() -> None:
    """Let what is forked from now on compute in one thread: it would wait forever for the threads of its parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_be_alone)


def _be_alone() -> None:
    _OneThread.forget()
    torch.set_num_threads(1)
