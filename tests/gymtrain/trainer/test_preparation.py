from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from gymtrain import DataError
from gymtrain.data.schema import Features
from gymtrain.specs import Dataset, Training
from gymtrain.trainer.preparation import Prepared, load

X, Y = np.arange(20.0).reshape(10, 2), np.array(["no", "yes"] * 5)
WEIGHTS = np.linspace(0.0, 4.5, 10)


def prepared(data: dict[str, Any], **fields: Any) -> Prepared:
    spec = Dataset(dataset=data, **fields)
    return load(spec.dataset.build(), spec, Training())


def arrays(**given: Any) -> dict[str, Any]:
    return {"type": "arrays", "X": X, "y": Y, **given}


def frame(weights: Any = WEIGHTS) -> dict[str, Any]:
    data = pd.DataFrame({"a": X[:, 0], "importance": weights, "y": Y})
    return {"type": "dataframe", "data": data, "target": "y", "sample_weight": "importance"}


@pytest.mark.parametrize(
    "form",
    [
        WEIGHTS,
        WEIGHTS.tolist(),
        tuple(WEIGHTS),
        torch.from_numpy(WEIGHTS),
        torch.from_numpy(WEIGHTS).bfloat16(),
        pd.Series(WEIGHTS),
        pd.Series(WEIGHTS, dtype="Float64"),
        pl.Series(WEIGHTS),
    ],
    ids=lambda form: f"{type(form).__module__}-{getattr(form, 'dtype', '')}",
)
def test_weights_come_with_their_rows(form: Any) -> None:
    data = prepared(arrays(sample_weight=form), samples={"train": 0.5, "val": 0.2, "test": 0.3})

    assert {part: len(weights) for part, weights in data.weights.items()} == {"train": 5, "val": 2, "test": 3}
    for part, weights in data.weights.items():
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights, WEIGHTS[data.rows[part]])


def test_whole_numbers_and_truth_values_are_weights() -> None:
    for weights in (np.arange(10), np.arange(10) > 4):
        data = prepared(arrays(sample_weight=weights), samples={"train": 1.0})
        np.testing.assert_array_equal(data.weights["train"], weights[data.rows["train"]])


def test_without_weights_there_are_none() -> None:
    assert prepared(arrays()).weights == {}


def test_a_column_of_weights_is_no_feature() -> None:
    data = prepared(frame(), samples={"train": 1.0}, shuffle=False)

    assert data.features.columns == {"a": "number"}
    assert data.features.left_out == ("y", "importance")
    np.testing.assert_array_equal(data.weights["train"], WEIGHTS.astype(np.float32))


def test_rows_are_predicted_with_and_without_the_column_of_weights() -> None:
    features = Features.from_dict(prepared(frame()).features.to_dict())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for columns in (
            {"a": [1.0]},
            {"a": [1.0], "importance": [2.0]},
            {"importance": ["?"], "y": ["no"], "a": [1.0]},
        ):
            assert features.check(columns, missing=False).names == ["a"]


def test_weights_are_part_of_the_digest() -> None:
    others = [arrays(), arrays(sample_weight=WEIGHTS), arrays(sample_weight=WEIGHTS[::-1])]

    assert len({prepared(each).digest("train") for each in others}) == 3
    assert prepared(others[1]).digest("train") == prepared(others[1]).digest("train")


def test_a_feature_named_y_is_part_of_the_digest() -> None:
    tables = [pd.DataFrame({"y": y, "label": Y}) for y in (X[:, 0], X[:, 1])]

    digests = {prepared({"type": "dataframe", "data": each, "target": "label"}).digest("train") for each in tables}

    assert len(digests) == 2


def changed(row: int, value: Any) -> list[Any]:
    return [value if position == row else weight for position, weight in enumerate(WEIGHTS.tolist())]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:9], r"got the shape \(9,\); expected \(10,\), one for each row$"),
        (WEIGHTS[:, None], r"got the shape \(10, 1\); expected \(10,\)"),
        (1.0, r"got the shape \(\); expected \(10,\)"),
        ("importance", r"got 'importance'; expected an array"),
        ([[1.0], [1.0, 2.0]] * 5, r"the rows differ in length"),
        (
            changed(3, -1.0),
            r"1 rows have a weight that cannot be used, the first is row 3 with -1; expected numbers fr",
        ),
        (changed(3, np.nan), r"the first is row 3 with nan; expected numbers from 0 to 3\.4e38"),
        (changed(3, None), r"the first is row 3 with nan"),
        (changed(0, np.inf), r"the first is row 0 with inf"),
        (changed(9, 1e39), r"the first is row 9 with 1e\+39"),
        (changed(3, "many"), r"got the text 'many'; expected a number for each row$"),
        (["many"] * 10, r"got the text 'many'; expected a number for each row$"),
        (np.arange(10).astype("datetime64[D]"), r"holds dates or durations"),
        (WEIGHTS + 1j, r"holds complex values; expected numbers"),
        (np.zeros(10), r"got 0 for all 8 rows of the train part; expected a number above 0 for at least one, or there"),
        (np.full(10, 1e-60), r"got 0 for all 8 rows of the train part"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^dataset\.dataset\.sample_weight: .*({message})"):
        prepared(arrays(sample_weight=weights))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(3, -1.0), "1 rows have a weight that cannot be used, the first is row 3 with -1"),
        (changed(3, None), "1 rows have a weight that cannot be used, the first is row 3 with nan"),
        (["many"] * 10, "got the text 'many'; expected a number for each row"),
        (np.zeros(10), "got 0 for all 8 rows of the train part"),
    ],
)
def test_a_column_of_weights_that_cannot_be_used_is_named(weights: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^dataset\.dataset\.sample_weight, column 'importance': {message}"):
        prepared(frame(weights))


def test_a_target_that_cannot_be_used_is_named_without_the_weights() -> None:
    table = pd.DataFrame({"a": X[:, 0], "importance": WEIGHTS, "y": [None, *Y[1:]]})

    with pytest.raises(DataError, match=r"^dataset\.dataset, target 'y': y has missing values in 1 rows"):
        prepared({"type": "dataframe", "data": table, "target": "y", "sample_weight": "importance"})
