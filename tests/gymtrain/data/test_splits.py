from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gymtrain.data.splits import PARTS, part_sizes, split
from gymtrain.errors import DataError
from gymtrain.specs import Samples

seeds = st.integers(0, 2**63 - 1)
quick = settings(deadline=None, max_examples=100)


def sizes(parts: dict[str, Any]) -> dict[str, int]:
    return {name: len(parts[name]) for name in PARTS}


@st.composite
def shares(draw: st.DrawFn, size: int) -> Samples:
    """Parts that fit: counts, fractions or what is left."""
    train = draw(st.integers(1, size))
    val = draw(st.integers(0, size - train))
    test = draw(st.integers(0, size - train - val))
    form = draw(st.sampled_from(["counts", "fractions", "mixed", "rest"]))
    if form == "counts":
        return Samples(train=train, val=val, test=test)
    if form == "fractions":
        return Samples(train=train / size, val=val / size, test=test / size)
    if form == "mixed":
        return Samples(train=train, val=val / size, test=test)
    return Samples(train=train / size, val=val, test=None)


@st.composite
def cases(draw: st.DrawFn, largest: int = 200) -> tuple[int, Samples]:
    size = draw(st.integers(1, largest))
    return size, draw(shares(size))


@quick
@given(case=cases(), seed=seeds, shuffle=st.booleans())
def test_every_row_goes_to_one_part_at_most_and_sizes_are_exact(
    case: tuple[int, Samples], seed: int, shuffle: bool
) -> None:
    size, samples = case
    parts = split(samples, size, seed=seed, shuffle=shuffle)
    rows = np.concatenate([parts[name] for name in PARTS])

    assert len(np.unique(rows)) == len(rows)
    assert set(rows.tolist()) <= set(range(size))
    assert sizes(parts) == part_sizes(samples, size)
    assert all(parts[name].dtype == np.int64 for name in PARTS)
    for name in PARTS:
        share = getattr(samples, name)
        if isinstance(share, int):
            assert len(parts[name]) == share
        elif isinstance(share, float):
            assert abs(len(parts[name]) - share * size) <= 1


@quick
@given(case=cases(), seed=seeds)
def test_the_seed_decides_the_split(case: tuple[int, Samples], seed: int) -> None:
    size, samples = case
    once, again = (split(samples, size, seed=seed, shuffle=True) for _ in range(2))

    assert all(np.array_equal(once[name], again[name]) for name in PARTS)


def test_another_seed_gives_another_split() -> None:
    splits = [split(Samples(train=50, test=50), 100, seed=seed, shuffle=True)["test"].tolist() for seed in range(10)]

    assert len(set(map(tuple, splits))) == 10


@quick
@given(case=cases(), seed=seeds)
def test_without_shuffling_the_order_is_kept_from_train_to_test(case: tuple[int, Samples], seed: int) -> None:
    size, samples = case
    parts = split(samples, size, seed=seed, shuffle=False)
    rows = np.concatenate([parts[name] for name in PARTS])

    assert (np.diff(rows) > 0).all()
    assert rows[0] == 0
    assert len(parts["test"]) == 0 or rows[-1] == size - 1


@pytest.mark.parametrize(
    ("samples", "size", "expected"),
    [
        ({}, 150, (120, 0, 30)),
        ({"train": 0.8, "test": 0.2}, 150, (120, 0, 30)),
        ({"test": 0.2}, 150, (120, 0, 30)),
        ({"test": 30}, 150, (120, 0, 30)),
        ({"train": 100}, 150, (100, 0, 50)),
        ({"train": 100, "test": 20}, 150, (100, 0, 20)),
        ({"train": 0.5, "val": 0.25, "test": 0.25}, 7, (3, 2, 2)),
        ({"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}, 8, (2, 3, 3)),
        ({"train": 0.7, "val": None, "test": 0.1}, 10, (7, 2, 1)),
        ({"train": 1.0}, 10, (10, 0, 0)),
        ({"train": 10, "test": 0}, 10, (10, 0, 0)),
        ({"train": 0.5, "test": 0.5}, 3, (1, 0, 2)),
        ({"val": 0.1}, 10, (8, 1, 1)),
    ],
)
def test_parts_have_the_sizes_that_were_asked_for(
    samples: dict[str, Any], size: int, expected: tuple[int, int, int]
) -> None:
    assert tuple(sizes(split(Samples(**samples), size, seed=0, shuffle=True)).values()) == expected


@pytest.mark.parametrize(
    ("samples", "size", "message"),
    [
        ({}, 0, "^the dataset has no rows$"),
        ({"train": 200}, 150, r"^dataset\.samples: train \(200\) is 200 rows, and the dataset has 150; ask for fewer$"),
        (
            {"train": 100, "val": 0.2, "test": 50},
            150,
            r"^dataset\.samples: train \(100\) \+ val \(0\.2\) \+ test \(50\) is 180 rows, and the dataset has 150",
        ),
        (
            {"train": 0.01},
            10,
            r"^dataset\.samples\.train: 0\.01 of 10 rows leaves the train part empty; give it more ro",
        ),
        ({"test": 10}, 10, r"^dataset\.samples\.train: what is left of 10 rows leaves the train part empty"),
        ({"train": 0.9, "test": 0.01}, 10, r"^dataset\.samples\.test: 0\.01 of 10 rows leaves the test part empty"),
        ({"train": 0.9, "val": 0.001}, 10, r"^dataset\.samples\.val: 0\.001 of 10 rows leaves the val part empty"),
    ],
)
def test_parts_that_do_not_fit_are_refused(samples: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(Samples(**samples), size, seed=0, shuffle=True)


@quick
@given(data=st.data(), seed=seeds, shuffle=st.booleans())
def test_stratified_parts_hold_the_classes_in_proportion(data: st.DataObject, seed: int, shuffle: bool) -> None:
    counts = data.draw(st.lists(st.integers(4, 60), min_size=1, max_size=5))
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    samples = data.draw(shares(len(classes)))
    parts = split(samples, len(classes), seed=seed, shuffle=shuffle, classes=classes)
    rows = np.concatenate([parts[name] for name in PARTS])

    assert sizes(parts) == part_sizes(samples, len(classes))
    assert len(np.unique(rows)) == len(rows)
    in_train = np.bincount(classes[parts["train"]], minlength=len(counts))
    exact = len(parts["train"]) * np.array(counts) / len(classes)
    assert (np.abs(in_train - exact) < 2.0 + len(counts)).all()
    if len(parts["train"]) >= len(counts):
        assert (in_train > 0).all()
    if not shuffle:
        assert all((np.diff(parts[name]) > 0).all() for name in PARTS)


def test_a_rare_class_is_in_every_part_that_has_room_for_it() -> None:
    classes = np.array([0] * 97 + [1] * 3)
    for seed in range(20):
        parts = split(Samples(train=0.8, val=0.1, test=0.1), 100, seed=seed, shuffle=True, classes=classes)

        assert [np.bincount(classes[parts[name]]).tolist() for name in PARTS] == [[79, 1], [9, 1], [9, 1]]


def test_proportions_are_as_exact_as_whole_rows_allow() -> None:
    classes = np.repeat(["a", "b", "c"], [50, 30, 20])
    parts = split(Samples(train=0.6, val=0.2, test=0.2), 100, seed=0, shuffle=True, classes=classes)

    for name, expected in {"train": [30, 18, 12], "val": [10, 6, 4], "test": [10, 6, 4]}.items():
        assert np.unique(classes[parts[name]], return_counts=True)[1].tolist() == expected


def test_a_class_with_too_few_rows_for_every_part_is_named() -> None:
    classes = np.array(["setosa"] * 10 + ["virginica"])

    with pytest.raises(
        DataError,
        match=r"^dataset\.samples\.stratify: the class 'virginica' has 1 rows, too few to be in each of 2 parts",
    ):
        split(Samples(stratify=True), 11, seed=0, shuffle=True, classes=classes)


@quick
@given(data=st.data(), seed=seeds, shuffle=st.booleans(), validation=st.sampled_from([0.0, 0.3]))
def test_a_group_is_never_split(data: st.DataObject, seed: int, shuffle: bool, validation: float) -> None:
    groups = np.array(data.draw(st.lists(st.sampled_from("abcdefghij"), min_size=5, max_size=80)))
    try:
        parts = split(
            Samples(train=0.5, test=0.3),
            len(groups),
            seed=seed,
            shuffle=shuffle,
            groups=groups,
            validation_split=validation,
        )
    except DataError:
        # A few large groups leave nothing for the later parts, which is said.
        assume(False)
    members = [set(groups[parts[name]]) for name in PARTS]

    assert members[0] & members[1] == members[0] & members[2] == members[1] & members[2] == set()
    for name, group in zip(PARTS, members, strict=True):
        # All of a group's rows are there, not some of them.
        assert len(parts[name]) == np.isin(groups, list(group)).sum()


def test_groups_too_large_for_the_parts_are_refused() -> None:
    with pytest.raises(DataError, match=r"leaves the test part empty; give it more rows, or smaller groups$"):
        split(Samples(), 10, seed=0, shuffle=True, groups=np.array(["a"] * 10))


@quick
@given(size=st.integers(10, 200), fraction=st.floats(0.1, 0.8), seed=seeds, shuffle=st.booleans())
def test_a_validation_split_is_taken_from_the_train_part_alone(
    size: int, fraction: float, seed: int, shuffle: bool
) -> None:
    whole = split(Samples(), size, seed=seed, shuffle=shuffle)
    parts = split(Samples(), size, seed=seed, shuffle=shuffle, validation_split=fraction)

    assert sorted([*parts["train"], *parts["val"]]) == sorted(whole["train"].tolist())
    assert len(parts["val"]) == round(fraction * len(whole["train"]))
    assert np.array_equal(parts["test"], whole["test"])
    if not shuffle:
        assert parts["train"].max() < parts["val"].min()


@pytest.mark.parametrize(("fraction", "empty"), [(0.01, "val"), (0.99, "train")])
def test_a_validation_split_that_leaves_a_part_empty_is_refused(fraction: float, empty: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"^model\.training\.validation_split: {fraction} of the 8 rows of the train part leaves the {empty}",
    ):
        split(Samples(), 10, seed=0, shuffle=True, validation_split=fraction)


def test_a_stratified_validation_split_holds_every_class() -> None:
    classes = np.repeat([0, 1], [90, 10])
    parts = split(Samples(), 100, seed=0, shuffle=True, classes=classes, validation_split=0.25)

    assert np.bincount(classes[parts["val"]]).tolist() == [18, 2]
    assert np.bincount(classes[parts["train"]]).tolist() == [54, 6]
