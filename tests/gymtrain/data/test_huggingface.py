from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from gymtrain.data.image_sources.huggingface import HuggingFace
from gymtrain.data.images import Images
from gymtrain.errors import DataError, MissingDependencyError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GYMTRAIN_DATA", str(tmp_path / "data"))
    return lambda path, **arguments: HuggingFace(str(path), **arguments).load()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            PIL.Image.new("RGB", (5 + number, 4)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    (tmp_path / "rooms").mkdir()
    table = pl.DataFrame({"area": [20.0, 30.5], "street": ["A", "B"], "rent": [300.0, 400.0], "let": [0, 1]})
    table.write_parquet(tmp_path / "rooms" / "train.parquet")
    return tmp_path / "rooms"


def test_a_folder_of_images_is_read_and_its_labels_have_names(photos: Path, load: Any, tmp_path: Path) -> None:
    data = load(photos)

    assert isinstance(data.X, Images)
    assert data.y.tolist() == ["cat"] * 3 + ["dog"] * 3
    assert [data.X.decode(row).width for row in range(3)] == [5, 6, 7]
    assert (tmp_path / "data" / "huggingface").is_dir()


def test_a_part_of_it_is_read(photos: Path, load: Any) -> None:
    assert len(load(photos, split="train[:2]").X) == 2


def test_columns_are_features(rooms: Path, load: Any) -> None:
    data = load(rooms, label_column="rent")

    assert data.X.kinds() == {"area": "number", "street": "text", "let": "number"}
    assert data.y.tolist() == [300.0, 400.0]
    assert load(rooms, label_column="let", feature_columns=["area"]).X.names == ["area"]
    assert load(rooms, label_column=["rent", "area"]).y.tolist() == [[300.0, 20.0], [400.0, 30.5]]


def test_images_in_parquet_are_read(photos: Path, load: Any, tmp_path: Path) -> None:
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted((photos / "cat").iterdir())]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"photo": pa.array(images, kind), "second": pa.array(images, kind), "price": [1.5, 2.5, 3.5]})
    features = {
        "photo": {"_type": "Image"},
        "second": {"_type": "Image"},
        "price": {"dtype": "float64", "_type": "Value"},
    }
    info = json.dumps({"info": {"features": features}})
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"huggingface": info}), tmp_path / "parquet" / "train.parquet"
    )

    data = load(tmp_path / "parquet", image_column="photo", label_column="price")

    assert [data.X.decode(row).width for row in range(3)] == [5, 6, 7]
    assert data.y.tolist() == [1.5, 2.5, 3.5]
    with pytest.raises(DataError, match=r"image_column: .* has several, 'photo', 'second'; name one"):
        load(tmp_path / "parquet", label_column="price")
    with pytest.raises(DataError, match=r"image_column: 'price' holds Value; expected images"):
        load(tmp_path / "parquet", image_column="price", label_column="price")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"label_column": "lable"},
            r"^dataset\.dataset\.label_column: there is no column 'lable'; did you mean 'label'\?",
        ),
        (
            {"image_column": "photo"},
            r"image_column: there is no column 'photo'; the columns of '.*photos' are 'image', 'label'",
        ),
        ({"feature_columns": ["size"]}, r"feature_columns: there is no column 'size'"),
        ({"split": "tset"}, r"^dataset\.dataset: '.*photos' cannot be loaded: .*tset"),
        ({"config": "other"}, r"'.*photos' cannot be loaded: .*other"),
    ],
)
def test_what_it_does_not_have_is_told_of(photos: Path, load: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(photos, **arguments)


def test_a_data_set_that_is_a_program_is_not_run(tmp_path: Path, load: Any) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "program.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(DataError, match=r"program' cannot be loaded: "):
        load(tmp_path / "program")

    assert not (tmp_path / "ran").exists()


def test_the_package_is_asked_for_where_it_is_missing(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)

    with pytest.raises(
        MissingDependencyError, match=r"needs the package datasets, .*; pip install 'gymtrain\[datasets\]'"
    ):
        load("ylecun/mnist")


def test_rows_that_name_files_elsewhere_on_this_machine_are_refused(photos: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    PIL.Image.new("RGB", (4, 4)).save(secret)
    datasets = pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": None, "path": str(secret)}], "label": [0]}
    table = pa.table({"image": pa.array(rows["image"], features["image"].pa_type), "label": rows["label"]})
    pyarrow.parquet.write_table(
        table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "set" / "train.parquet"
    )

    with pytest.raises(DataError, match=r"row 0 of '.*set' names the file '.*secret.png', which is not its own"):
        HuggingFace(str(tmp_path / "set"), image_column="image", label_column="label").load()
