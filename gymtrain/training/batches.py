"""Batches of rows that lie in memory, gathered by index; their order is a pure function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.randomness import order


class Batches:
    """The train part, a batch at a time.

    Args:
        inputs: Rows, float32 of shape (rows, …).
        targets: What the loss compares with, (rows,) or (rows, outputs).
        batch_size: Rows in a batch; the last one of an epoch may be smaller.
        device: Where the batches are wanted.
        seed: Decides the order.
        shuffle: Whether the order changes from epoch to epoch.
        augmentation: Random changes of the inputs; None for none.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool,
        augmentation: Augmentation | None = None,
    ) -> None:
        # On the device as a whole where it fits: a gather there costs less than a copy for each batch.
        home = device if _fits(inputs, device) else inputs.device
        self.inputs, self.targets = inputs.to(home), targets.to(home)
        self.batch_size, self.device, self.seed, self.shuffle = batch_size, device, seed, shuffle
        self.augmentation = augmentation

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return math.ceil(len(self.inputs) / self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of an epoch, counted from 1: inputs (rows, …) and targets."""
        rows = order(self.seed, number, len(self.inputs), self.shuffle).to(self.inputs.device)
        is_at_home = self.inputs.device == self.device
        for chosen in rows.split(self.batch_size):  # type: ignore[no-untyped-call]
            inputs = self.inputs.index_select(0, chosen)
            targets = self.targets.index_select(0, chosen)
            if not is_at_home:
                inputs, targets = inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
            if self.augmentation is not None:
                inputs = self.augmentation(inputs, number, chosen.to(self.device))
            yield inputs, targets


def _fits(inputs: torch.Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return inputs.element_size() * inputs.nelement() < free / 2
