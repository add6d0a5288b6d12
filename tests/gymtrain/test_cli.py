from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner, Result

from gymtrain.bundle import Contents, write
from gymtrain.cli import app
from gymtrain.data.tables import TableFile
from gymtrain.errors import InputError

CITIES = ("Porto", "Braga", "Évora")


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    code = "from gymtrain.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def modules_loaded_by(*arguments: object) -> set[str]:
    code = "import sys, gymtrain.cli\ntry: gymtrain.cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def spec_of(folder: Path, data: Path, target: str = "species") -> dict[str, Any]:
    return {
        "dataset": {"dataset": {"type": "csv", "path": str(data), "target": target}, "seed": 1},
        "model": {"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 2}},
        "tracking": {"root": str(folder / "runs"), "log_system_metrics": False},
    }


def written(path: Path, spec: dict[str, Any]) -> Path:
    path.write_text(json.dumps(spec) if path.suffix == ".json" else yaml.safe_dump(spec))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plants: an id, a number with gaps, a yes or no, two columns of text of which one looks like numbers, a class."""
    path = tmp_path_factory.mktemp("data") / "plants.csv"
    generator = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "wild", "city", "soil", "species"])
        for index in range(120):
            height = generator.normal(10 * (index % 3))
            height_text = "" if index % 10 == 9 else f"{height:.3f}"
            soil = f"{index % 2}{'a' if index < 4 else ''}"
            label = ("rose", "fern, tall", 'oak "old"')[index % 3]
            writer.writerow([height_text, "true" if index % 2 else "false", CITIES[index % 3], soil, label])
    return path


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "plants.zip"
    result = run("train", written(folder / "plants.yaml", spec_of(folder, data)), "--save", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Rows to predict: columns in another order, an id that looks like a number, the target among them."""
    path = tmp_path / "questions.csv"
    path.write_text(
        "id,soil,species,city,height,wild\n007,0,rose,Porto,0.5,true\n008,1,oak,Braga,,false\n009,1,,\u00c9vora,21.5,true\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_mlflow_nor_numpy_nor_rich(arguments: list[str]) -> None:
    assert modules_loaded_by(*arguments).isdisjoint({"torch", "mlflow", "numpy", "pyarrow", "rich"})


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["--version"]])
def test_the_package_is_the_command_line_too_and_helps_without_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "gymtrain", *arguments]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout.startswith(("Usage: python -m gymtrain", "gymtrain "))
    assert "gymtrain.cli" in loaded
    assert loaded.isdisjoint({"torch", "mlflow", "numpy", "pyarrow", "rich"})


def test_version_is_that_of_the_package() -> None:
    import gymtrain

    assert run("--version").output == f"gymtrain {gymtrain.__version__}\n"


def test_validate_says_ok_with_the_hash_and_loads_no_torch(data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / "good.yaml", spec_of(tmp_path, data))

    result = run("validate", spec)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{spec}: OK ")
    assert len(result.stdout.split()[-1]) == 64
    assert modules_loaded_by("validate", spec).isdisjoint({"torch", "mlflow"})


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_resolved_spec_has_every_default_and_the_same_hash(suffix: str, data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / f"spec{suffix}", spec_of(tmp_path, data))

    resolved = run("validate", "--resolved", spec).stdout

    again = tmp_path / f"again{suffix}"
    again.write_text(resolved)
    assert yaml.safe_load(resolved)["model"]["training"]["batch_size"] == 32
    assert run("validate", again).stdout.split()[-1] == run("validate", spec).stdout.split()[-1]


def test_validate_reports_the_faults_of_every_file_on_stderr(data: Path, tmp_path: Path) -> None:
    bad = spec_of(tmp_path, data)
    bad["model"]["training"] = {"batch_sise": 3, "epochs": 0}
    paths = [written(tmp_path / "bad.json", bad), written(tmp_path / "good.yaml", spec_of(tmp_path, data))]

    result = run("validate", *paths)

    assert result.exit_code == 2
    assert "model.training.batch_sise: unknown key; did you mean 'batch_size'?" in result.stderr
    assert "model.training.epochs: got 0" in result.stderr
    assert "good.yaml: OK" in result.stdout


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe\x00", "is no text"), (b"1: 2\n", "1: unknown key")])
def test_what_is_no_spec_is_refused_in_words(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)

    for command in ("validate", "train"):
        result = run(command, path)
        assert result.exit_code == 2
        assert message in result.stderr


def test_schema_prints_a_json_schema() -> None:
    assert sorted(json.loads(run("schema").stdout)["properties"]) == ["dataset", "model", "tracking"]


def test_train_shows_the_metrics_and_where_the_run_is(data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / "spec.json", spec_of(tmp_path, data))

    result = run("train", spec, "--root", tmp_path / "elsewhere")

    assert result.exit_code == 0
    assert "accuracy" in result.stdout
    assert str(tmp_path / "elsewhere" / "csv") in result.stdout
    assert not (tmp_path / "runs").exists()


def test_train_prints_the_result_as_json_and_nothing_else(data: Path, tmp_path: Path) -> None:
    result = run("train", written(tmp_path / "spec.yaml", spec_of(tmp_path, data)), "--json")

    content = json.loads(result.stdout)
    assert content["status"] == "FINISHED"
    assert len(content["metrics"]["train/loss"]) == 2


@pytest.mark.parametrize("place", ["nowhere/model.zip", "."])
def test_train_refuses_a_place_that_cannot_be_written_before_it_trains(place: str, data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / "spec.yaml", spec_of(tmp_path, data))

    result = run("train", spec, "--save", tmp_path / place)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {(tmp_path / place).parent if 'nowhere' in place else tmp_path}: ")
    assert not (tmp_path / "runs").exists()


def test_a_training_that_fails_ends_with_1_and_a_reason(data: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data)
    spec["model"]["training"] |= {"optimizer": {"type": "SGD", "lr": 1e30}, "epochs": 50}

    result = run("train", written(tmp_path / "spec.yaml", spec))

    assert result.exit_code == 1
    assert "the loss became" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_target_ends_with_2(data: Path, tmp_path: Path) -> None:
    result = run("train", written(tmp_path / "spec.yaml", spec_of(tmp_path, data, target="specis")))

    assert result.exit_code == 2
    assert "did you mean 'species'?" in result.stderr


def test_gymtrain_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    spec = written(tmp_path / "spec.yaml", {"dataset": {}})

    assert type(run("train", spec, env={"GYMTRAIN_DEBUG": "1"}).exception).__name__ == "SpecError"
    assert type(run("train", spec).exception) is SystemExit


def test_predict_gives_the_labels_with_the_id_as_it_was(bundle: Path, questions: Path) -> None:
    from gymtrain import Trainer

    result = run("predict", bundle, questions, "--id", "id")

    rows = [
        {"height": 0.5, "wild": True, "city": "Porto", "soil": "0"},
        {"height": None, "wild": False, "city": "Braga", "soil": "1"},
        {"height": 21.5, "wild": True, "city": "Évora", "soil": "1"},
    ]
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [row["id"] for row in rows_of(result.stdout)] == ["007", "008", "009"]
    assert [row["prediction"] for row in rows_of(result.stdout)] == Trainer.load(bundle).predict(rows).tolist()


def test_predict_gives_a_column_of_probabilities_for_each_class(bundle: Path, questions: Path) -> None:
    rows = rows_of(run("predict", bundle, questions, "--proba").stdout)

    assert list(rows[0]) == ["prediction", "proba_fern, tall", 'proba_oak "old"', "proba_rose"]
    for row in rows:
        label = row.pop("prediction")
        probabilities = {name: float(value) for name, value in row.items()}
        assert sum(probabilities.values()) == pytest.approx(1.0)
        assert max(probabilities, key=probabilities.__getitem__) == f"proba_{label}"


def test_predict_gives_the_same_labels_with_and_without_probabilities(bundle: Path, data: Path) -> None:
    alone = rows_of(run("predict", bundle, data).stdout)
    beside = rows_of(run("predict", bundle, data, "--proba").stdout)

    assert len(alone) == 120
    assert [row["prediction"] for row in beside] == [row["prediction"] for row in alone]


def test_a_multilabel_task_has_an_answer_and_a_probability_for_each_label(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x,low,even\n" + "".join(f"{index},{int(index < 25)},{1 - index % 2}\n" for index in range(50)))
    spec = spec_of(tmp_path, data)
    spec["dataset"]["dataset"] |= {"target": ["low", "even"], "task": "multilabel"}
    trained = run("train", written(tmp_path / "spec.yaml", spec), "--save", tmp_path / "model.zip")

    rows = rows_of(run("predict", tmp_path / "model.zip", data, "--proba").stdout)

    assert trained.exit_code == 0, trained.output
    assert list(rows[0]) == ["prediction_low", "prediction_even", "proba_low", "proba_even"]
    for row in rows:
        for label in ("low", "even"):
            assert row[f"prediction_{label}"] == str(int(float(row[f"proba_{label}"]) >= 0.5))


def test_predict_gives_the_same_for_parquet_and_whatever_the_batch_size(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    with data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in ("city", "soil")}
    columns["height"] = [float(row["height"]) if row["height"] else None for row in rows]
    columns["wild"] = [row["wild"] == "true" for row in rows]
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "plants.parquet")

    whole = run("predict", bundle, data, "--proba")
    assert len(rows_of(whole.stdout)) == 120
    labels = [row["prediction"] for row in rows_of(whole.stdout)]
    for result in (
        run("predict", bundle, tmp_path / "plants.parquet", "--batch-size", 7),
        run("predict", bundle, data, "--batch-size", 1),
    ):
        assert [row["prediction"] for row in rows_of(result.stdout)] == labels


def test_predict_of_no_rows_is_a_header(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.txt"
    path.write_text("height,wild,city,soil\n")

    result = run("predict", bundle, path, "--format", "csv", "--proba")

    assert result.stdout == 'prediction,"proba_fern, tall","proba_oak ""old""",proba_rose\n'


def test_predict_writes_a_file_whole_or_not_at_all(bundle: Path, questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    good = run("predict", bundle, questions, "--output", output)
    before = output.read_text()
    questions.write_text(questions.read_text() + "010,0,rose,Porto,tall,true\n")

    bad = run("predict", bundle, questions, "--output", output, "--batch-size", 1)

    assert (good.exit_code, good.stdout, len(rows_of(before))) == (0, "", 3)
    assert bad.exit_code == 2
    assert "column 'height' held numbers in training" in bad.stderr
    assert "'tall'" in bad.stderr
    assert output.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "questions.csv"]


@pytest.mark.parametrize("replaced", ["questions.csv", "plants.zip"])
@pytest.mark.parametrize("reached", ["by its name", "by a roundabout way", "by a link"])
def test_predict_refuses_to_write_over_what_it_reads(
    replaced: str, reached: str, bundle: Path, questions: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "plants.zip"
    copy.write_bytes(bundle.read_bytes())
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / replaced)
    ways = {"by its name": tmp_path / replaced, "by a link": link}
    output = ways.get(reached, tmp_path / "folder" / ".." / replaced)
    before = (tmp_path / replaced).read_bytes()

    result = run("predict", copy, questions, "--output", output)

    assert result.exit_code == 2
    expected = f"Error: {output}: Would replace {tmp_path / replaced}, which is read; name another file\n"
    assert result.stderr == expected
    assert (tmp_path / replaced).read_bytes() == before


def test_train_refuses_to_save_over_its_spec(data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / "spec.yaml", spec_of(tmp_path, data))
    before = spec.read_text()

    result = run("train", spec, "--save", spec)

    assert result.exit_code == 2
    assert f"Would replace {spec}, which is read" in result.stderr
    assert spec.read_text() == before
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["answers.parquet", "answers.PQ"])
def test_predict_writes_no_csv_under_the_name_of_another_format(
    name: str, bundle: Path, questions: Path, tmp_path: Path
) -> None:
    result = run("predict", bundle, questions, "--output", tmp_path / name)

    assert result.exit_code == 2
    assert result.stderr == f"Error: {tmp_path / name}: The output is CSV; name it .csv\n"
    assert not (tmp_path / name).exists()


def test_predict_names_the_column_that_is_missing(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("height,wild,citty,soil\n1,true,Porto,0\n")

    result = run("predict", bundle, path)

    assert result.exit_code == 2
    assert "no column 'city'" in result.stderr
    assert "did you mean 'citty'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id", "nr"], "has no column 'nr', which --id names"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["--output", "/nowhere/answers.csv"], "/nowhere: No such directory"),
    ],
)
def test_predict_refuses_wrong_options(bundle: Path, questions: Path, arguments: list[str], message: str) -> None:
    result = run("predict", bundle, questions, *arguments)

    assert result.exit_code == 2
    assert message in result.stderr


def test_predict_asks_for_the_format_of_a_file_whose_name_does_not_tell(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.dat"
    path.touch()

    assert "--format csv or --format parquet" in run("predict", bundle, path).stderr


def test_what_is_no_bundle_is_refused_in_one_message(questions: Path) -> None:
    for command in (["predict", questions, questions], ["inspect", questions]):
        result = run(*command)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"Error: {questions}")


def test_a_model_of_arrays_takes_columns_by_position(tmp_path: Path) -> None:
    spec = {
        "dataset": {"dataset": {"type": "digits", "images": True}, "samples": {"train": 300, "test": 50}},
        "model": {"model": {"type": "cnn", "channels": [4], "hidden": []}, "training": {"epochs": 1}},
        "tracking": {"root": str(tmp_path / "runs"), "log_system_metrics": False},
    }
    run("train", written(tmp_path / "digits.yaml", spec), "--save", tmp_path / "digits.zip")
    header = ",".join(f"pixel{index}" for index in range(64))
    (tmp_path / "images.csv").write_text(f"{header}\n" + ",".join(["0.5"] * 64) + "\n")
    (tmp_path / "short.csv").write_text("a,b\n1,2\n")

    result = run("predict", tmp_path / "digits.zip", tmp_path / "images.csv")
    short = run("predict", tmp_path / "digits.zip", tmp_path / "short.csv", "--id", "a")

    assert rows_of(result.stdout)[0]["prediction"] in set("0123456789")
    assert "has 1 columns beside 'a'; the model was trained on rows of shape (8, 8), so expected 64" in short.stderr


def test_a_regression_has_a_column_for_each_output_and_no_probabilities(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x,low,high\n" + "".join(f"{index},{index / 2},{index * 2.5}\n" for index in range(50)))
    spec = spec_of(tmp_path, data)
    spec["dataset"]["dataset"]["target"] = ["low", "high"]
    trained = run("train", written(tmp_path / "spec.yaml", spec), "--save", tmp_path / "model.zip")

    result = run("predict", tmp_path / "model.zip", data)
    refused = run("predict", tmp_path / "model.zip", data, "--proba")

    assert trained.exit_code == 0
    assert result.stdout.partition("\n")[0] == "prediction_low,prediction_high"
    assert refused.exit_code == 2
    assert "regression" in refused.stderr


def test_inspect_shows_what_a_bundle_is_without_torch(bundle: Path) -> None:
    result = run("inspect", bundle)

    assert result.exit_code == 0
    for expected in ("multiclass", "'rose'", "height (number)", "hidden=[8]", "weights.safetensors", "accuracy"):
        assert expected in result.stdout
    assert modules_loaded_by("inspect", bundle).isdisjoint({"torch", "mlflow"})


def test_inspect_prints_json(bundle: Path) -> None:
    content = json.loads(run("inspect", bundle, "--json").stdout)

    assert sorted(content) == ["manifest", "readme", "results", "schema", "signature", "sources", "spec", "storage"]


def test_a_bundle_that_no_trainer_wrote_is_refused_in_words(tmp_path: Path) -> None:
    contents = Contents(
        spec={},
        schema={},
        results={},
        selfcheck={},
        readme="# odd",
        which_weights="last",
        versions={},
        created="2027-01-01T00:00:00+00:00",
        weights={},
    )
    write(tmp_path / "odd.zip", contents)

    result = run("inspect", tmp_path / "odd.zip")

    assert result.exit_code == 2
    assert "the members do not fit together: KeyError: 'features'" in result.stderr
    assert run("inspect", tmp_path / "odd.zip", "--json").exit_code == 0


def test_a_class_of_the_working_directory_trains_and_predicts_where_it_is_trusted(
    data: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plant_networks.py").write_text(
        "from torch import nn\n\n"
        "def narrow(*, input_shape: tuple[int, ...], output_size: int) -> nn.Module:\n"
        "    return nn.Linear(input_shape[0], output_size)\n"
    )
    spec = spec_of(tmp_path, data)
    spec["model"]["model"] = {"type": "plant_networks:narrow"}
    monkeypatch.chdir(tmp_path)

    trained = run("train", written(tmp_path / "spec.yaml", spec), "--save", "plants.zip")
    refused = run("predict", "plants.zip", questions)
    trusted = run("predict", "plants.zip", questions, "--trust", "plant_networks:narrow")

    assert (trained.exit_code, refused.exit_code, trusted.exit_code) == (0, 2, 0), trained.output + trusted.output
    assert "plant_networks:narrow" in refused.stderr
    assert len(rows_of(trusted.stdout)) == 3


def test_a_table_file_is_read_in_chunks_as_the_columns_were_in_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,a,b,c\n01,1,NA,true\n02, 2.5 ,"x\ny",false\n03,nan,12,1\n')
    table = TableFile(path, "csv")

    chunks = list(table.chunks({"a": "number", "b": "text", "c": "number", "id": "text"}, "id", 2))

    assert [len(chunk.features) for chunk in chunks] == [2, 1]
    assert [chunk.ids for chunk in chunks] == [["01", "02"], ["03"]]
    np.testing.assert_array_equal(chunks[0].features.columns["a"], [1.0, 2.5])
    np.testing.assert_array_equal(chunks[1].features.columns["a"], [np.nan])
    assert chunks[0].features.columns["b"].tolist() == [None, "x\ny"]
    assert chunks[1].features.columns["b"].tolist() == ["12"]
    assert chunks[0].features.columns["c"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "rows.csv is not a csv file that can be read: Empty CSV file"),
        (b"a,b\n1\n", r"rows.csv is not a csv file that can be read: .*Expected 2 columns, got 1"),
        (b"a,a\n1,2\n", r"rows.csv has more than one column named 'a'; rename them"),
    ],
)
def test_a_broken_table_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)

    with pytest.raises(InputError, match=message):
        list(TableFile(path, "csv").chunks({"a": "number"}, None, 10))


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(bundle: Path, data: Path, tmp_path: Path) -> None:
    rows = data.read_text(encoding="utf-8").splitlines()
    many = tmp_path / "many.csv"
    many.write_text("\n".join([rows[0], *(rows[1:] * 100)]) + "\n", encoding="utf-8")

    with start("predict", bundle, many, "--proba") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        messages = process.stderr.read()

    assert process.returncode == 141
    assert messages == ""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_ctrl_c_ends_a_training_with_130_and_one_line(data: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data)
    spec["model"]["training"]["epochs"] = 1_000_000
    path = written(tmp_path / "spec.yaml", spec)

    with start("train", path) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "runs").glob("csv/*/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=60)

    assert process.returncode == 130
    assert output == ""
    assert messages.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in messages


def test_estimate_shows_what_a_prediction_costs(bundle: Path) -> None:
    shown = run("estimate", bundle, "--repetitions", "5")
    printed = run("estimate", bundle, "--repetitions", "5", "--json")

    assert shown.exit_code == printed.exit_code == 0
    assert "trainable" in shown.output
    assert json.loads(printed.stdout)["parameters"]["total"] > 0


def test_estimate_refuses_a_number_of_repetitions_below_one(bundle: Path) -> None:
    assert run("estimate", bundle, "--repetitions", "0").exit_code == 2


def test_find_lr_shows_a_suggestion_and_the_curve(data: Path, tmp_path: Path) -> None:
    spec = written(tmp_path / "spec.yaml", spec_of(tmp_path, data))

    shown = run("find-lr", spec, "--steps", "40", "--maximum", "1")
    printed = run("find-lr", spec, "--steps", "40", "--maximum", "1", "--root", tmp_path / "elsewhere", "--json")

    assert shown.exit_code == printed.exit_code == 0, shown.output
    found = json.loads(printed.stdout)
    assert f"suggestion  {found['lr']:.2g}" in shown.stdout
    assert "smoothed loss" in shown.stdout
    assert found["curve"]["lr"][0] == 1e-7
    assert Path(found["run"]["run_dir"]).is_relative_to(tmp_path / "elsewhere")


@pytest.mark.parametrize("arguments", [("--steps", "9"), ("--minimum", "1", "--maximum", "0.1")])
def test_find_lr_refuses_a_range_that_is_none(arguments: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    assert run("find-lr", written(tmp_path / "spec.yaml", spec_of(tmp_path, data)), *arguments).exit_code == 2


def test_train_tries_everything_for_one_step(data: Path, tmp_path: Path) -> None:
    done = run("train", written(tmp_path / "spec.yaml", spec_of(tmp_path, data)), "--fast-dev-run")

    assert done.exit_code == 0, done.output
    assert "FINISHED, fast_dev_run" in done.stdout


def test_train_tries_to_learn_a_few_batches_by_heart(data: Path, tmp_path: Path) -> None:
    done = run("train", written(tmp_path / "spec.yaml", spec_of(tmp_path, data)), "--overfit-batches", "1", "--json")

    assert done.exit_code == 0, done.output
    assert "test/loss" not in json.loads(done.stdout)["metrics"]


@pytest.mark.parametrize("option", [("--fast-dev-run",), ("--overfit-batches", "1")])
def test_train_has_no_model_to_save_of_what_only_tries_something(
    option: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    spec = written(tmp_path / "spec.yaml", spec_of(tmp_path, data))

    done = run("train", spec, *option, "--save", tmp_path / "model.zip")

    assert done.exit_code == 2
    assert "leave no model to write" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_train_goes_on_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data)
    spec["model"]["training"] = {"epochs": 2, "checkpoint": {}}
    assert run("train", written(tmp_path / "spec.json", spec)).exit_code == 0
    spec["model"]["training"]["epochs"] = 3

    result = run("train", written(tmp_path / "spec.json", spec), "--resume", "auto", "--json")

    told = json.loads(result.stdout)
    assert "epoch-000002" in told["resumed_from"]
    assert len(told["metrics"]["train/loss"]) == 3
