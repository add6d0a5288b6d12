from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gymtrain import SpecError
from gymtrain.data.randomness import order
from gymtrain.specs import Dataset, Training
from gymtrain.trainer.preparation import Prepared, load
from gymtrain.trainer.sampling import order_of

ROWS = 4000
LABELS = np.array(["rare", "often", "often", "often"] * (ROWS // 4))
WEIGHTS = np.array([0.0, 1.0, 2.0, 5.0] * (ROWS // 4))


def prepared(y: Any = LABELS, weights: Any = None, **fields: Any) -> tuple[Prepared, Dataset]:
    data = {"type": "arrays", "X": np.arange(ROWS)[:, None], "y": y, "sample_weight": weights}
    spec = Dataset(dataset=data, samples={"train": 1.0}, **fields)
    return load(spec.dataset.build(), spec, Training()), spec


@pytest.mark.parametrize("shuffle", [True, False])
def test_by_default_a_pass_goes_through_each_row_once(shuffle: bool) -> None:
    data, spec = prepared(shuffle=shuffle, seed=3)

    rows = order_of(data, spec, Training())

    assert torch.equal(rows(2), order(3, 2, ROWS, shuffle=shuffle))


@pytest.mark.parametrize("one_hot", [False, True])
def test_balanced_classes_are_equally_frequent(one_hot: bool) -> None:
    data, spec = prepared(one_hot=one_hot)

    drawn = order_of(data, spec, Training(sampling="balanced"))(1)

    assert (drawn.dtype, drawn.shape) == (torch.int64, (ROWS,))
    # Half of them, within five standard deviations of a fair coin.
    assert abs(np.bincount(data.codes("train")[drawn])[0] - ROWS / 2) < 5 * (ROWS / 4) ** 0.5


def test_weighted_rows_are_drawn_in_proportion() -> None:
    data, spec = prepared(weights=WEIGHTS)

    drawn = order_of(data, spec, Training(sampling="weighted"))(1)

    found = np.bincount(data.weights["train"][drawn].astype(int), minlength=6)[[0, 1, 2, 5]]
    expected = ROWS * np.array([0, 1, 2, 5]) / 8
    assert found[0] == 0
    assert (np.abs(found - expected) < 5 * np.maximum(expected, 1) ** 0.5).all()


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
def test_what_is_drawn_depends_on_the_seed_and_the_pass_alone(sampling: Any) -> None:
    training = Training(sampling=sampling)
    (data, spec), (again, spec_again), (_, other) = (prepared(weights=WEIGHTS, seed=seed) for seed in (1, 1, 2))

    drawn = order_of(data, spec, training)(5)

    torch.rand(3)
    assert torch.equal(order_of(again, spec_again, training)(5), drawn)
    assert not torch.equal(order_of(data, spec, training)(6), drawn)
    assert not torch.equal(order_of(data, other, training)(5), drawn)


@pytest.mark.parametrize(
    "y", [np.linspace(0.1, 1, ROWS), np.tile([[0, 1], [1, 1]], (ROWS // 2, 1))], ids=["regression", "multilabel"]
)
def test_what_has_no_classes_cannot_be_balanced(y: Any) -> None:
    data, spec = prepared(y)

    with pytest.raises(
        SpecError,
        match=r"model\.training\.sampling: 'balanced' draws each class equally often, and a \w+ task has no classes;",
    ):
        order_of(data, spec, Training(sampling="balanced"))


def test_rows_without_weights_cannot_be_drawn_by_them() -> None:
    data, spec = prepared()

    with pytest.raises(
        SpecError, match=r"model\.training\.sampling: 'weighted' draws .* give dataset\.dataset\.sample_w"
    ):
        order_of(data, spec, Training(sampling="weighted"))


def test_another_way_of_sampling_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"model\.training\.sampling: got 'even'; expected 'shuffle', 'balanced' or 'wei"
    ):
        Training(sampling="even")
