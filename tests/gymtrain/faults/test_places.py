"""Where things are written: temporary directories, names of every kind, directories that go away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_injection import Interposer, Operation, names_below
from faulty_training import AtEpoch, all_warnings, checkpoints, epochs_of, make_trainer, outcome, wait_for_checkpoints

from gymtrain import Trainer, inspect

pytestmark = pytest.mark.usefixtures("one_thread")

Mount = Callable[[str], Path]


@pytest.mark.parametrize("kind", ["missing", "of another file system", "full"])
def test_the_directory_for_temporary_files_has_no_effect(
    kind: str, disk: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_trainer(tmp_path / "before", epochs=1).train()  # libraries look for the directory when they are imported
    place = tmp_path / "missing" if kind == "missing" else disk("size=4k")
    if kind == "full":
        (place / "ballast").write_bytes(bytes(4096))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    touched: list[Operation] = []
    elsewhere = Interposer(lambda path: path.startswith(str(place)), lambda _, operation: touched.append(operation))

    with elsewhere:
        trainer = make_trainer(tmp_path / "runs", epochs=2)
        trainer.train()
        trainer.save(tmp_path / "model.zip")
        resumed = make_trainer(tmp_path / "runs", epochs=2)
        resumed.train(resume="auto")

    assert touched == []
    assert outcome(resumed) == outcome(trainer) == outcome_of_loaded(trainer, tmp_path / "model.zip")


def outcome_of_loaded(trainer: Trainer, path: Path) -> tuple[Any, ...]:
    return outcome(Trainer.load(path))


NAMES = [
    "with space",
    " space at both ends ",
    "new\nline",
    "per%20cent %s %d",
    'quote\'s "and" `more`',
    "[a-z]*?{b}",
    "$HOME;&|<>",
    "#fragment?query=1",
    "-rf",
    "~",
    ".hidden",
    "dot.",
    "back\\slash",
    "größe 大きさ 🌳",
    "e\u0301",
    "\u202eltr",
    "x" * 255,
    "é" * 127,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_kind_is_written_to_resumed_from_and_read(name: str, tmp_path: Path):
    try:
        (tmp_path / name).mkdir()
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    root = tmp_path / name / "runs"
    make_trainer(root, epochs=1).train()

    trainer = make_trainer(root, epochs=2)
    result = trainer.train(resume="auto")
    trainer.save(tmp_path / name / name)

    assert Path(result["resumed_from"]).is_relative_to(root)
    assert (Path(result["run"]["run_dir"]) / "result.json").is_file()
    assert inspect(tmp_path / name / name)["manifest"]["weights"] == "best"
    assert outcome(Trainer.load(tmp_path / name / name)) == outcome(trainer)
    assert names_below(tmp_path, ".gymtrain*") == []


def test_a_bundle_has_a_name_that_is_not_utf_8(tmp_path: Path, iris_trainer: Trainer):
    path = tmp_path / os.fsdecode(b"not \xff UTF-8")

    iris_trainer.save(path)

    assert outcome(Trainer.load(path)) == outcome(iris_trainer)


@pytest.mark.parametrize("name", ["x" * 200, "木" * 66, "nul", "a:b", "~", "-rf", "100 %"])
def test_a_name_of_any_kind_is_given_to_a_run(name: str, tmp_path: Path):
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={"model": "linear", "training": {"epochs": 1, "checkpoint": {}}},
        tracking={"root": str(tmp_path / "runs"), "experiment": name, "run_name": name},
    )

    run = trainer.train()["run"]

    assert Path(run["run_dir"]).parent.parent == tmp_path / "runs"
    assert (run["name"], run["experiment"]) == (name, name)
    wait_for_checkpoints(tmp_path / "runs", 1)
    assert os.listdir(tmp_path) == ["runs"]


def test_a_relative_root_stays_where_it_was_when_the_directory_is_changed(tmp_path, monkeypatch, whole):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trainer = make_trainer("runs", epochs=4)

    result = trainer.train([AtEpoch(2, lambda: os.chdir(tmp_path / "there"))])
    os.chdir(tmp_path / "here")
    again = make_trainer("runs", epochs=4)
    again.train(resume="auto")

    assert os.listdir(tmp_path / "there") == []
    assert epochs_of(checkpoints(tmp_path / "here" / "runs"))[:2] == [3, 4]
    assert Path(result["run"]["run_dir"]).is_relative_to(tmp_path / "here" / "runs")
    assert outcome(again) == outcome(trainer) == whole


def test_a_run_whose_directory_is_deleted_goes_on_and_makes_it_anew(tmp_path: Path, whole):
    trainer = make_trainer(tmp_path, epochs=4)

    def delete() -> None:
        (directory,) = {path.parent.parent for path in wait_for_checkpoints(tmp_path)}
        shutil.rmtree(directory)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the journal, on systems that tell
        trainer.train([AtEpoch(2, delete)])

    assert epochs_of(wait_for_checkpoints(tmp_path, 2)) == [3, 4]
    assert (Path(trainer.result["run"]["run_dir"]) / "result.json").is_file()
    assert outcome(trainer) == whole


def test_a_run_whose_directory_is_replaced_by_a_file_warns_and_keeps_the_model(tmp_path: Path, whole):
    trainer = make_trainer(tmp_path, epochs=4)

    def replace() -> None:
        (directory,) = {path.parent.parent for path in wait_for_checkpoints(tmp_path)}
        shutil.rmtree(directory)
        directory.touch()

    with all_warnings() as told:
        trainer.train([AtEpoch(2, replace)])

    assert any(re.search(r"checkpoint .*: .*(File exists|Not a directory)", message) for message in told)
    assert outcome(trainer) == whole
    trainer.save(tmp_path / "model.zip")
    assert outcome(Trainer.load(tmp_path / "model.zip")) == whole
