from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from gymtrain.data.frames import Frame, column_of, is_frame
from gymtrain.errors import DataError

COLUMNS: dict[str, list[Any]] = {
    "age": [30, 41, 25],
    "height": [1.7, None, 1.6],
    "city": ["Porto", None, "Braga"],
    "member": [True, False, True],
}
MAKERS: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas nullable": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas categories": lambda: pd.DataFrame(COLUMNS).astype({"city": "category"}),
    "pandas objects": lambda: pd.DataFrame(COLUMNS).astype(object),
    "pandas with an index": lambda: pd.DataFrame(COLUMNS, index=[7, 7, 3]),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars categories": lambda: pl.DataFrame(COLUMNS).with_columns(pl.col("city").cast(pl.Categorical)),
    "pyarrow": lambda: pa.table(COLUMNS),
    "pyarrow in chunks": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 2), pa.table(COLUMNS).slice(2)]),
    "pyarrow dictionaries": lambda: pa.table({**COLUMNS, "city": pa.array(COLUMNS["city"]).dictionary_encode()}),
    "pyarrow batch": lambda: pa.record_batch(COLUMNS),
    "dict of lists": lambda: COLUMNS,
    "dict of tuples": lambda: {name: tuple(column) for name, column in COLUMNS.items()},
    "dict of series": lambda: dict(pd.DataFrame(COLUMNS).items()),
    "list of dicts": lambda: [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
    "list of dicts with gaps": lambda: [
        {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
        for row in zip(*COLUMNS.values(), strict=True)
    ],
}


@pytest.mark.parametrize("form", MAKERS)
def test_frames_of_every_kind_are_read_alike(form: str) -> None:
    value = MAKERS[form]()
    frame = Frame.of(value)

    assert is_frame(value)
    assert len(frame) == 3
    assert frame.kinds() == {"age": "number", "height": "number", "city": "text", "member": "number"}
    np.testing.assert_array_equal(frame.columns["age"], [30.0, 41.0, 25.0])
    np.testing.assert_array_equal(frame.columns["height"], [1.7, np.nan, 1.6])
    assert frame.columns["city"].tolist() == ["Porto", None, "Braga"]
    np.testing.assert_array_equal(frame.columns["member"], [1.0, 0.0, 1.0])
    assert frame.truths == {"member"}


@pytest.mark.parametrize("value", [[[1, 2]], [], np.zeros((2, 2)), "text", None, 3, pd.Series([1]), [1, 2]])
def test_what_has_no_named_columns_is_no_frame(value: object) -> None:
    assert not is_frame(value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 3], [1.0, np.nan, 3.0]),
        ([1, float("nan")], [1.0, np.nan]),
        ([None, None], [np.nan, np.nan]),
        ([], []),
        ([True, None], [1.0, np.nan]),
        ([Decimal("1.5"), None, Decimal("NaN")], [1.5, np.nan, np.nan]),
        ([np.float32(1.5), np.int8(2)], [1.5, 2.0]),
        ([np.True_, False], [1.0, 0.0]),
        (np.array([1, 2], np.uint8), [1.0, 2.0]),
        (np.array([1.5, np.nan], np.float16), [1.5, np.nan]),
        (np.array([1, 2], ">i4"), [1.0, 2.0]),
        (pd.Series([1, 2], dtype="category"), [1.0, 2.0]),
        (pd.Series([1, pd.NA], dtype="Int64"), [1.0, np.nan]),
        (torch.tensor([1, 2]), [1.0, 2.0]),
        (range(3), [0.0, 1.0, 2.0]),
    ],
)
def test_numbers_become_float64_with_nan_for_missing(values: Any, expected: list[float]) -> None:
    column = column_of("x", values)

    assert column.dtype == np.float64
    np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None, float("nan")], ["a", None, None]),
        (["a", 1, 2.5, True], ["a", "1", "2.5", "True"]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (pd.Series(["a", pd.NA, None], dtype="string"), ["a", None, None]),
        (["", " "], ["", " "]),
    ],
)
def test_text_becomes_objects_with_none_for_missing(values: Any, expected: list[str | None]) -> None:
    column = column_of("x", values)

    assert column.dtype == object
    assert column.tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array(["2024-01-01"], "datetime64[D]"),
            r"^column 'x' holds dates or durations; turn them into numbers, for",
        ),
        (pd.Series(pd.to_datetime(["2024-01-01"])), "holds dates or durations"),
        (pd.Series(pd.to_timedelta([1], unit="D")), "holds dates or durations"),
        (pd.Series(pd.to_datetime(["2024-01-01"], utc=True)), "holds dates or durations"),
        (pl.Series([datetime.date(2024, 1, 1)]), "holds dates or durations"),
        (pa.chunked_array([[datetime.time(1)]]), "holds dates or durations"),
        ([datetime.date(2024, 1, 1), None], "holds dates or durations"),
        ([datetime.timedelta(1)], "holds dates or durations"),
        ([b"\xff"], r"^column 'x' holds bytes such as b'\\xff'; expected numbers, or text in UTF-8$"),
        ([[1, 2], [3, 4]], "^column 'x' holds list values; expected numbers or text$"),
        ([{"a": 1}], "^column 'x' holds dict values"),
        (pa.chunked_array([[[1, 2]]]), "^column 'x' holds ndarray values"),
        (np.array([1j]), "^column 'x' holds complex values"),
        (np.zeros((2, 2)), r"^column 'x' has the shape \(2, 2\); expected one value for each row$"),
        (np.array(1.0), r"^column 'x' has the shape \(\)"),
        ("text", "^column 'x' is a str; expected one value for each row$"),
        (3, "^column 'x' is a int; expected one value for each row$"),
        (None, "^column 'x' is a NoneType; expected one value"),
        ({"a": 1}, "^column 'x' is a dict; expected one value"),
    ],
)
def test_a_column_of_anything_else_is_refused(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        column_of("x", values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "^the frame has more than one column named 'a'; rename them$"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "more than one column named '1'"),
        (pa.table([[1], [2]], names=["a", "a"]), "more than one column named 'a'"),
        ({1: [1], "1": [2]}, "more than one column named '1'"),
        (
            {"a": [1, 2], "b": [1]},
            r"^the columns differ in length: \{'a': 2, 'b': 1\}; every row needs a value, or None",
        ),
        ([{"a": 1}, [2]], "^a list of rows holds a list among its dicts; expected a dict for each row$"),
        ([{"a": 1}, None], "holds a NoneType among its dicts"),
        ({"a": 1}, "^column 'a' is a int; expected one value for each row$"),
    ],
)
def test_a_frame_that_does_not_hang_together_is_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Frame.of(value)


@pytest.mark.parametrize(
    ("value", "rows"), [(pd.DataFrame(index=range(3)), 3), (pd.DataFrame({"a": []}), 0), ({}, 0), (pl.DataFrame(), 0)]
)
def test_frames_without_columns_or_rows_have_their_size(value: Any, rows: int) -> None:
    assert len(Frame.of(value)) == rows


def test_names_are_text_whatever_they_were() -> None:
    assert Frame.of(pd.DataFrame({0: [1], ("a", 1): [2]})).names == ["0", "('a', 1)"]
    assert Frame.of({3: [1]}).names == ["3"]
    assert Frame.of([{3: 1}]).names == ["3"]


def test_rows_are_taken_by_position() -> None:
    frame = Frame.of(COLUMNS)

    assert frame.take(np.array([2, 0])).columns["age"].tolist() == [25.0, 30.0]
    assert frame.take(slice(1, None)).columns["city"].tolist() == [None, "Braga"]
    assert [len(frame.take(each)) for each in (slice(1, None), slice(0, 0), np.array([], int))] == [2, 0, 0]
    assert frame.take(slice(0, 1)).truths == {"member"}


def test_columns_are_selected_in_the_order_given() -> None:
    selected = Frame.of(COLUMNS).select(["height", "age"])

    assert selected.names == ["height", "age"]
    assert selected.truths == frozenset()
    np.testing.assert_array_equal(selected.matrix(), [[1.7, 30], [np.nan, 41], [1.6, 25]])
    assert Frame.of(COLUMNS).select([]).matrix().shape == (3, 0)


def test_text_does_not_go_into_a_matrix() -> None:
    with pytest.raises(
        DataError, match=r"^columns 'city' hold text where numbers are needed; put \{'type': 'tabular'\}"
    ):
        Frame.of(COLUMNS).matrix()


def test_a_frame_is_not_read_twice_and_does_not_change_what_it_was_read_from() -> None:
    source = pd.DataFrame({"a": [1.0, 2.0]})
    frame = Frame.of(source)
    frame.columns["a"][0] = 9.0

    assert Frame.of(frame) is frame
    assert source["a"].tolist() == [1.0, 2.0]
