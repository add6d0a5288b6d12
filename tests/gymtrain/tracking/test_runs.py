from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gymtrain
from gymtrain import StoreError
from gymtrain.tracking import bundled_run, find_run, read_runs, run_in, runs_in, runs_of
from gymtrain_trackers import Recorder, Run

DIES = """
import os, signal, sys
from gymtrain import Callback, Trainer

class Dies(Callback):
    def on_epoch_end(self, state):
        if state.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

Trainer(
    dataset={"dataset": {"type": "iris"}},
    model={"model": {"type": "linear"}, "training": {"epochs": 9}},
    tracking={"root": sys.argv[1], "log_system_metrics": False},
).train([Dies()])
"""


def uri_of(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def test_the_runs_of_a_directory_are_read_the_newest_first(widths: Path) -> None:
    newest, oldest = runs_in(widths)

    assert (newest.name, oldest.name) == ("width 8", "width 4")
    assert (newest.experiment, newest.status, newest.epochs) == ("widths", "FINISHED", 3)
    assert (newest.monitor, newest.mode) == ("val/loss", "min")
    assert newest.directions["loss"] == "min"
    assert newest.directions["accuracy"] == "max"
    assert newest.params["model/hidden"] == "[8]"
    assert newest.tags["team"] == "flowers"
    assert {part: rows.rows for part, rows in newest.data.items()} == {"train": 90, "val": 30, "test": 30}
    assert 0 < newest.duration < 600
    assert newest.environment.keys() >= {"torch", "numpy", "python", "cpu", "host", "device"}
    assert newest.directory.name.endswith(newest.id[:8])


def test_mlflow_tells_the_same_of_a_run_as_its_directory(widths: Path) -> None:
    for here, there in zip(runs_in(widths), runs_of(uri_of(widths)), strict=True):
        assert (here.id, here.mlflow_id, here.name) == (there.id, there.mlflow_id, there.name)
        assert (here.experiment, here.status, here.epochs) == (there.experiment, there.status, there.epochs)
        assert (here.params, here.data, here.metrics) == (there.params, there.data, there.metrics)
        assert (here.monitor, here.mode, here.directions) == (there.monitor, there.mode, there.directions)
        assert here.started == pytest.approx(there.started, abs=0.01)
        assert here.ended == pytest.approx(there.ended, abs=0.01)


def test_a_bundle_tells_of_its_run_what_the_directory_does(widths: Path) -> None:
    path = widths / "width 8.zip"

    run = bundled_run(path, gymtrain.inspect(path))

    of_directory = runs_in(widths)[0]
    assert (run.params, run.environment) == (of_directory.params, of_directory.environment)
    assert {key: of_directory.metrics[key] for key in run.metrics} == run.metrics
    assert run.metrics.keys() >= {"best/val_loss", "test/accuracy", "train/loss"}
    assert (run.status, run.monitor, run.data) == ("FINISHED", "val/loss", of_directory.data)


def test_what_json_holds_of_a_run_is_strict(widths: Path) -> None:
    content = runs_in(widths)[0].to_dict()

    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["data"]["train"]["rows"] == 90


def test_directories_are_read_without_mlflow_or_torch(widths: Path) -> None:
    code = "import sys; from gymtrain.tracking import read_runs; read_runs(sys.argv[1]); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code, widths], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()).isdisjoint({"mlflow", "torch", "numpy"})


@pytest.mark.slow
def test_a_run_that_was_killed_has_died_with_what_it_had_logged(tmp_path: Path) -> None:
    code = subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False).returncode
    assert code == -signal.SIGKILL

    (run,) = runs_in(tmp_path)

    assert run.status == "DIED"
    assert run.metrics.keys() >= {"train/loss"}
    assert run.epochs in (1, 2)


def test_a_run_that_is_going_is_running_and_has_no_end(tmp_path: Path) -> None:
    with Recorder([], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": math.nan}, step=1)

        (run,) = runs_in(tmp_path)

    assert (run.status, run.ended) == ("RUNNING", None)
    assert run.duration >= 0
    assert run.to_dict()["metrics"] == {"loss": None}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b'{"metrics": 5, "best": [], "run": 1}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_result_leaves_what_the_journal_knows(damage: bytes, tmp_path: Path) -> None:
    recorder = Recorder([], Run.new(tmp_path))
    with recorder:
        recorder.log_metrics({"val/loss": 0.5}, step=7)
    (recorder.run.directory / "result.json").write_bytes(damage)

    run = run_in(recorder.run.directory)

    assert (run.status, run.epochs, run.metrics) == ("FINISHED", 7, {"val/loss": 0.5})


def test_a_damaged_journal_is_shown_by_the_names_of_its_directories(tmp_path: Path) -> None:
    place = tmp_path / "digits" / "mlp-3f2a91c0"
    place.mkdir(parents=True)
    (place / "journal.jsonl").write_bytes(bytes(100))
    (tmp_path / "digits" / "notes").mkdir()

    (run,) = runs_in(tmp_path)

    assert (run.name, run.experiment, run.status, run.directory) == ("mlp-3f2a91c0", "digits", "DAMAGED", place)


def test_a_metric_of_zero_is_a_metric(tmp_path: Path) -> None:
    recorder = Recorder([], Run.new(tmp_path))
    with recorder:
        pass
    result = {"metrics": {"test/accuracy": 0.0, "val/loss": [0.0, None]}, "best": {"epoch": 1}}
    (recorder.run.directory / "result.json").write_text(json.dumps(result))

    metrics = run_in(recorder.run.directory).metrics

    assert (metrics["test/accuracy"], metrics["best/val_loss"]) == (0.0, 0.0)
    assert math.isnan(metrics["val/loss"])


def test_a_run_is_found_by_name_directory_and_the_beginning_of_either_id(widths: Path) -> None:
    runs = runs_in(widths)
    newest = runs[0]

    for name in (newest.name, newest.directory.name, newest.id[:6], newest.mlflow_id, newest.mlflow_id[:6]):
        assert find_run(name, runs, "runs") is newest


def test_a_name_that_means_several_runs_or_none_is_refused(widths: Path) -> None:
    twice = runs_in(widths)[:1] * 2

    with pytest.raises(StoreError, match=r"'width 8' means 2 runs in runs; give the id of one: '[0-9a-f]{8}', "):
        find_run("width 8", twice, "runs")
    with pytest.raises(StoreError, match=r"there is no run 'widht 8' in runs; did you mean 'width 8'\?"):
        find_run("widht 8", twice, "runs")
    with pytest.raises(StoreError, match="there is no run '' in runs; it has no runs"):
        find_run("", [], "runs")


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("nowhere", "'nowhere' is no directory; give a tracking.root or the tracking URI of MLflow"),
        ("sqlite:///nowhere.db", r"sqlite:///nowhere.db: there is no database '.*/nowhere.db'"),
        ("file:/nowhere", "is a directory, which MLflow refuses"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9: .*refused"),
    ],
)
def test_a_store_that_is_not_there_is_named(
    store: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StoreError, match=message):
        read_runs(store)

    assert os.listdir(tmp_path) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, whatever its name says")

    with pytest.raises(StoreError, match=r"mlflow\.db: .*not a database"):
        runs_of(f"sqlite:///{tmp_path / 'mlflow.db'}")
