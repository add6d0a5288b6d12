from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from gymtrain.data.frames import Frame
from gymtrain.data.tabular import Tabular
from gymtrain.errors import DataError

Y = np.zeros(0, np.int64)


def frame(**columns: Any) -> Frame:
    return Frame.of(columns)


def fitted(train: Frame, **arguments: Any) -> Tabular:
    tabular = Tabular(**arguments)
    tabular.fit(train, Y)
    return tabular


numbers = st.none() | st.floats(-1e6, 1e6)
texts = st.sampled_from(["Porto", "Braga", "Faro", "é", ""])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(numbers, numbers, texts, texts), min_size=2, max_size=30),
    new=st.lists(st.tuples(numbers, numbers, texts | st.just("never seen"), texts), max_size=5),
    impute=st.sampled_from(["median", "mean", "most_frequent"]),
    scale=st.sampled_from(["standard", "min_max", None]),
)
def test_the_numbers_are_those_of_a_column_transformer(rows: Any, new: Any, impute: Any, scale: Any) -> None:
    rows = [(1.0, 2.0, *rows[0][2:]), *rows[1:]]  # no column without any value
    names = ["a", "b", "city", "street"]
    train, later = (Frame.of([dict(zip(names, row, strict=True)) for row in each]) for each in (rows, [*new, rows[0]]))
    scaler = {"standard": StandardScaler(), "min_max": MinMaxScaler(), None: "passthrough"}[scale]
    reference = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy=impute), scaler), [0, 1]),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [2, 3]),
        ]
    )

    def table(each: Frame) -> Any:
        columns = [each.columns[name] for name in names]
        return np.array([[column[row] for column in columns] for row in range(len(each))], dtype=object)

    reference.fit(table(train))

    expected = reference.transform(table(later)).astype(np.float32)
    result = fitted(train, impute=impute, scale=scale).transform(later)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_numbers_come_first_then_the_categories_in_the_order_of_the_columns() -> None:
    train = frame(city=["b", "a"], age=[1.0, 3.0], street=["x", "x"])

    result = fitted(train, scale=None).transform(train)

    np.testing.assert_array_equal(result, [[1, 0, 1, 1], [3, 1, 0, 1]])
    assert result.dtype == np.float32


def test_a_missing_text_is_a_category_where_the_train_part_had_one() -> None:
    train = frame(city=["a", None])

    np.testing.assert_array_equal(fitted(train).transform(frame(city=[None, "a"])), [[1, 0], [0, 1]])


def test_a_missing_text_that_the_train_part_never_had_becomes_zeros_as_any_unseen_one() -> None:
    tabular = fitted(frame(city=["a", "b"]))

    np.testing.assert_array_equal(
        tabular.transform(Frame.of([{"city": None}, {"city": "z"}]).select(["city"])), [[0, 0]] * 2
    )


def test_a_text_that_spells_none_is_not_a_missing_one() -> None:
    tabular = fitted(frame(city=["None", "", None]))

    assert fitted(frame(city=["None", "", None])).categories == {"city": [None, "", "None"]}
    np.testing.assert_array_equal(tabular.transform(frame(city=["None", "", None])), [[0, 0, 1], [0, 1, 0], [1, 0, 0]])


def test_ordinal_gives_the_number_of_the_category_and_minus_one_for_unseen_ones() -> None:
    tabular = fitted(frame(city=["b", "a", "b"]), encode="ordinal")

    np.testing.assert_array_equal(tabular.transform(frame(city=["a", "b", "z"])), [[0], [1], [-1]])


def test_the_most_frequent_categories_are_kept() -> None:
    train = frame(city=["a"] * 3 + ["b"] * 1 + ["c"] * 2 + ["d"] * 2)
    tabular = fitted(train, max_categories=2)

    assert tabular.categories == {"city": ["a", "c"]}
    np.testing.assert_array_equal(tabular.transform(frame(city=["a", "b", "c", "d"])), [[1, 0], [0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize(("impute", "fill"), [("median", 2.0), ("mean", 3.0), ("most_frequent", 1.0)])
def test_a_missing_number_is_filled(impute: Any, fill: float) -> None:
    train = frame(a=[1, 1, 2, 2.5, 8.5, None])

    assert fitted(train, impute=impute, scale=None).transform(frame(a=[None, 7]))[0, 0] == fill


def test_a_constant_column_becomes_zero() -> None:
    train = frame(a=[5.0, 5.0], b=[None, 3.0])

    assert not fitted(train).transform(train).any()
    assert not fitted(train, scale="min_max").transform(train).any()


def test_a_column_without_any_value_is_refused() -> None:
    with pytest.raises(DataError, match=r"^columns 'a', 'c' hold no value in the train part; drop them$"):
        fitted(frame(a=[None, None], b=[1, 2], c=[float("nan")] * 2))


def test_a_column_of_text_without_any_value_is_one_category() -> None:
    nothing = Frame({"city": np.array([None, None], dtype=object)}, 2)

    np.testing.assert_array_equal(fitted(nothing).transform(nothing), [[1], [1]])


def test_frames_of_numbers_alone_and_of_texts_alone_are_taken() -> None:
    assert fitted(frame(a=[1, 2])).transform(frame(a=[1, 2])).shape == (2, 1)
    assert fitted(frame(a=["x", "y"])).transform(frame(a=["x", "y"])).shape == (2, 2)


def test_no_rows_give_no_rows_of_the_right_width() -> None:
    train = frame(a=[1.0, 2.0], city=["x", "y"])

    assert fitted(train).transform(train.take(slice(0, 0))).shape == (0, 3)


def test_an_array_has_columns_by_position() -> None:
    rows = np.array([[1.0, np.nan], [3.0, 4.0]])

    np.testing.assert_array_equal(fitted(rows, scale=None).transform(rows), [[1, 4], [3, 4]])  # type: ignore[arg-type]


def test_a_number_too_large_for_float32_becomes_infinite_without_a_warning() -> None:
    # What comes out of the last preprocessor is looked at by the trainer, which names the row.
    tabular = fitted(frame(a=[1.0, 2.0]), scale=None)

    assert np.isinf(tabular.transform(frame(a=[1e300]))).all()


def test_what_was_learned_is_json_and_arrays() -> None:
    train = frame(a=[1.0, None], b=[2.0, 3.0], city=["x", None])
    state = fitted(train).save()

    plain = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    again = Tabular()
    again.restore({**state, **json.loads(json.dumps(plain))})

    np.testing.assert_array_equal(again.transform(train), fitted(train).transform(train))
