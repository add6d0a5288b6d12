"""Batches of rows that lie in memory, gathered by index; which rows come when is a pure function of the position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter

import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.batch import Batch

# What is gathered at once: small enough to stay in the cache of a core, large enough that a small batch is only a view.
BLOCK_BYTES = 2**20


class Batches:
    """The train part, a batch at a time, pass after pass.

    Args:
        inputs: Rows, float32 of shape (rows, …).
        targets: What the loss compares with, (rows,) or (rows, outputs).
        order: Which rows a pass goes through, by its number from 1: int64 of shape (rows,).
        batch_size: Rows in a batch; the last one of a pass may be smaller.
        device: Where the batches are wanted.
        weights: How much each row counts, float32 of shape (rows,); None for all alike.
        augmentation: Random changes of the inputs; None for none.

    Example:
        >>> from functools import partial
        >>> from gymtrain.data.randomness import order
        >>> rows = torch.arange(5.0)[:, None]
        >>> in_order = partial(order, 0, size=5, shuffle=False)
        >>> batches = Batches(rows, rows, in_order, batch_size=2, device=torch.device("cpu"))
        >>> [batch.inputs.flatten().tolist() for batch in islice(batches.stream(1), 3)]
        [[2.0, 3.0], [4.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        order: Callable[[int], torch.Tensor],
        *,
        batch_size: int,
        device: torch.device,
        weights: torch.Tensor | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        # On the device as a whole where it fits: a gather there costs less than a copy for each batch.
        home = device if _fits(inputs, device) else inputs.device
        self.tensors = Batch(inputs.to(home), targets.to(home), None if weights is None else weights.to(home))
        """All rows."""
        self.order, self.batch_size, self.device, self.augmentation = order, batch_size, device, augmentation
        self.seconds = 0.0
        """How long the gathering and changing of rows has taken; on a GPU, the asking for it."""
        batch_bytes = batch_size * inputs[:1].nbytes
        self._per_block = min(max(BLOCK_BYTES // max(batch_bytes, 1), 1), 64)

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return math.ceil(len(self.tensors.inputs) / self.batch_size)

    def first(self, rows: int) -> Batch:
        """Return the first rows, in the order of the dataset and as they are."""
        return Batch(*(tensor[:rows].to(self.device) for tensor in self.tensors if tensor is not None))

    def stream(self, first: int) -> Iterator[Batch]:
        """Yield batches for ever, from the one with this number on, counted from 0 through all passes."""
        passes, skipped = divmod(first, len(self))
        while True:
            passes += 1
            yield from self._pass(passes, skipped)
            skipped = 0

    def _pass(self, number: int, skipped: int) -> Iterator[Batch]:
        rows = self.order(number).to(self.tensors.inputs.device)
        # Blocks begin at the same rows whatever is skipped, so that a resumed training finds every batch at the same
        # alignment, and computes the same bits.
        for start in range(skipped - skipped % self._per_block, len(self), self._per_block):
            block = self._gather(rows[start * self.batch_size : (start + self._per_block) * self.batch_size])
            for parts in islice(block, max(skipped - start, 0), None):
                yield self._batch(number, *parts)

    def _gather(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Gather the rows of several batches at once; the batches are views of them."""
        began = perf_counter()
        gathered = [tensor.index_select(0, rows) for tensor in self.tensors if tensor is not None]
        parts = [
            tensor.to(self.device, non_blocking=True).split(self.batch_size)  # type: ignore[no-untyped-call]
            for tensor in (rows, *gathered)
        ]
        self.seconds += perf_counter() - began
        return zip(*parts, strict=True)

    def _batch(self, number: int, rows: torch.Tensor, inputs: torch.Tensor, *others: torch.Tensor) -> Batch:
        if self.augmentation is None:
            return Batch(inputs, *others)
        began = perf_counter()
        inputs = self.augmentation(inputs, number, rows)
        self.seconds += perf_counter() - began
        return Batch(inputs, *others)


def _fits(inputs: torch.Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return inputs.nbytes < free / 2
