from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from gymtrain.specs import Experiment, fingerprint, is_fingerprint
from gymtrain.specs.fingerprint import frame_columns

ROWS = {"x": [1.0, 2.0, 3.0], "name": ["a", "b", None]}
FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "float array": lambda x, name: np.array(x),
    "transposed": lambda x, name: np.array([x, x]).T,
    "big-endian": lambda x, name: np.array(x, dtype=">f8"),
    "text array": lambda x, name: np.array([str(each) for each in name]),
    "object array": lambda x, name: np.array(name, dtype=object),
    "dates": lambda x, name: np.array(x).astype("datetime64[D]"),
    "strided": lambda x, name: np.repeat(x, 2)[::2],
    "pandas": lambda x, name: pd.DataFrame({"x": x, "name": name}),
    "pandas nullable": lambda x, name: pd.DataFrame({"x": x, "name": name}).convert_dtypes(),
    "pandas series": lambda x, name: pd.Series(x),
    "polars": lambda x, name: pl.DataFrame({"x": x, "name": name}),
    "pyarrow": lambda x, name: pa.table({"x": x, "name": name}),
    "pyarrow categories": lambda x, name: pa.table({"name": pa.array(["b", "c", *name]).dictionary_encode()}),
    "dict of columns": lambda x, name: {"x": np.array(x), "name": name},
    "list of lists": lambda x, name: [[each] for each in x] * 1000,
    "list with gaps": lambda x, name: [*x, float("nan")],
    "ragged": lambda x, name: [[float("nan")], x],
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_data_have_equal_fingerprints_and_other_data_others(form: str) -> None:
    make = FORMS[form]
    original = fingerprint(make(ROWS["x"], ROWS["name"]))

    assert is_fingerprint(original)
    assert fingerprint(make(list(ROWS["x"]), list(ROWS["name"]))) == original
    assert fingerprint(make([1.0, 2.0, 4.0], ["a", "c", None])) != original


def test_the_order_of_rows_the_names_the_type_and_the_shape_are_part_of_it() -> None:
    array = np.arange(6.0)

    others = [array[::-1], array.reshape(2, 3), array.reshape(3, 2), array.astype(np.float32), -array]

    assert len({fingerprint(each)["fingerprint"]["sha256"] for each in [array, *others]}) == 6
    assert fingerprint(pd.DataFrame({"a": array})) != fingerprint(pd.DataFrame({"b": array}))


def test_a_missing_text_is_not_the_text_that_spells_it() -> None:
    with_none, with_text = (np.array(["a", each], dtype=object) for each in (None, "None"))

    assert fingerprint(with_none) != fingerprint(with_text)


def test_a_fingerprint_says_what_it_stands_for() -> None:
    assert fingerprint(np.zeros((2, 3), np.float32))["fingerprint"] | {"sha256": ""} == {
        "shape": [2, 3],
        "dtype": "float32",
        "sha256": "",
    }
    assert fingerprint(pl.DataFrame(ROWS))["fingerprint"]["columns"] == ["x", "name"]
    assert fingerprint(pl.DataFrame(ROWS))["fingerprint"]["shape"] == [3, 2]


def test_empty_arrays_and_frames_have_fingerprints_too() -> None:
    assert fingerprint(np.empty((0, 3)))["fingerprint"]["shape"] == [0, 3]
    assert fingerprint(pd.DataFrame())["fingerprint"]["shape"] == [0, 0]


@pytest.mark.parametrize("value", [{}, {"fingerprint": 1, "x": 2}, [], None, "fingerprint"])
def test_other_values_are_no_fingerprints(value: object) -> None:
    assert not is_fingerprint(value)


def test_columns_are_told_apart_by_position_also_where_they_share_a_name() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    columns = frame_columns(twice)

    assert columns is not None
    assert [(name, list(column)) for name, column in columns] == [("a", [1]), ("a", [2])]
    assert frame_columns(pa.table([[1], [2]], names=["a", "a"])) is not None


@pytest.mark.parametrize("value", [np.zeros(2), [1], {"a": [1]}, "text", None, pd.Series([1]), pl.Series([1])])
def test_what_has_no_columns_is_no_frame(value: object) -> None:
    assert frame_columns(value) is None


def test_a_lazy_frame_is_no_frame() -> None:
    assert frame_columns(pl.DataFrame(ROWS).lazy()) is None


def experiment(X: Any, y: Any = (0, 1, 1)) -> Experiment:
    return Experiment(dataset={"dataset": {"type": "arrays", "X": X, "y": y}}, model={"model": "mlp"})


def test_live_data_are_replaced_in_the_written_spec_and_kept_in_the_spec() -> None:
    X = np.arange(6.0).reshape(3, 2)
    spec = experiment(X)
    written = spec.to_dict()["dataset"]["dataset"]

    assert spec.dataset.dataset.arguments["X"] is X
    assert written["X"] == fingerprint(X)
    assert written["y"] == [0, 1, 1]


def test_one_changed_number_changes_the_hash_of_the_spec() -> None:
    X = np.arange(6.0).reshape(3, 2)
    changed = X.copy()
    changed[2, 1] += 1e-12

    assert experiment(X).sha256 == experiment(X.copy()).sha256
    assert experiment(X).sha256 != experiment(changed).sha256
    assert experiment(X) == experiment(X.copy())
    assert experiment(X) != experiment(changed)


def test_a_spec_with_live_data_reads_back_to_the_same_hash() -> None:
    spec = experiment(pd.DataFrame(ROWS))

    assert Experiment(**spec.to_dict()).sha256 == spec.sha256


@pytest.mark.parametrize(
    "X",
    [[[1.0, float("nan")], [2.0, 3.0], [4.0, 5.0]], [[1.0]] * 1001, {"a": np.zeros(3)}, [{"a": float("inf")}] * 3],
    ids=["with a gap", "long", "columns", "rows"],
)
def test_lists_that_are_data_are_replaced_too(X: Any) -> None:
    written = experiment(X).to_dict()["dataset"]["dataset"]

    assert is_fingerprint(written["X"])


def test_a_short_list_is_written_as_it_is() -> None:
    assert experiment([[1, 2], [3, 4], [5, 6]]).to_dict()["dataset"]["dataset"]["X"] == [[1, 2], [3, 4], [5, 6]]
