"""Models in MLflow: stored once whatever happens, and fetched as the files they are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gymtrain_trackers import ArgumentError, ModelFile, Recorder, Run, TrackerError, read_journal, sync
from gymtrain_trackers.history import HistoryTracker
from gymtrain_trackers.jsonl import JSONLinesTracker
from gymtrain_trackers.mlflow import MLflowTracker
from gymtrain_trackers.mlflow_models import fetch_model

CONTENT = b"weights of a model" * 1000


def model_in(directory: Path, content: bytes = CONTENT, name: str = "a.model: 1/2") -> ModelFile:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.zip"
    path.write_bytes(content)
    return ModelFile(
        name,
        path,
        hashlib.sha256(content).hexdigest(),
        loader="nobody_has_this_module",
        config={"trust": ["theirs:Net"]},
        inputs=[{"type": "any", "name": "age", "required": False}],
        params=[{"name": "proba", "type": "boolean", "default": False, "shape": None}],
        example={"dataframe_split": {"columns": ["age"], "data": [[30.0], [None]]}},
        requirements=("torch==2.6.0",),
    )


def client_of(uri: str):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def stored(client, run_id: str) -> list:
    run = client.get_run(run_id)
    logged = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert sorted(each.model_id for each in logged) == sorted(each.model_id for each in run.outputs.model_outputs)
    return logged


def test_a_model_is_told_to_the_trackers_that_take_models(mlflow_root):
    history, taking = HistoryTracker(), MLflowTracker(log_model=True)
    run = Run.new(mlflow_root, "models", "told")
    with Recorder([history, taking, JSONLinesTracker()], run) as recorder:
        model = model_in(run.directory)
        recorder.log_model(model)

    assert recorder.wants == {"models"}
    assert replace(history.models[model.name], outputs=()) == model
    client = client_of(f"sqlite:///{mlflow_root}/mlflow.db")
    (logged,) = stored(client, taking.info()["run_id"])
    assert logged.name == "a_model_ 1_2"
    assert str(logged.status) == "READY"
    (entry,) = [each for each in read_journal(run.directory / "journal.jsonl") if each["verb"] == "log_model"]
    assert entry["model"]["path"] == "model.zip"


def test_trackers_that_take_no_models_are_told_of_none(tmp_path):
    assert Recorder([MLflowTracker()], Run.new(tmp_path)).wants == frozenset()


def test_another_model_of_the_same_run_is_another_logged_model(mlflow_root):
    run = Run.new(mlflow_root, "models", "two")
    tracker = MLflowTracker(log_model=True)
    tracker.start(run)
    tracker.log_model(model_in(run.directory / "first"))
    tracker.log_model(model_in(run.directory / "second", b"other weights"))
    tracker.end("FINISHED")

    assert len(stored(client_of(f"sqlite:///{mlflow_root}/mlflow.db"), tracker.info()["run_id"])) == 2


def test_storing_a_model_runs_nothing_of_it_and_changes_nothing_in_the_process(mlflow_root):
    import mlflow
    import mlflow.models.model as current

    before = mlflow.get_tracking_uri(), mlflow.active_run(), current.__mlflow_model__, list(sys.path)
    run = Run.new(mlflow_root, "models", "quiet")
    tracker = MLflowTracker(log_model=True)
    tracker.start(run)
    tracker.log_model(model_in(run.directory))
    tracker.end("FINISHED")

    assert (mlflow.get_tracking_uri(), mlflow.active_run(), current.__mlflow_model__, list(sys.path)) == before
    assert "nobody_has_this_module" not in sys.modules


def test_a_model_without_a_file_is_refused_at_once(tmp_path):
    model = model_in(tmp_path)
    model.path.unlink()
    message = r"model\.zip' of the model 'a\.model: 1/2' does not exist"

    with Recorder([HistoryTracker()], Run.new(tmp_path)) as recorder, pytest.raises(FileNotFoundError, match=message):
        recorder.log_model(model)


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("model.zip", "0" * 64, "got 'model.zip'; expected an absolute one"),
        ("/tmp/model.zip", "abc", "got 'abc'; expected 64 hexadecimal digits"),
    ],
)
def test_a_model_is_checked_when_it_is_made(path, sha256, message):
    with pytest.raises(ArgumentError, match=message):
        ModelFile("digits", Path(path), sha256, loader="module")


DIES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_mlflow_models import model_in
from gymtrain_trackers import Recorder, Run
from gymtrain_trackers.mlflow import MLflowTracker

run = Run.new(sys.argv[2], "models", "killed")
tracker = MLflowTracker(sys.argv[3], log_model=True)
if sys.argv[4] == "finalize":
    from mlflow import MlflowClient
    MlflowClient.finalize_logged_model = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
recorder = Recorder([tracker], run)
recorder.__enter__()
recorder.log_model(model_in(run.directory))
if sys.argv[4] == "at once":
    os.kill(os.getpid(), signal.SIGKILL)
recorder.close("FINISHED")
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["at once", "finalize"])
def test_a_model_whose_process_was_killed_is_delivered_later_and_once(mlflow_root, tmp_path, moment):
    uri = f"sqlite:///{mlflow_root}/mlflow.db"
    tests = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", DIES, tests, tmp_path, uri, moment], check=False).returncode
    (journal,) = tmp_path.glob("models/*/journal.jsonl")

    first, second = sync(journal.parent), sync(journal.parent)

    assert killed == -9
    assert first.undelivered == second.undelivered == {"mlflow": 0}
    (logged,) = stored(client_of(uri), first.trackers["mlflow"]["run_id"])
    assert str(logged.status) == "READY"
    fetched = fetch_model(f"models:/{logged.model_id}", tmp_path / "fetched", uri)
    assert fetched.read_bytes() == CONTENT


def test_a_model_whose_file_was_deleted_costs_the_run_nothing_else(mlflow_root, tmp_path):
    run = Run.new(tmp_path, "models", "deleted")
    uri = f"sqlite:///{mlflow_root}/mlflow.db"
    with Recorder([HistoryTracker()], run) as recorder:
        recorder.log_model(model_in(run.directory))
        recorder.log_tags({"team": "a"})
    (run.directory / "model.zip").unlink()

    synced = sync(run.directory, trackers={"late": MLflowTracker(uri, log_model=True)})

    assert synced.undelivered == {"late": 0}
    assert client_of(uri).get_run(synced.trackers["late"]["run_id"]).data.tags["team"] == "a"


# Over HTTP.


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["/mlflow/logged-models", "/mlflow/runs/outputs", "/artifacts/", ""])
def test_a_server_stores_a_model_once_also_when_an_answer_is_lost(server, proxy, tmp_path, cut):
    is_cut = threading.Event()

    def lose_one_answer(method, path, body):
        if cut and cut in path and method in ("POST", "PUT") and "search" not in path and not is_cut.is_set():
            is_cut.set()
            return "cut"
        return "pass"

    proxy.fault = lose_one_answer
    tracker = MLflowTracker(proxy.url, log_model=True)
    with Recorder([tracker], Run.new(tmp_path / "runs", "over http", "größe 8")) as recorder:
        model = model_in(recorder.run.directory)
        recorder.log_asset(model.path, "model/größe_8.zip")
        recorder.log_model(model)

    run_id = tracker.info()["run_id"]
    (logged,) = stored(client_of(server.url), run_id)
    assert is_cut.is_set() == bool(cut)
    assert str(logged.status) == "READY"
    for address in (f"models:/{logged.model_id}", f"runs:/{run_id}", f"runs:/{run_id}/model/größe_8.zip"):
        fetched = fetch_model(address, tmp_path / "fetched", server.url)
        assert fetched.read_bytes() == CONTENT
        fetched.unlink()


@pytest.mark.slow
def test_a_file_that_is_sent_slowly_is_waited_for_as_long_as_it_gets_on(server, proxy, tmp_path):
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(48 << 20))  # more than the connection holds
    proxy.pause = 0.15
    tracker = MLflowTracker(proxy.url)
    with Recorder([tracker], Run.new(tmp_path / "runs", "over http", "slow"), close_timeout=4.0) as recorder:
        assert recorder.wait_started()
        recorder.log_asset(large, "large.bin")

    client = client_of(server.url)
    assert client.get_run(tracker.info()["run_id"]).info.status == "FINISHED"
    assert [each.file_size for each in client.list_artifacts(tracker.info()["run_id"])] == [48 << 20]


def test_a_server_that_is_away_is_named(tmp_path):
    with pytest.raises(TrackerError, match=r"'runs:/abc' in http://127\.0\.0\.1:9: "):
        fetch_model("runs:/abc", tmp_path, "http://127.0.0.1:9")


def test_the_directory_of_a_model_is_as_mlflow_reads_it(mlflow_root):
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    run = Run.new(mlflow_root, "models", "read")
    tracker = MLflowTracker(log_model=True)
    tracker.start(run)
    tracker.log_model(model_in(run.directory))
    tracker.end("FINISHED")
    uri = f"sqlite:///{mlflow_root}/mlflow.db"
    (logged,) = stored(client_of(uri), tracker.info()["run_id"])

    place = Path(download_artifacts(logged.artifact_location, tracking_uri=uri))

    model = Model.load(str(place))
    assert model.flavors["python_function"]["loader_module"] == "nobody_has_this_module"
    assert model.flavors["python_function"]["config"] == {"trust": ["theirs:Net"]}
    assert model.signature.inputs.input_names() == ["age"]
    assert model.load_input_example(str(place))["age"].isna().tolist() == [False, True]
    assert json.loads(model.get_serving_input(str(place)))["dataframe_split"]["columns"] == ["age"]
    requirements = (place / "requirements.txt").read_text().splitlines()
    assert requirements[0] == "torch==2.6.0"
    assert requirements[1].startswith("mlflow==")
    assert not (place / "data" / "model.zip").is_symlink()
