"""Which rows go to which part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.errors import DataError
from gymtrain.specs import Samples

Rows = npt.NDArray[np.int64]
PARTS = ("train", "val", "test")


def split(
    samples: Samples,
    size: int,
    *,
    seed: int,
    shuffle: bool,
    validation_split: float = 0.0,
    classes: npt.NDArray[Any] | None = None,
    groups: npt.NDArray[Any] | None = None,
) -> dict[str, Rows]:
    """Deal the rows out to train, val and test.

    Args:
        samples: How many rows go where.
        size: The number of rows.
        seed: Decides the shuffling.
        shuffle: Off, the first rows are for training and the last for testing.
        validation_split: The fraction of the train part that becomes the val part.
        classes: For each row its class, where every part is to hold the classes in equal proportions.
        groups: For each row its group, where the rows of a group are to stay together.

    Returns:
        Positions of rows for each part, int64; each row in one part at most. `val` and `test` may be empty.

    Raises:
        DataError: More rows are asked for than there are, or a part that was asked for would be empty.

    Example:
        >>> parts = split(Samples(train=0.5, test=0.5), 4, seed=0, shuffle=False)
        >>> parts["train"].tolist(), parts["test"].tolist()
        ([0, 1], [2, 3])
    """
    if size == 0:
        raise DataError("the dataset has no rows")
    counts = part_sizes(samples, size)
    generator = np.random.default_rng([seed, 0x5B117])
    parts = _dealt(counts, np.arange(size), generator, shuffle, classes, groups)
    for name, share in {"train": samples.train, "val": samples.val, "test": samples.test}.items():
        if len(parts[name]) == 0 and (share or counts[name] or name == "train"):
            asked = "what is left" if share is None else repr(share)
            raise DataError(
                f"dataset.samples.{name}: {asked} of {size} rows leaves the {name} part empty; give it more rows"
                f"{', or smaller groups' if groups is not None else ''}"
            )
    if validation_split:
        parts |= _held_out(parts["train"], validation_split, generator, shuffle, classes, groups)
    return parts


def _held_out(
    train: Rows,
    fraction: float,
    generator: np.random.Generator,
    shuffle: bool,
    classes: npt.NDArray[Any] | None,
    groups: npt.NDArray[Any] | None,
) -> dict[str, Rows]:
    held = round(fraction * len(train))
    counts = {"train": len(train) - held, "val": held, "test": 0}
    parts = _dealt(counts, train, generator, shuffle, classes, groups)
    empty = [name for name in ("train", "val") if len(parts[name]) == 0]
    if empty:
        raise DataError(
            f"model.training.validation_split: {fraction!r} of the {len(train)} rows of the train part leaves the "
            f"{empty[0]} part empty; give it more rows"
        )
    return {"train": parts["train"], "val": parts["val"]}


def _dealt(
    counts: dict[str, int],
    rows: Rows,
    generator: np.random.Generator,
    shuffle: bool,
    classes: npt.NDArray[Any] | None,
    groups: npt.NDArray[Any] | None,
) -> dict[str, Rows]:
    """Deal some of the rows out, by group or by class where these are given."""
    if groups is not None:
        parts = _by_group(counts, groups[rows], generator if shuffle else None)
    elif classes is not None:
        parts = _stratified(counts, classes[rows], generator, shuffle)
    else:
        parts = _cut(counts, generator.permutation(len(rows)) if shuffle else np.arange(len(rows)))
    return {name: rows[positions].astype(np.int64) for name, positions in parts.items()}


def part_sizes(samples: Samples, size: int) -> dict[str, int]:
    """Return the number of rows of each part.

    Raises:
        DataError: The parts ask for more rows than there are.
    """
    shares = {"train": samples.train, "val": samples.val, "test": samples.test}
    counts = {
        name: round(share * size) if isinstance(share, float) else share
        for name, share in shares.items()
        if share is not None
    }
    rest = size - sum(counts.values())
    if rest < 0 and "train" in counts and all(isinstance(share, float | None) for share in shares.values()):
        # Fractions that sum to 1 can round to a row too many.
        counts["train"] += rest
        rest = 0
    if rest < 0:
        asked = " + ".join(f"{name} ({shares[name]!r})" for name in counts if counts[name])
        raise DataError(
            f"dataset.samples: {asked} is {sum(counts.values())} rows, and the dataset has {size}; ask for fewer"
        )
    return {name: counts.get(name, rest if shares[name] is None else 0) for name in PARTS}


def _cut(counts: dict[str, int], order: npt.NDArray[np.int64]) -> dict[str, Rows]:
    """Cut an order into train, val, test: from the front, but the test part from the back."""
    train, val, test = (counts[name] for name in PARTS)
    return {"train": order[:train], "val": order[train : train + val], "test": order[len(order) - test :]}


def _stratified(
    counts: dict[str, int], classes: npt.NDArray[Any], generator: np.random.Generator, shuffle: bool
) -> dict[str, Rows]:
    """Deal each class out in the proportions of the parts, so that the sizes come out right."""
    labels, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    parts_left = sum(count > 0 for count in counts.values())
    if sizes.min() < parts_left:
        rarest = labels[sizes.argmin()].item()
        raise DataError(
            f"dataset.samples.stratify: the class {rarest!r} has {sizes.min()} rows, too few to be in each of "
            f"{parts_left} parts; give it more rows or turn stratify off"
        )
    order = generator.permutation(len(codes)) if shuffle else np.arange(len(codes))
    remaining = [order[codes[order] == code] for code in range(len(sizes))]
    parts: dict[str, Rows] = {}
    for name in PARTS:
        parts_left -= counts[name] > 0
        takes = _proportional(counts[name], [len(rows) for rows in remaining], reserve=parts_left)
        rows = np.concatenate([rows[:take] for rows, take in zip(remaining, takes, strict=True)])
        remaining = [rows[take:] for rows, take in zip(remaining, takes, strict=True)]
        parts[name] = rows[generator.permutation(len(rows))] if shuffle else np.sort(rows)
    return parts


def _proportional(count: int, sizes: list[int], reserve: int) -> list[int]:
    """Share `count` out in proportion to `sizes`, exactly.

    Where `count` allows, each gets at least one, and each keeps `reserve` for later.
    """
    exact = [count * size / max(sum(sizes), 1) for size in sizes]
    least = 1 if count >= len(sizes) else 0
    shares = [
        min(max(math.floor(each), least), max(size - reserve, min(least, size)))
        for each, size in zip(exact, sizes, strict=True)
    ]
    while sum(shares) > count:
        shares[max(range(len(sizes)), key=lambda index: (shares[index] > least, shares[index] - exact[index]))] -= 1
    while sum(shares) < count:
        room = [size - share for size, share in zip(sizes, shares, strict=True)]
        open_ones = [index for index in range(len(sizes)) if room[index] > reserve] or np.flatnonzero(room).tolist()
        shares[max(open_ones, key=lambda index: exact[index] - shares[index])] += 1
    return shares


def _by_group(
    counts: dict[str, int], groups: npt.NDArray[Any], generator: np.random.Generator | None
) -> dict[str, Rows]:
    """Deal whole groups out, in a random order, until each part has its rows."""
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first) if generator is None else generator.permutation(len(first))
    part_of = np.full(len(first), -1)
    wanted = [counts[name] for name in PARTS]
    sizes = np.bincount(codes)
    part, filled = 0, 0
    for code in order:
        while part < 3 and filled >= wanted[part]:
            part, filled = part + 1, 0
        if part == 3:
            break
        part_of[code] = part
        filled += sizes[code]
    return {name: np.flatnonzero(part_of[codes] == index) for index, name in enumerate(PARTS)}
