"""`gymtrain predict` for images: what is printed, written, left out and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_images import drawn
from typer.testing import CliRunner, Result

from gymtrain import Trainer
from gymtrain.cli import app


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], input=stdin)


@pytest.fixture(scope="module")
def circles(shapes: Path) -> list[Path]:
    return sorted((shapes / "circle").iterdir())


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"not a photo")
    return path


def test_a_line_for_each_image_has_its_path_label_and_probability(shape_bundle: Path, circles: list[Path]) -> None:
    trainer = Trainer.load(shape_bundle)

    result = run(shape_bundle, *circles)

    assert result.exit_code == 0
    lines = [line.rsplit(maxsplit=2) for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in circles]
    assert [line[1] for line in lines] == trainer.predict(circles).tolist()
    assert [line[2] for line in lines] == [f"{best:.4f}" for best in trainer.predict_proba(circles).max(axis=1)]


def test_a_folder_and_paths_on_stdin_are_the_same_as_their_files(shape_bundle: Path, circles: list[Path]) -> None:
    expected = run(shape_bundle, *circles, "--top", 2)

    assert len(expected.stdout.splitlines()[0].rsplit(maxsplit=4)) == 5
    assert run(shape_bundle, circles[0].parent, "--top", 2).stdout == expected.stdout
    assert run(shape_bundle, "-", "--top", 2, stdin="\n".join(map(str, circles)).encode()).stdout == expected.stdout
    assert run(shape_bundle, *circles, "--proba").stdout == expected.stdout
    assert run(shape_bundle, "-", stdin=b"").stdout == ""


def test_csv_has_the_path_first_and_all_probabilities_on_request(
    shape_bundle: Path, circles: list[Path], tmp_path: Path
) -> None:
    trainer = Trainer.load(shape_bundle)

    printed = run(shape_bundle, *circles, "--csv")
    written = run(shape_bundle, *circles, "--proba", "--output", tmp_path / "labels.csv")

    assert printed.exit_code == written.exit_code == 0
    assert printed.stdout.splitlines()[0] == "path,prediction"
    assert written.stdout == ""
    rows = list(csv.DictReader((tmp_path / "labels.csv").read_text().splitlines()))
    assert list(rows[0]) == ["path", "prediction", "proba_circle", "proba_square"]
    assert [row["path"] for row in rows] == [str(path) for path in circles]
    probabilities = np.array([[row["proba_circle"], row["proba_square"]] for row in rows], np.float32)
    np.testing.assert_array_equal(probabilities, trainer.predict_proba(circles))


def test_json_has_the_best_first(shape_bundle: Path, circles: list[Path], tmp_path: Path) -> None:
    found = json.loads(run(shape_bundle, *circles[:3], "--json").stdout)
    run(shape_bundle, *circles[:3], "--json", "--top", 1, "--output", tmp_path / "labels.json")

    assert [each["path"] for each in found] == [str(path) for path in circles[:3]]
    for each in found:
        values = list(each["probabilities"].values())
        assert values == sorted(values, reverse=True)
        assert each["prediction"] == next(iter(each["probabilities"]))
    best = json.loads((tmp_path / "labels.json").read_text())
    assert [list(each["probabilities"]) for each in best] == [[each["prediction"]] for each in found]
    assert run(shape_bundle, "-", "--json", stdin=b"").stdout == "[]\n"


def test_what_cannot_be_used_is_named_and_left_out_and_the_rest_is_predicted(
    shape_bundle: Path, circles: list[Path], broken: Path, tmp_path: Path
) -> None:
    given = [circles[0], broken, "nowhere.jpg", circles[1], "http://a.example/x.jpg"]

    result = run(shape_bundle, *given, "--csv")
    written = run(shape_bundle, *given, "--output", tmp_path / "labels.csv")

    assert result.exit_code == written.exit_code == 1
    assert result.stdout == run(shape_bundle, *circles[:2], "--csv").stdout == (tmp_path / "labels.csv").read_text()
    assert result.stderr.splitlines() == [
        f"'{broken}': is no image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF)",
        "'nowhere.jpg': there is no such file",
        "got the address 'http://a.example/x.jpg'; download it first, and give the path of the file, or its bytes",
        "Images left out: 3.",
    ]


def test_what_cannot_be_used_ends_it_where_that_is_asked_for(
    shape_bundle: Path, circles: list[Path], broken: Path, tmp_path: Path
) -> None:
    place = tmp_path / "labels.csv"

    result = run(shape_bundle, circles[0], broken, "--on-bad-sample", "raise", "--output", place)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: '{broken}': is no image of a known format")
    assert not place.exists()


def test_names_that_are_no_text_come_out_as_they_came_in(
    shape_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "caf\udce9 \x1b[2J.png"
    drawn("circle", 1).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    assert run(shape_bundle, name, "--csv").stdout_bytes.splitlines()[1].startswith(b"caf\xe9 \x1b[2J.png,")
    assert run(shape_bundle, "-", stdin=b"caf\xe9 \x1b[2J.png").stdout_bytes.startswith(rb"caf\udce9 \x1b[2J.png  ")
    assert json.loads(run(shape_bundle, name, "--json").stdout)[0]["path"] == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--id", "name"), "--id: it is for a table and not for images; leave it out"),
        (("--top", "2", "--csv"), "--top: it is for --json and what people read"),
        (("--csv", "--json"), "give one of --csv and --json"),
        (("--top", "0"), "--top"),
        (("--on-bad-sample", "ignore"), "'ignore' is not one of"),
    ],
)
def test_options_that_mean_nothing_for_images_are_refused(
    shape_bundle: Path, circles: list[Path], options: tuple[str, ...], message: str
) -> None:
    result = run(shape_bundle, circles[0], *options)

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_table_is_no_image_and_an_output_never_replaces_an_image(
    shape_bundle: Path, circles: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")

    table = run(shape_bundle, tmp_path / "rows.csv")
    replaced = run(shape_bundle, circles[0], circles[1], "--output", circles[1])
    nothing = run(shape_bundle, tmp_path)

    assert "the model was trained on images; give images and no table" in table.stderr
    assert f"Would replace {circles[1]}" in replaced.stderr
    assert f"'{tmp_path}' holds no image" in nothing.stderr
    assert {table.exit_code, replaced.exit_code, nothing.exit_code} == {2}


def test_a_model_of_rows_takes_no_images(circles: list[Path], tmp_path: Path, tiny) -> None:  # type: ignore[no-untyped-def]
    trainer = tiny()
    trainer.train()
    trainer.save(tmp_path / "iris.zip")

    several = run(tmp_path / "iris.zip", *circles[:2])
    one = run(tmp_path / "iris.zip", circles[0])
    top = run(tmp_path / "iris.zip", __file__, "--format", "csv", "--top", "2")

    assert "the model was trained on rows; give one table" in several.stderr
    assert "ends in neither .csv, .parquet, .pq; say --format csv" in one.stderr
    assert top.exit_code == 2


def test_inspect_says_what_the_model_takes(shape_bundle: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(shape_bundle)]).stdout

    assert "images of any size, up to 80,000,000 pixels" in shown
    assert 'X = ["photo.jpg"]' in shown
    assert "$ gymtrain predict model.zip photo.jpg folder/" in shown
