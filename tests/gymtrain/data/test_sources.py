from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from gymtrain.data.frames import Frame
from gymtrain.data.sources import Arrays, Csv, Data, DataFrame, Dataset, Parquet, read_table, split_target
from gymtrain.errors import DataError, SpecError
from gymtrain.registry import find
from gymtrain.specs import Dataset as DatasetSpec
from gymtrain.specs import fingerprint

Write = Callable[..., Path]


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "rows.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Write:
    def write(columns: dict[str, Any]) -> Path:
        path = tmp_path / "rows.parquet"
        pyarrow.parquet.write_table(pa.table(columns), path)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "classes", "task"),
    [
        ("breast_cancer", {}, (569, 30), 2, "binary"),
        ("diabetes", {}, (442, 10), None, "regression"),
        ("digits", {}, (1797, 64), 10, "multiclass"),
        ("digits", {"images": True}, (1797, 8, 8), 10, "multiclass"),
        ("iris", {}, (150, 4), 3, "multiclass"),
        ("wine", {}, (178, 13), 3, "multiclass"),
    ],
)
def test_every_built_in_dataset_loads(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], classes: int | None, task: str
) -> None:
    data = find("dataset", name)(**arguments).load()

    assert data.X.shape == shape
    assert data.y.shape == shape[:1]
    assert data.task == task
    assert classes is None or len(np.unique(data.y)) == classes


def test_arrays_are_handed_on_as_they_are() -> None:
    X, y, groups = np.zeros((2, 3)), [0, 1], ["a", "b"]
    data = Arrays(X, y, task="binary", groups=groups).load()

    assert data.X is X
    assert data.y is y
    assert (data.task, data.groups) == ("binary", groups)


def test_weights_are_handed_on_as_they_are() -> None:
    weights = [1.0, 2.0]

    assert Arrays([[1], [2]], [0, 1], sample_weight=weights).load().sample_weight is weights


@pytest.mark.parametrize("name", ["X", "y", "groups", "sample_weight"])
def test_a_fingerprint_is_no_data(name: str) -> None:
    given = {"X": [[1]], "y": [1], name: fingerprint(np.zeros(2))}

    with pytest.raises(
        DataError, match=rf"^dataset\.dataset\.{name}: the spec was read from a file, which holds the fing"
    ):
        Arrays(**given).load()


def test_the_fingerprint_of_a_frame_is_no_frame() -> None:
    with pytest.raises(DataError, match=r"^dataset\.dataset\.data: the spec was read from a file"):
        DataFrame(fingerprint(pd.DataFrame({"a": [1]})), "a").load()


@pytest.mark.parametrize("value", [3, None, np.zeros((2, 2)), "rows.csv", pd.Series([1]), pl.LazyFrame({"a": [1]}), []])
def test_what_has_no_columns_is_refused(value: Any) -> None:
    with pytest.raises(
        DataError, match=r"^dataset\.dataset\.data: got \w+; expected a frame of pandas, polars or pyarr"
    ):
        DataFrame(value, "y").load()


def test_a_dataset_without_load_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"^Dataset has no load\(\); return gymtrain\.data\.sources\.Data or"):
        Dataset().load()


def frame(**columns: Any) -> Frame:
    return Frame.of(columns)


def test_the_target_is_taken_out_of_the_frame() -> None:
    data = split_target(frame(a=[1, 2], y=["u", "v"], b=["x", None]), "y", "binary")

    assert data.X.names == ["a", "b"]
    assert data.y.tolist() == ["u", "v"]
    assert (data.task, data.target_names) == ("binary", None)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ([0, 1, 2], np.int64),
        ([-1.0, 2.0], np.float64),
        ([0.5, 1.0], np.float64),
        ([1, None], np.float64),
        ([True, False], np.bool_),
        (np.array([True, False]), np.bool_),
        (pd.Series([True, False], dtype="boolean"), np.bool_),
        (["a", "b"], np.object_),
        ([2.0**60, 1.0], np.float64),
    ],
)
def test_labels_stay_what_they_were(column: Any, dtype: type) -> None:
    y = split_target(frame(x=[0.0] * len(column), y=column), "y", None).y

    assert y.dtype == dtype
    assert [None if each != each else each for each in y.tolist()] == list(column)


def test_several_targets_are_columns_side_by_side() -> None:
    data = split_target(frame(x=[1, 2], u=[0.5, 1.5], v=[3, 4]), ["v", "u"], None)

    np.testing.assert_array_equal(data.y, [[3, 0.5], [4, 1.5]])
    assert data.target_names == ["v", "u"]
    assert data.X.names == ["x"]


def test_a_list_of_one_target_has_one_output() -> None:
    assert split_target(frame(x=[1, 2], y=[3, 4]), ["y", "y"], None).y.shape == (2, 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "pirce",
            r"^dataset\.dataset\.target: there is no column 'pirce'; did you mean 'price'\?; the columns are 'rooms',",
        ),
        (["price", "zzz"], r"there is no column 'zzz'; the columns are 'rooms', 'price', 'city'$"),
        (
            ["rooms", "price", "city"],
            "^dataset.dataset: the frame has no column beside the target; there is nothing to",
        ),
        (
            ["price", "city"],
            r"^dataset\.dataset\.target: 'price', 'city' are numbers and text; several targets are of one",
        ),
    ],
)
def test_a_target_that_cannot_be_taken_is_refused(target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_target(frame(rooms=[1], price=[2], city=["Porto"]), target, None)


def test_the_columns_of_a_wide_frame_are_not_all_listed() -> None:
    wide = frame(**{f"c{index}": [1] for index in range(500)})

    with pytest.raises(DataError, match=r"'c19' and 480 more$"):
        split_target(wide, "zzz", None)


def test_the_weights_are_taken_out_of_the_frame() -> None:
    data = split_target(frame(a=[1, 2], w=[3, 4], y=["u", "v"]), "y", None, "w")

    assert data.X.names == ["a"]
    assert data.sample_weight.tolist() == [3.0, 4.0]
    assert data.left_out == ["y", "w"]


def test_the_weights_are_taken_out_beside_several_targets() -> None:
    data = split_target(frame(a=[1, 2], w=[3, 4], u=[0, 1], v=[1, 1]), ["u", "v"], None, "w")

    assert (data.X.names, data.target_names, data.left_out) == (["a"], ["u", "v"], ["u", "v", "w"])
    assert data.sample_weight.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "wieght",
            r"^dataset\.dataset\.sample_weight: there is no column 'wieght'; did you mean 'weight'\?; the columns",
        ),
        ("y", r"^dataset\.dataset\.sample_weight: 'y' is the target; name another column$"),
    ],
)
def test_weights_that_cannot_be_taken_are_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_target(frame(a=[1], weight=[2], y=[0]), "y", None, name)


def test_weights_alone_are_no_features() -> None:
    with pytest.raises(DataError, match=r"the frame has no column beside the target and the weights; there is nothing"):
        split_target(frame(weight=[2], y=[0]), "y", None, "weight")


def test_every_source_with_columns_has_weights(csv: Write, parquet: Write) -> None:
    columns = {"x": [1, 2], "w": [0.5, 1.5], "y": [0, 1]}

    for source in (
        DataFrame(columns, "y", sample_weight="w"),
        Csv(str(csv("x,w,y\n1,0.5,0\n2,1.5,1\n")), "y", sample_weight="w"),
        Parquet(str(parquet(columns)), "y", sample_weight="w"),
    ):
        data = source.load()
        assert data.X.names == ["x"]
        assert data.sample_weight.tolist() == [0.5, 1.5]


def test_live_weights_are_written_down_as_their_fingerprint() -> None:
    weights = np.array([1.0, 2.0])
    spec = DatasetSpec(dataset={"type": "arrays", "X": [[1], [2]], "y": [0, 1], "sample_weight": weights})

    written = spec.to_dict()

    assert written["dataset"]["sample_weight"] == fingerprint(weights)
    assert DatasetSpec(**written).to_dict() == written


def test_the_name_of_a_column_of_weights_is_written_down_and_checked() -> None:
    data = {"type": "csv", "path": "rows.csv", "target": "y", "sample_weight": "w"}

    written = DatasetSpec(dataset=data).to_dict()

    assert written["dataset"]["sample_weight"] == "w"
    assert DatasetSpec(**written).to_dict() == written
    with pytest.raises(SpecError, match=r"dataset\.dataset\.sample_weight: got 3; expected"):
        DatasetSpec(dataset={**data, "sample_weight": 3})


def test_a_csv_file_is_read(csv: Write) -> None:
    path = csv("age,city,ok,y\n30,Porto,true,a\n,,false,b\n41,Braga,,a\n")
    data = Csv(str(path), "y").load()

    assert data.X.kinds() == {"age": "number", "city": "text", "ok": "number"}
    np.testing.assert_array_equal(data.X.columns["age"], [30, np.nan, 41])
    assert data.X.columns["city"].tolist() == ["Porto", None, "Braga"]
    np.testing.assert_array_equal(data.X.columns["ok"], [1, 0, np.nan])
    assert data.y.tolist() == ["a", "b", "a"]


def test_labels_that_are_truth_values_stay_truth_values(csv: Write, parquet: Write) -> None:
    for data in (
        Csv(str(csv("x,y\n1,true\n2,false\n")), "y").load(),
        Parquet(str(parquet({"x": [1, 2], "y": [True, False]})), "y").load(),
        DataFrame(pl.DataFrame({"x": [1, 2], "y": [True, False]}), "y").load(),
    ):
        assert data.y.dtype == np.bool_
        assert data.y.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xef\xbb\xbfname,y\na,1\n", {"name": ["a"], "y": [1.0]}),
        ('name,y\n"two\nlines",1\n', {"name": ["two\nlines"], "y": [1.0]}),
        ('name,y\n"a, ""b""",1\n', {"name": ['a, "b"'], "y": [1.0]}),
        ("name,y\r\na,1\r\n", {"name": ["a"], "y": [1.0]}),
        ("name,y\na,1", {"name": ["a"], "y": [1.0]}),
        ("name,y\nNA,1\nx,2\n,3\n", {"name": [None, "x", None], "y": [1.0, 2.0, 3.0]}),
        ("näme,y\nß漢,1e3\n", {"näme": ["ß漢"], "y": [1000.0]}),
        ("name,y\n007,1\nx,2\n", {"name": ["007", "x"], "y": [1.0, 2.0]}),
    ],
)
def test_csv_files_as_they_are_found_are_read(csv: Write, text: str | bytes, expected: dict[str, list[Any]]) -> None:
    table = read_table(csv(text), "csv")

    assert {name: column.tolist() for name, column in table.columns.items()} == expected


def test_a_line_break_in_quotes_is_read_also_where_blocks_meet(csv: Write) -> None:
    rows = 40_000
    table = read_table(
        csv('name,y\n"' + 'some text\nof two lines",1\n"'.join([""] * (rows + 1))[:-1].lstrip('"')), "csv"
    )

    assert len(table) == rows
    assert set(table.columns["y"].tolist()) == {1.0}


def test_a_csv_with_a_header_alone_has_no_rows(csv: Write) -> None:
    table = read_table(csv("a,y\n"), "csv")

    assert (len(table), table.names) == (0, ["a", "y"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"rows\.csv is not a csv file that can be read: .*[Ee]mpty"),
        ("a,b\n1,2\n3\n", r"rows\.csv is not a csv file that can be read: .*Expected 2 columns, got 1"),
        ("a,a\n1,2\n", r"rows\.csv: the frame has more than one column named 'a'; rename them"),
        ("a,when\n1,2024-01-01\n", r"rows\.csv: column 'when' holds dates or durations; turn them into numbers"),
        ("a,when\n1,2024-01-01 10:00:00\n", "column 'when' holds dates or durations"),
        (b"a,b\n1,\xff\xfe\n", "column 'b' holds bytes such as .*; expected numbers, or text in UTF-8"),
        (b"a,\xff\n1,2\n", r"rows\.csv is not a csv file that can be read: .*utf-8"),
        (b"PK\x03\x04\x00\x00", r"rows\.csv is not a csv file that can be read"),
    ],
)
def test_a_csv_file_that_cannot_be_trained_on_is_refused(csv: Write, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Csv(str(csv(text)), "y").load()


@pytest.mark.parametrize("kind", [Csv, Parquet])
def test_a_file_that_is_not_there_is_named(kind: type[Csv], tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere' is not there \(looked in .*\); expected a (csv|parquet) file$"
    ):
        kind(str(tmp_path / "nowhere"), "y").load()
    with pytest.raises(FileNotFoundError, match=r"' is a directory; expected a (csv|parquet) file$"):
        kind(str(tmp_path), "y").load()


def test_the_home_directory_is_found(csv: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(csv("a,y\n1,2\n").parent))

    assert len(read_table("~/rows.csv", "csv")) == 1


def test_a_parquet_file_is_read(parquet: Write) -> None:
    path = parquet(
        {
            "age": pa.array([30, None], pa.int16()),
            "price": pa.array(["1.50", None], pa.string()).cast(pa.decimal128(9, 2)),
            "city": pa.array(["Porto", None]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "y": [0, 1],
        }
    )
    data = Parquet(str(path), "y").load()

    np.testing.assert_array_equal(
        data.X.select(["age", "price", "nothing"]).matrix(), [[30, 1.5, np.nan], [np.nan] * 3]
    )
    assert data.X.columns["city"].tolist() == ["Porto", None]
    assert data.y.tolist() == [0, 1]


def test_the_directories_above_a_parquet_file_add_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2024"
    folder.mkdir()
    pyarrow.parquet.write_table(pa.table({"a": [1]}), folder / "rows.parquet")

    assert read_table(folder / "rows.parquet", "parquet").names == ["a"]


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "changed"])
def test_a_parquet_file_that_is_damaged_is_refused(parquet: Write, damage: str) -> None:
    path = parquet({"a": list(range(1000)), "y": [str(each) for each in range(1000)]})
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[4 : len(whole) - 8] = bytes(len(whole) - 12)
    path.write_bytes({"text": b"a,y\n1,2\n", "empty": b"", "cut": whole[:-20], "changed": bytes(changed)}[damage])

    with pytest.raises(DataError, match=r"rows\.parquet is not a parquet file that can be read: "):
        Parquet(str(path), "y").load()


@pytest.mark.parametrize("column", [[[1, 2]], [{"a": 1}], [b"\xff"]])
def test_a_parquet_file_with_columns_of_other_things_is_refused(parquet: Write, column: list[Any]) -> None:
    with pytest.raises(DataError, match=r"rows\.parquet: column 'x' holds (ndarray|dict|bytes)"):
        Parquet(str(parquet({"x": column, "y": [1]})), "y").load()


def test_data_may_be_given_as_they_are() -> None:
    assert Data([[1]], [1]) == Data(X=[[1]], y=[1], task=None, groups=None, target_names=None)


def test_a_target_of_floats_is_a_regression_in_every_source(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "price": [250.0, 300.0, 350.0]})
    table.to_parquet(tmp_path / "prices.parquet")
    table.to_csv(tmp_path / "prices.csv", index=False)

    for source in (
        DataFrame(table, "price"),
        Parquet(str(tmp_path / "prices.parquet"), "price"),
        Csv(str(tmp_path / "prices.csv"), "price"),
    ):
        assert source.load().y.dtype == np.float64
