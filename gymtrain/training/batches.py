"""Batches of rows that lie in memory or in a mapped file, gathered by index.

Which rows come when is a pure function of the position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.batch import Batch
from gymtrain.data.decoding import ImageArray
from gymtrain.errors import DataError
from gymtrain.training.workers import Key, Workers

# What is gathered at once: small enough to stay in the cache of a core, large enough that a small batch is only a view.
BLOCK_BYTES = 2**20


class Batches:
    """The train part, a batch at a time, pass after pass.

    Args:
        inputs: Rows, float32 of shape (rows, …); or pixels, uint8 of shape (rows, height, width, …).
        targets: What the loss compares with, (rows,) or (rows, outputs).
        order: Which rows a pass goes through, by its number from 1: int64 of shape (rows,).
        batch_size: Rows in a batch; the last one of a pass may be smaller.
        device: Where the batches are wanted.
        weights: How much each row counts, float32 of shape (rows,); None for all alike.
        augmentation: Random changes of the inputs; None for none.
        finish: What is done to a batch in the end, on the device; of pixels it makes what the model takes. None for
            nothing.
        workers: Processes that make the batches; 0 to make them here. The batches are the same.
        worker_timeout: Seconds after which a batch that does not come from them is an error.

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
        inputs: torch.Tensor | ImageArray,
        targets: torch.Tensor,
        order: Callable[[int], torch.Tensor],
        *,
        batch_size: int,
        device: torch.device,
        weights: torch.Tensor | None = None,
        augmentation: Augmentation | None = None,
        finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
        workers: int = 0,
        worker_timeout: float = 300.0,
    ) -> None:
        # On the device as a whole where it fits: a gather there costs less than a copy for each batch.
        if device.type == "cuda" and workers == 0 and _fits(inputs, device):
            inputs, targets = _on(device, inputs), targets.to(device)
            weights = None if weights is None else weights.to(device)
        self._rows = _Rows(inputs, targets, weights)
        self._finish = finish
        self.order, self.batch_size, self.device, self.augmentation = order, batch_size, device, augmentation
        self.seconds = 0.0
        """How long training has waited for rows to be gathered and changed; on a GPU, the asking for it."""
        batch_bytes = batch_size * inputs.nbytes // max(len(inputs), 1)
        self._per_block = min(max(BLOCK_BYTES // max(batch_bytes, 1), 1), 64)
        if isinstance(inputs, ImageArray) and inputs.is_decoded_anew:
            self._per_block = 1  # as workers do it: what stands in for a bad image is of its own batch
        self._workers = None
        if workers:
            make = partial(_made, self._rows, augmentation)
            self._workers = Workers(make, workers, worker_timeout, pin=device.type == "cuda")

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def num_rows(self) -> int:
        """The number of rows in a pass."""
        return len(self._rows.inputs)

    def first(self, rows: int) -> Batch:
        """Return the first rows, in the order of the dataset and not augmented."""
        positions = torch.arange(min(rows, self.num_rows), device=self._rows.targets.device)
        return self._finished(*(each.to(self.device) for each in self._rows.take(positions)))

    def stream(self, first: int) -> Iterator[Batch]:
        """Yield batches for ever, from the one with this number on, counted from 0 through all passes."""
        if self._workers is not None:
            yield from self._handed_over(self._workers.stream(self._keys(first)))
        else:
            for number, rows, skipped in self._passes(first):
                yield from self._pass(number, rows, skipped)

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._workers is not None:
            self._workers.close()

    def _passes(self, first: int) -> Iterator[tuple[int, torch.Tensor, int]]:
        """Yield for each pass its number, its rows, and how many of its batches are skipped."""
        passed, skipped = divmod(first, len(self))
        for number in count(passed + 1):
            yield number, self.order(number), skipped
            skipped = 0

    def _keys(self, first: int) -> Iterator[Key]:
        for number, rows, skipped in self._passes(first):
            for batch in rows.split(self.batch_size)[skipped:]:  # type: ignore[no-untyped-call]
                yield number, batch.numpy()

    def _handed_over(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            began = perf_counter()
            batch = next(batches)
            moved = self._finished(*(each.to(self.device, non_blocking=True) for each in batch if each is not None))
            self.seconds += perf_counter() - began
            yield moved

    def _pass(self, number: int, rows: torch.Tensor, skipped: int) -> Iterator[Batch]:
        rows = rows.to(self._rows.targets.device)
        # Blocks begin at the same rows whatever is skipped, so that a resumed training finds every batch at the same
        # alignment, and computes the same bits.
        for start in range(skipped - skipped % self._per_block, len(self), self._per_block):
            block = self._gather(rows[start * self.batch_size : (start + self._per_block) * self.batch_size])
            for parts in islice(block, max(skipped - start, 0), None):
                yield self._batch(number, *parts)

    def _gather(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Gather the rows of several batches at once; the batches are views of them."""
        began = perf_counter()
        gathered = self._rows.take(rows)
        parts = [
            tensor.to(self.device, non_blocking=True).split(self.batch_size)  # type: ignore[no-untyped-call]
            for tensor in (rows, *gathered)
        ]
        self.seconds += perf_counter() - began
        return zip(*parts, strict=True)

    def _batch(self, number: int, rows: torch.Tensor, *parts: torch.Tensor) -> Batch:
        inputs, *others = parts
        if self.augmentation is None and self._finish is None:
            return Batch(inputs, *others)
        began = perf_counter()
        if self.augmentation is not None:
            inputs, *others = _augmented(self.augmentation, number, rows, inputs, *others)
        batch = self._finished(inputs, *others)
        self.seconds += perf_counter() - began
        return batch

    def _finished(self, inputs: torch.Tensor, *others: torch.Tensor) -> Batch:
        return Batch(inputs if self._finish is None else self._finish(inputs), *others)


class _Rows(NamedTuple):
    """All rows of the train part."""

    inputs: torch.Tensor | ImageArray
    targets: torch.Tensor
    weights: torch.Tensor | None

    def take(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Gather some rows: their inputs, their targets and, where there are any, their weights."""
        if isinstance(self.inputs, ImageArray):
            pixels, chosen = self.inputs.gathered(rows.numpy())
            inputs, rows = torch.from_numpy(pixels), torch.from_numpy(chosen)
        else:
            inputs = self.inputs.index_select(0, rows)
        others = [self.targets] if self.weights is None else [self.targets, self.weights]
        return [inputs, *(each.index_select(0, rows) for each in others)]


def _made(everything: _Rows, augmentation: Augmentation | None, number: int, rows: npt.NDArray[np.int64]) -> Batch:
    """Make a batch, in a worker."""
    if isinstance(everything.inputs, ImageArray):
        everything.inputs.decode_alone()
    chosen = torch.from_numpy(rows)
    parts = everything.take(chosen)
    return Batch(*(parts if augmentation is None else _augmented(augmentation, number, chosen, *parts)))


def _augmented(
    augmentation: Augmentation,
    number: int,
    rows: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *weights: torch.Tensor,
) -> list[torch.Tensor]:
    """Change the inputs of a batch; where samples are mixed, their targets too.

    Raises:
        DataError: An augmentor fails.
    """
    inputs = _changed(augmentation, inputs, number, rows)
    if augmentation.mixes:
        try:
            inputs, targets = augmentation.mix(inputs, targets, number, rows)
        except Exception as error:
            raise _failure(number, f"{len(rows)} rows together", error) from error
    return [inputs, targets, *weights]


def _changed(augmentation: Augmentation, inputs: torch.Tensor, number: int, rows: torch.Tensor) -> torch.Tensor:
    """Change the inputs of a batch.

    Raises:
        DataError: An augmentor fails; with the row that it fails on.
    """
    inputs = inputs.float() if inputs.dtype == torch.uint8 else inputs
    try:
        return augmentation(inputs, number, rows)
    except Exception as error:
        place = f"{len(rows)} rows together"
        for position, row in enumerate(rows.tolist()):
            try:  # which does the same to a row alone
                augmentation(inputs[position : position + 1], number, rows[position : position + 1])
            except Exception:
                place = f"row {row} of the train part"
                break
        raise _failure(number, place, error) from error


def _failure(number: int, place: str, error: Exception) -> DataError:
    return DataError(f"dataset.data_augmentors, epoch {number}, {place}: {type(error).__name__}: {error}")


def _fits(inputs: torch.Tensor | ImageArray, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return inputs.nbytes < free / 2 and not (isinstance(inputs, ImageArray) and inputs.is_decoded_anew)


def _on(device: torch.device, inputs: torch.Tensor | ImageArray) -> torch.Tensor:
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    pixels = torch.empty(inputs.shape, dtype=torch.uint8, device=device)
    start = 0
    for block in inputs.blocks():
        pixels[start : start + len(block)] = torch.from_numpy(block).to(device)
        start += len(block)
    return pixels
