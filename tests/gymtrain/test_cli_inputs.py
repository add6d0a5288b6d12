"""What somebody gives a command that it cannot take."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from typer.testing import CliRunner, Result

from gymtrain import Trainer
from gymtrain.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with bundles of models of arrays, which know their columns by position."""
    folder = tmp_path_factory.mktemp("models")
    iris = load_iris()
    datasets = {
        "iris": {"type": "iris"},
        "arrays": {"type": "arrays", "X": iris.data, "y": iris.target},
        "regression": {"type": "arrays", "X": iris.data, "y": iris.data[:, 0], "task": "regression"},
    }
    for name, dataset in datasets.items():
        trainer = Trainer(
            dataset={"dataset": dataset},
            model={"model": {"type": "linear"}, "training": {"epochs": 1}},
            tracking={"root": str(folder / "runs")},
        )
        trainer.train()
        trainer.save(folder / f"{name}.zip")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def rows(header: str) -> Path:
    """Write four columns of numbers under a first line."""
    path = Path("rows.csv")
    path.write_text(f"{header}5.1,3.5,1.4,0.2\n4.9,3.0,1.5,0.1\n")
    return path


@pytest.mark.parametrize("header", ["", "5.1,5.1,1.4,0.2\n"])
def test_a_row_is_not_taken_for_the_names_of_the_columns(header: str):
    refused = run("predict", "iris.zip", rows(header))

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "first line" in refused.stderr
    assert "numbers" in refused.stderr


@pytest.mark.parametrize("header", ["a,b,c,d\n", "0,1,2,3\n", "5.1,width,1.4,0.2\n"])
def test_names_may_be_the_numbers_that_frames_count_their_columns_by(header: str):
    assert len(run("predict", "iris.zip", rows(header)).stdout.splitlines()) == 3


def test_probabilities_of_a_regression_are_refused_in_the_words_of_the_command():
    refused = run("predict", "regression.zip", rows("a,b,c,d\n"), "--proba")

    assert refused.exit_code == 2
    assert "--proba: a regression has no probabilities; leave it out" in refused.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_rows_out_of_a_pipe_are_refused_before_they_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")

    refused = run("predict", "iris.zip", tmp_path / "pipe.csv")

    assert refused.exit_code == 2
    assert "is a pipe or a device, and the rows are read twice; write them into a file" in refused.stderr


def test_data_that_are_no_arrays_by_name_are_refused_without_advice_to_take_a_pickle():
    Path("text.csv").write_text("a,b\n1,2\n")
    Path("half.npz").write_bytes(Path("iris.zip").read_bytes()[:100])
    np.savez("objects.npz", X=np.array([{}], dtype=object), allow_pickle=True)
    np.save("one.npy", np.zeros(3))

    for name in ("text.csv", "half.npz", "objects.npz", "one.npy", "iris.zip"):
        refused = run("reproduce", "arrays.zip", "--data", name)
        assert refused.exit_code == 2
        assert f"{name} does not hold arrays by name, and no objects; write them with numpy.savez" in refused.stderr
        assert "pickle" not in refused.stderr


@pytest.mark.parametrize("place", ["s3://models/x.zip", "runs:/8f3c", "https://example.org/x.zip?key=secret"])
def test_what_is_used_where_it_lies_is_a_file_of_this_machine(place: str):
    for arguments in (("sign", place, "--key", "iris.zip"), ("reproduce", "iris.zip", "--data", place)):
        refused = run(*arguments)

        assert refused.exit_code == 2
        assert "is not on this machine; download it, and give the path of the file" in refused.stderr
        assert "secret" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", 0), "expected a value that is greater than or equal to 1"),
        (("--batch-size", "x"), "expected a value that is a valid integer"),
        (("--format", "x"), "'x' is not one of 'csv', 'parquet'."),
    ],
)
def test_an_option_is_refused_in_plain_words(options: tuple[object, ...], message: str):
    refused = run("predict", "iris.zip", rows("a,b,c,d\n"), *options)

    assert refused.exit_code == 2
    assert refused.stderr.endswith(f": {message}\n")
