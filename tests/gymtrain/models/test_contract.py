from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gymtrain import SpecError
from gymtrain.models.contract import Array, LibraryLearner, State
from gymtrain.models.tasks import Multiclass

X, CODES = np.zeros((3, 1), dtype=np.float32), np.array([0, 2, 2])
BY_ROW, BY_CLASS = np.array([1, 2, 3], dtype=np.float32), np.array([10, 20, 30], dtype=np.float32)


class Plain:
    """Takes no weights."""

    def fit(self, X: Array, y: Array) -> None:
        self.fitted = True

    def save(self) -> State:
        return {}


class Weighing(Plain):
    """Keeps the weights that it was given."""

    given: Any = "nothing"

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> None:
        self.given = sample_weight


def learner(model: Plain) -> LibraryLearner:
    return LibraryLearner(model, Multiclass(["a", "b", "c"]))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"sample_weight": BY_ROW}, [1, 2, 3]),
        ({"class_weight": BY_CLASS}, [10, 30, 30]),
        ({"sample_weight": BY_ROW, "class_weight": BY_CLASS}, [10, 60, 90]),
    ],
)
def test_weights_of_rows_and_of_classes_are_multiplied(weights: dict[str, Array], expected: list[float]) -> None:
    model = Weighing()

    learner(model).fit(X, CODES, **weights)

    assert model.given.tolist() == expected
    assert model.given.dtype == np.float32


def test_without_weights_a_model_is_not_asked_to_take_any() -> None:
    model = Plain()

    learner(model).fit(X, CODES)

    assert model.fitted


@pytest.mark.parametrize(
    ("weights", "paths"),
    [
        ({"sample_weight": BY_ROW}, ["dataset.dataset.sample_weight"]),
        ({"class_weight": BY_CLASS}, ["model.training.class_weight"]),
        (
            {"sample_weight": BY_ROW, "class_weight": BY_CLASS},
            ["dataset.dataset.sample_weight", "model.training.class_weight"],
        ),
    ],
)
def test_a_model_that_takes_no_weights_names_the_key_that_gave_them(
    weights: dict[str, Array], paths: list[str]
) -> None:
    with pytest.raises(
        SpecError, match=r"Plain\.fit takes no sample_weight; leave (sample|class)_weight out"
    ) as caught:
        learner(Plain()).fit(X, CODES, **weights)

    assert [fault.path for fault in caught.value.faults] == paths
