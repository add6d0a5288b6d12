from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_forge import make_contents
from typer.testing import CliRunner

from gymtrain import Trainer
from gymtrain.bundle import write
from gymtrain.cli import app

COMMAND = f"{sys.executable} -m gymtrain"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the shell is that of Unix")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the bundle of a trained model and rows to predict."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = Trainer(
        dataset={"dataset": {"type": "iris"}},
        model={"model": {"type": "linear"}, "training": {"epochs": 1}},
        tracking={"root": str(folder / "runs")},
    )
    trainer.train()
    trainer.save(folder / "iris.zip")
    (folder / "rows.csv").write_text("a,b,c,d\n5.1,3.5,1.4,0.2\n")
    return folder


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """Run a line of the shell; return its exit code, and what came out of it."""
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("gymtrain ", f"{COMMAND} ")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # The reader is gone before anything is written: `head` might take all of a small output.
        ("gymtrain inspect iris.zip | exec 0<&-", (141, "", "")),
        ("gymtrain inspect iris.zip >&-", (0, "", "")),
        ("gymtrain inspect missing.zip >&- 2>&-", (2, "", "")),
        ("gymtrain inspect iris.zip > /dev/full", (2, "", "Error: standard output: No space left on device\n")),
        (
            "gymtrain keygen key > /dev/full",
            (2, "", "Error: standard output: No space left on device; key and key.pub are written\n"),
        ),
    ],
)
def test_an_output_that_takes_nothing_is_told_of_in_a_line(line: str, expected: tuple[int, str, str], trained: Path):
    assert shell(line, trained) == expected


@pytest.mark.slow
def test_predictions_that_nobody_takes_are_an_error(trained: Path):
    closed = "Error: standard output: It is closed; name a file with --output\n"

    assert shell("gymtrain predict iris.zip rows.csv >&-", trained) == (2, "", closed)


def run(*arguments: object) -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, list(map(str, arguments)))
    return ended.exit_code, ended.stdout, ended.stderr


def test_a_dash_is_the_terminal_for_predictions_and_no_file(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(trained)

    code, predictions, _ = run("predict", "iris.zip", "rows.csv", "--output", "-")
    refused, _, message = run("reproduce", "iris.zip", "--keep", "-")

    assert (code, predictions.splitlines()[0]) == (0, "prediction")
    assert (refused, message) == (
        2,
        "Error: -: Nothing but predictions goes to the terminal; name a file, ./- for this one\n",
    )
    assert not Path("-").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "iris.zip", "rows.csv", "--output", ""),
        ("export", "iris.zip", "--hub", ""),
        ("keygen", ""),
        ("train", "rows.csv", "--root", ""),
        ("runs", ""),
        ("ui", ""),
        ("sync", ""),
        ("doctor", ""),
    ],
)
def test_an_empty_path_is_not_the_directory_here(
    arguments: tuple[str, ...], trained: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(trained)

    code, _, message = run(*arguments)

    assert code == 2
    assert "got an empty path" in message


def test_an_export_speaks_of_the_file_that_was_given(tmp_path: Path):
    (tmp_path / "none.zip").write_text("nothing")
    write(tmp_path / "any.zip", make_contents())

    _, _, of_the_file = run("export", tmp_path / "none.zip", "--hub", tmp_path / "two words")
    _, _, of_its_content = run("export", tmp_path / "any.zip", "--hub", tmp_path / "two words")

    assert of_the_file == f"Error: {tmp_path / 'none.zip'} is not a zip file with members\n"
    assert ".gymtrain" not in of_its_content


def test_the_command_that_an_export_gives_can_be_copied(trained: Path, tmp_path: Path):
    _, told, _ = run("export", trained / "iris.zip", "--hub", tmp_path / "two words")

    assert told.endswith(f"hf upload ORGANIZATION/NAME '{tmp_path / 'two words'}'\n")
