"""The chain of augmentors: who is changed, and how, as a function of (seed, epoch, sample, place in the chain)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import groupby
from typing import TYPE_CHECKING

from gymtrain.data.augmentors.base import Augmentor, Change, Drawn, per_sample
from gymtrain.data.augmentors.mixing import Mixing
from gymtrain.data.randomness import mix, uniform, uniforms
from gymtrain.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# On a CPU, samples go through the whole chain in portions that about stay in the cache of a core.
PORTION_BYTES = 2**21


class Augmentation:
    """A chain of augmentors whose randomness is a pure function of (seed, epoch, sample, place in the chain).

    Neighbours that move pixels are composed into one resampling, neighbours that change colours into as few passes as
    the clipping between them allows. Who is changed, and by how much, does not depend on that.

    Args:
        augmentors: Applied in this order.
        seed: The seed of the dataset.
        pixel_range: The least and the greatest value that a pixel can have, `(black, white)`.

    Example:
        >>> import torch
        >>> from gymtrain.data.augmentors import Flip
        >>> augmentation = Augmentation([Flip(probability=1.0)], seed=0)
        >>> augmentation(torch.tensor([[[1.0, 2.0, 3.0]]]), epoch=1, ids=torch.tensor([0]))
        tensor([[[3., 2., 1.]]])
    """

    def __init__(
        self, augmentors: Sequence[Augmentor], seed: int, *, pixel_range: tuple[float, float] = (0.0, 255.0)
    ) -> None:
        self.augmentors = tuple(map(copy, augmentors))
        self.seed = seed
        for augmentor in self.augmentors:
            augmentor.pixel_range = pixel_range

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that one of the augmentors cannot work on, before training.

        Args:
            shape: The shape of one sample, without the batch.

        Raises:
            DataError: An augmentor cannot work on such samples, or stands behind one that mixes them; the message says
                which one and why.
        """
        for index, augmentor in enumerate(self.augmentors):
            if index and isinstance(self.augmentors[index - 1], Mixing) and not isinstance(augmentor, Mixing):
                raise DataError(
                    f"dataset.data_augmentors[{index}]: {type(augmentor).__name__} stands behind "
                    f"{type(self.augmentors[index - 1]).__name__}, which mixes finished images; list that last"
                )
            try:
                augmentor.check(shape)
            except DataError as error:
                raise DataError(f"dataset.data_augmentors[{index}]: {error}") from error

    def __call__(self, batch: Tensor, epoch: int, ids: Tensor) -> Tensor:
        """Augment a batch, but for mixing; what becomes of a sample does not depend on the batch that it is in.

        Args:
            batch: float32 tensor of shape `(B, H, W)` or `(B, H, W, C)`; it is not changed.
            epoch: The epoch, counted from 1.
            ids: int64 tensor of shape `(B,)`: the positions of the samples in their dataset.

        Returns:
            float32 tensor of the shape and on the device of `batch`; `batch` itself where there is nothing to do.
        """
        import torch

        ids = ids.to(batch.device, non_blocking=True)
        members = self._drawn(epoch, ids)
        if not members:
            return batch
        runs = groupby(members, key=lambda member: member.augmentor.family)
        plans = [family.plan(list(run), batch.shape[1:]) for family, run in runs]
        images = batch.clone(memory_format=torch.contiguous_format)
        if images.device.type != "cpu":
            return _changed(images, slice(None), plans).contiguous()
        size = max(PORTION_BYTES // max(images[:1].nbytes, 1), 1)
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            changed = _changed(images[rows], rows, plans)
            if changed.data_ptr() != images[rows].data_ptr():
                images[rows] = changed
        return images

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed, so that `mix` has to follow, and targets are shares."""
        return any(isinstance(augmentor, Mixing) for augmentor in self.augmentors)

    def mix(self, batch: Tensor, targets: Tensor, epoch: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mix samples of a batch with each other; what becomes of it depends on its samples and their order alone.

        Args:
            batch: What calling the chain returned.
            targets: What can be mixed, float of shape `(B,)` or `(B, outputs)`: numbers, or the share of each class.
            epoch: The epoch, counted from 1.
            ids: int64 tensor of shape `(B,)`: the positions of the samples in their dataset.

        Returns:
            Images and targets of the same shapes; what was given where nothing is mixed.

        Example:
            >>> import torch
            >>> from gymtrain.data.augmentors import MixUp
            >>> batch, targets = torch.eye(2)[:, None], torch.eye(2)
            >>> mixed, shares = Augmentation([MixUp()], seed=0).mix(batch, targets, epoch=1, ids=torch.tensor([0, 1]))
            >>> torch.allclose(mixed[:, 0], shares), shares.sum(dim=1)
            (True, tensor([1., 1.]))
        """
        import torch

        ids = ids.to(batch.device, non_blocking=True)
        for index, augmentor in enumerate(self.augmentors):
            if isinstance(augmentor, Mixing):
                draws = uniform(mix(self.seed, epoch, index), ids, 2 + augmentor.num_draws)
                # In the order of a draw, each is mixed with the next one: everyone is asked for once.
                order = draws[:, 1].argsort(stable=True)
                others = order.roll(1).index_select(0, order.argsort())
                chosen = draws[:, 0] < augmentor.probability
                mixed, kept = augmentor.mix(batch, batch.index_select(0, others), draws[:, 2:])
                batch = torch.where(per_sample(chosen, batch), mixed, batch)
                kept = per_sample(torch.where(chosen, kept, 1.0), targets).to(targets.dtype)
                targets = targets * kept + targets.index_select(0, others) * (1 - kept)
        return batch, targets

    def _drawn(self, epoch: int, ids: Tensor) -> list[Drawn]:
        """Draw for all augmentors but those that mix."""
        places = [place for place, augmentor in enumerate(self.augmentors) if not isinstance(augmentor, Mixing)]
        if not places:
            return []
        augmentors = [self.augmentors[place] for place in places]
        keys = [mix(self.seed, epoch, place) for place in places]
        draws = uniforms(keys, ids, [1 + augmentor.num_draws for augmentor in augmentors])
        return [
            Drawn(augmentor, each[:, 0] < augmentor.probability, each[:, 1:])
            for augmentor, each in zip(augmentors, draws, strict=True)
        ]


def _changed(images: Tensor, rows: slice, plans: Sequence[Change]) -> Tensor:
    for plan in plans:
        images = plan(images, rows)
    return images
