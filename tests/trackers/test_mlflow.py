from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from gymtrain_trackers import ArgumentError, Metric, Recorder, Run, TrackerError, TrackingWarning, sync
from gymtrain_trackers.mlflow import MLflowTracker, _schema
from gymtrain_trackers.mlflow_keys import KEY_CHARACTERS, Keys
from gymtrain_trackers.mlflow_place import claimed
from gymtrain_trackers.mlflow_store import checked_uri, resolve, ui_command


@pytest.fixture
def run(mlflow_root):
    return Run.new(mlflow_root, "digits", "mlp")


@pytest.fixture
def client(mlflow_root):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{mlflow_root}/mlflow.db")


def ended(tracker, client):
    tracker.end("FINISHED")
    return client.get_run(tracker.info()["run_id"])


def test_a_run_has_its_name_ids_and_source(run, client, mlflow_root):
    tracker = MLflowTracker()
    tracker.start(run)

    stored = ended(tracker, client)

    info = tracker.info()
    assert stored.info.run_name == "mlp"
    assert stored.info.start_time == int(run.started * 1000)
    assert client.get_experiment(info["experiment_id"]).name == "digits"
    assert stored.data.tags["gymtrain.run_id"] == run.id
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= stored.data.tags.keys()
    assert info["tracking_uri"] == f"sqlite:///{mlflow_root}/mlflow.db"
    assert info["ui"] == f"mlflow ui --backend-store-uri 'sqlite:///{mlflow_root}/mlflow.db'"


def test_artifacts_lie_beside_the_database_wherever_the_process_is(run, client, mlflow_root, tmp_path, monkeypatch):
    asset = tmp_path / "model.zip"
    asset.write_bytes(b"zip")
    tracker = MLflowTracker()
    tracker.start(run)
    monkeypatch.chdir(tmp_path)

    tracker.log_asset(asset, "bundle/model.zip")
    stored = ended(tracker, client)

    artifacts = Path(unquote(stored.info.artifact_uri.removeprefix("file://")))
    assert artifacts.is_relative_to(mlflow_root / "mlartifacts")
    assert (artifacts / "bundle" / "model.zip").read_bytes() == b"zip"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.zip"]


def test_a_directory_is_an_asset_too(run, client, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "part").write_text("a")
    tracker = MLflowTracker()
    tracker.start(run)

    tracker.log_asset(folder, "model")

    assert [item.path for item in client.list_artifacts(ended(tracker, client).info.run_id, "model")] == ["model/part"]


def test_the_environment_chooses_the_store(run, mlflow_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_root}/mlflow.db")
    elsewhere = Run.new(tmp_path / "elsewhere", "digits", "from the environment")
    tracker = MLflowTracker()

    tracker.start(elsewhere)
    tracker.end("FINISHED")

    assert tracker.info()["tracking_uri"] == f"sqlite:///{mlflow_root}/mlflow.db"
    assert not (tmp_path / "elsewhere" / "mlflow.db").exists()


def test_the_argument_beats_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    monkeypatch.chdir(tmp_path)

    tracker = MLflowTracker("sqlite:///runs/mlflow.db")

    assert tracker._given_uri == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_the_environment_of_the_process_is_left_alone(run):
    before = dict(os.environ)
    tracker = MLflowTracker()

    tracker.start(run)
    tracker.end("FINISHED")

    changed = {key for key in before.keys() | os.environ.keys() if before.get(key) != os.environ.get(key)}
    assert changed <= {"MLFLOW_DISABLE_TELEMETRY"}


def test_the_active_run_of_the_user_is_left_alone(run, client):
    import mlflow

    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with mlflow.start_run() as theirs:
            with Recorder([MLflowTracker()], run) as recorder:
                recorder.log_metrics({"loss": 1.0}, step=1)

            assert mlflow.active_run().info.run_id == theirs.info.run_id
            assert recorder.info()["mlflow"]["run_id"] != theirs.info.run_id
        assert client.get_run(theirs.info.run_id).data.metrics == {}
    finally:
        mlflow.set_tracking_uri(uri)
        os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def theirs(client):
    """A run of the user's, active in this thread, in the store that ours go to."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with mlflow.start_run() as active:
            yield active.info
    finally:
        mlflow.set_tracking_uri(uri)
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def recorded(run, **arguments):
    """Record a run; return its id in MLflow."""
    with Recorder([MLflowTracker(**arguments)], run, close_timeout=60) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    return recorder.info()["mlflow"]["run_id"]


def new(run, **changes):
    return replace(Run.new(run.root, run.experiment, "another"), **changes)


def parent_of(client, run_id):
    return client.get_run(run_id).data.tags.get("mlflow.parentRunId")


def test_a_run_is_a_child_of_the_one_that_is_active_or_that_was_named(run, client, theirs):
    before = client.get_run(theirs.run_id).data.tags

    child = recorded(run)
    other = recorded(new(run, default_experiment=True), parent_run_id=child)
    none = recorded(new(run), parent_run_id="")

    assert (parent_of(client, child), parent_of(client, other)) == (theirs.run_id, child)
    assert parent_of(client, none) is None
    assert client.get_run(theirs.run_id).info.status == "RUNNING"
    assert client.get_run(theirs.run_id).data.tags == before
    # Nobody chose the experiment of the second: it is where its parent is.
    assert client.get_run(other).info.experiment_id == client.get_run(child).info.experiment_id


def test_a_run_that_is_active_in_another_store_is_no_parent(run, client, theirs, tmp_path):
    there = Run.new(tmp_path, "digits", "mlp")

    run_id = recorded(there, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")

    from mlflow import MlflowClient

    other = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert other.get_run(run_id).data.tags.keys().isdisjoint({"mlflow.parentRunId"})


def test_a_parent_that_is_not_there_is_warned_of(run, client):
    with pytest.warns(
        TrackingWarning, match=f"parent_run_id={'0' * 32} is no run of this store; the run is below none"
    ):
        run_id = recorded(run, parent_run_id="0" * 32)

    assert parent_of(client, run_id) is None


def test_the_run_that_the_environment_names_is_gone_on_with(run, client, monkeypatch):
    given = client.create_run(client.create_experiment(run.experiment + " of a project"), run_name="project").info
    monkeypatch.setenv("MLFLOW_RUN_ID", given.run_id)

    first = recorded(run)
    with pytest.warns(TrackingWarning, match=f"MLFLOW_RUN_ID={given.run_id} holds another run already; a new one is"):
        second = recorded(new(run, default_experiment=True))

    stored = client.get_run(first)
    assert first == given.run_id != second
    assert (stored.info.run_name, stored.info.status) == ("project", "FINISHED")
    assert stored.data.metrics == {"loss": 1.0}
    assert parent_of(client, second) == first
    assert client.get_run(second).info.experiment_id == given.experiment_id


class Interrupted:
    """A client of which another process gets in before one of its calls."""

    def __init__(self, client, call, other):
        self.client, self.calls_left, self.other = client, call, other

    def __getattr__(self, name):
        if self.calls_left == 0:
            self.other()
        self.calls_left -= 1
        return getattr(self.client, name)


@pytest.mark.parametrize("call", range(5))
def test_of_two_processes_that_take_one_run_at_the_same_time_at_most_one_gets_it(run, client, call):
    free = client.get_run(client.create_run("0").info.run_id)
    one, other, got = run, new(run), {}

    def other_process():
        got[other.id] = claimed(client, free, other)

    got[one.id] = claimed(Interrupted(client, call, other_process), free, one)
    if call == 4:  # all was over by then
        other_process()

    tags = client.get_run(free.info.run_id).data.tags
    winner = [run_id for run_id, has_it in got.items() if has_it]
    assert winner == [tags[key] for key in tags if key.startswith("gymtrain.run_id")]
    assert len(winner) <= 1
    assert call not in (0, 4) or len(winner) == 1
    assert claimed(client, client.get_run(free.info.run_id), one) == (one.id in winner or not winner)


def test_a_run_of_the_environment_that_is_not_there_or_deleted_is_warned_of(run, client, monkeypatch):
    deleted = client.create_run("0").info.run_id
    client.delete_run(deleted)

    for missing in ("0" * 32, deleted):
        monkeypatch.setenv("MLFLOW_RUN_ID", missing)
        with pytest.warns(TrackingWarning, match=f"MLFLOW_RUN_ID={missing} is no run of this store; a new one is made"):
            assert recorded(new(run)) != missing


def test_the_experiment_that_the_environment_names_is_for_runs_whose_experiment_nobody_chose(run, client, monkeypatch):
    wanted = client.create_experiment(run.experiment + " wanted")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", wanted)

    chosen, left, without = (
        client.get_run(recorded(each, **arguments)).info.experiment_id
        for each, arguments in (
            (new(run), {}),
            (new(run, default_experiment=True), {}),
            (new(run, default_experiment=True), {"experiment_id": ""}),
        )
    )

    assert left == wanted
    assert chosen == without == client.get_experiment_by_name(run.experiment).experiment_id


def test_what_is_delivered_later_is_not_put_among_the_runs_of_whoever_delivers_it(run, client, theirs, monkeypatch):
    with Recorder([MLflowTracker()], run) as recorder:
        recorder.wait_started(60)
    first = recorder.info()["mlflow"]["run_id"]
    client.delete_tag(first, "gymtrain.run_id")
    (run.directory / "delivery" / "mlflow.json").unlink()
    other = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", other)

    again = sync(run.directory).trackers["mlflow"]["run_id"]

    assert again not in (first, other)
    assert parent_of(client, again) == parent_of(client, first) == theirs.run_id


@pytest.mark.parametrize("uri", ["file:./mlruns", "file:///tmp/mlruns", "mlruns", "./mlruns"])
def test_a_directory_is_refused_with_the_ways_out(uri):
    with pytest.raises(
        ArgumentError, match=r"is a directory, .*sqlite:////.*mlruns/mlflow\.db.*MLFLOW_ALLOW_FILE_STORE=true"
    ):
        MLflowTracker(uri)


def test_a_directory_in_the_environment_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")

    with pytest.raises(ArgumentError, match=r"MLFLOW_TRACKING_URI: 'file:\./mlruns' is a directory"):
        MLflowTracker()


def test_a_directory_is_taken_from_who_allows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracker = MLflowTracker(str(tmp_path / "mlruns"))

    tracker.start(Run.new(tmp_path, "digits", "mlp"))
    tracker.end("FINISHED")

    assert tracker.info()["artifact_uri"].startswith((tmp_path / "mlruns").as_uri())


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri):
    with pytest.raises(ArgumentError, match=r"is a database in memory; expected sqlite:///path/to/mlflow\.db"):
        MLflowTracker(uri)


@pytest.mark.parametrize("uri", ["foo://x", "htp://host:5000", "postgres://db/x"])
def test_a_kind_of_store_that_mlflow_does_not_know_is_refused(uri):
    scheme = uri.partition(":")[0]

    with pytest.raises(
        ArgumentError, match=rf"tracking_uri: '{uri}' begins with '{scheme}:', .*expected one of sqlite,"
    ):
        MLflowTracker(uri)


@pytest.mark.parametrize("uri", ["postgresql+psycopg2://db/x", "mysql://db/x", "databricks", "databricks://me", "uc:x"])
def test_the_kinds_of_stores_that_mlflow_knows_are_taken(uri):
    assert checked_uri(uri, "tracking_uri") == uri


def test_a_store_of_a_plugin_of_mlflow_is_taken(tmp_path, monkeypatch):
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mlflow.tracking_store]\nours=plugin:Store\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert checked_uri("ours://x", "tracking_uri") == "ours://x"


def test_an_empty_tracking_uri_is_refused_and_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    MLflowTracker()
    with pytest.raises(ArgumentError, match=r"tracking_uri: got ''; expected sqlite:///.* or None for what"):
        MLflowTracker("")


def test_where_artifacts_go_depends_on_the_store(tmp_path):
    database = f"sqlite:///{tmp_path}/a/mlflow.db"

    assert resolve(database, None, tmp_path).artifact_location == (tmp_path / "a" / "mlartifacts").as_uri()
    assert resolve("postgresql://db/x", None, tmp_path).artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert resolve("http://localhost:5000", None, tmp_path).artifact_location is None
    assert resolve(database, "s3://bucket/x", tmp_path).artifact_location == "s3://bucket/x"


def test_the_ui_of_a_server_is_the_page_of_the_run():
    page = ui_command("http://me:secret@localhost:5000/", "3", "abc")

    assert page == "http://me:***@localhost:5000/#/experiments/3/runs/abc"


def test_a_deleted_experiment_says_how_to_restore_it(mlflow_root, client):
    experiment = client.create_experiment("deleted")
    client.delete_experiment(experiment)

    with pytest.raises(
        TrackerError, match=rf"the experiment 'deleted' .* was deleted; .* --experiment-id {experiment}"
    ):
        MLflowTracker().start(Run.new(mlflow_root, "deleted", "mlp"))


def test_long_params_are_shortened_and_named_once(run, client, caplog):
    tracker = MLflowTracker()
    tracker.start(run)

    with caplog.at_level(logging.WARNING, logger="gymtrain_trackers"):
        tracker.log_params({"long": "x" * 6001, "longer": "y" * 7000, "short": "z" * 6000})

    params = ended(tracker, client).data.params
    ours = [record.getMessage() for record in caplog.records if record.name == "gymtrain_trackers.mlflow"]
    assert ours == ["params longer than the 6000 characters that MLflow holds were shortened: ['long', 'longer']"]
    assert {key: len(value) for key, value in params.items()} == {"long": 6000, "longer": 6000, "short": 6000}
    assert "...sha256:e12d" in params["long"]


def test_more_params_and_tags_than_fit_one_request_are_stored(run, client):
    tracker = MLflowTracker()
    tracker.start(run)

    tracker.log_params({f"p/{index}": index for index in range(250)})
    tracker.log_tags({f"t/{index}": index for index in range(250)})

    data = ended(tracker, client).data
    assert [data.params[f"p/{index}"] for index in range(250)] == [str(index) for index in range(250)]
    assert [data.tags[f"t/{index}"] for index in range(250)] == [str(index) for index in range(250)]


def test_values_that_are_not_finite_are_counted_and_not_sent(run, client):
    tracker = MLflowTracker()
    tracker.start(run)

    tracker.log_metrics(
        [Metric("loss", float(value), step, time.time()) for step, value in enumerate(["1", "nan", "inf"])]
    )
    tracker.log_metric("loss", float("-inf"), step=4)

    stored = ended(tracker, client)
    assert [point.value for point in client.get_metric_history(stored.info.run_id, "loss")] == [1.0]
    assert stored.data.tags["gymtrain.nonfinite"] == "3"


def test_a_param_that_changes_is_noted_and_costs_nothing_else(run, client):
    tracker = MLflowTracker()
    tracker.start(run)
    tracker.log_params({"epochs": 10, "lr": 0.1})

    tracker.log_params({"epochs": 20, "lr": 0.1, "seed": 0})

    data = ended(tracker, client).data
    assert data.params == {"epochs": "10", "lr": "0.1", "seed": "0"}
    assert data.tags["gymtrain.param_drift"] == '{"epochs": ["10", "20"]}'


def test_a_key_that_is_cut_stays_unique():
    keys = Keys()

    names = {keys["a" * 249 + "/" * 9 + ending] for ending in ("bb", "cc")}

    assert len(names) == 2
    assert max(map(len, names)) <= KEY_CHARACTERS


def test_a_recorder_brings_everything_to_the_store(run, client):
    recorder = Recorder([MLflowTracker()], run, on_error="raise")

    def train():
        with recorder:
            recorder.log_params({"lr": 0.1})
            recorder.log_metrics({"train/loss": 0.5}, step=1)
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        train()

    info = recorder.info()["mlflow"]
    stored = client.get_run(info["run_id"])
    assert info["status"] == "ok"
    assert stored.info.status == "FAILED"
    assert stored.data.params == {"lr": "0.1"}
    assert stored.data.metrics == {"train/loss": 0.5}
    assert stored.data.tags["gymtrain.error"] == "RuntimeError: diverged"
    assert [item.path for item in client.list_artifacts(info["run_id"])] == ["error.txt"]


def test_a_run_that_goes_on_is_running_and_no_longer_has_the_tags_of_its_end(run, client):
    with pytest.raises(ValueError, match="diverged"), Recorder([MLflowTracker()], run) as recorder:
        recorder.log_tags({"gymtrain.ended": "process died", "team": "a"})
        raise ValueError("diverged")

    with Recorder([MLflowTracker()], run) as recorder:
        recorder.log_params({"epochs": 1})
        assert recorder.wait_started(60)
        for _ in range(200):
            going = client.get_run(recorder.info()["mlflow"]["run_id"])
            if going.info.status == "RUNNING":
                break
            time.sleep(0.05)
    ended = client.get_run(going.info.run_id)

    assert (going.info.status, ended.info.status) == ("RUNNING", "FINISHED")
    assert ended.data.tags["team"] == "a"
    assert not {"gymtrain.ended", "gymtrain.error"} & ended.data.tags.keys()


def test_a_store_that_cannot_be_opened_does_not_stop_the_caller(tmp_path):
    (tmp_path / "file").touch()
    tracker = MLflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db")

    with (
        pytest.warns(TrackingWarning, match="tracker 'mlflow': start raised"),
        Recorder([tracker], Run.new(tmp_path, "digits", "mlp")) as recorder,
    ):
        recorder.log_metrics({"loss": 1.0}, step=1)

    assert recorder.info()["mlflow"]["status"] == "degraded"


STARTS_TOGETHER = """
import sys, time
from pathlib import Path
from gymtrain_trackers import Recorder, Run
from gymtrain_trackers.mlflow import MLflowTracker, _schema
import mlflow
root, name = Path(sys.argv[1]), sys.argv[2]
(root / f"{name}.ready").touch()
while len(list(root.glob("*.ready"))) < 8:
    time.sleep(0.01)
with Recorder([MLflowTracker()], Run.new(root, "sweep", name), close_timeout=120) as recorder:
    recorder.log_params({"name": name})
    for step in range(1, 101):
        recorder.log_metrics({"loss": 1 / step}, step=step)
"""


# F45
@pytest.mark.slow
def test_eight_processes_may_create_one_store_together_and_each_has_its_run_whole(tmp_path):
    from mlflow import MlflowClient

    names = list("abcdefgh")
    children = [
        subprocess.Popen([sys.executable, "-c", STARTS_TOGETHER, tmp_path, name], stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    errors = [child.communicate(timeout=240)[1] for child in children]

    assert [child.returncode for child in children] == [0] * 8, errors
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("sweep")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == names
    for run in runs:
        assert (run.info.status, run.data.params) == ("FINISHED", {"name": run.info.run_name})
        points = client.get_metric_history(run.info.run_id, "loss")
        assert sorted((point.step, point.value) for point in points) == [(step, 1 / step) for step in range(1, 101)]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_makes_the_store_does_no_harm(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
import mlflow.store.db.utils as tables
from gymtrain_trackers import Run
from gymtrain_trackers.mlflow import MLflowTracker, _schema
make = tables._upgrade_db
def die(engine):
    make(engine)
    os.kill(os.getpid(), signal.SIGKILL)
tables._upgrade_db = die
MLflowTracker().start(Run.new(Path(sys.argv[1]), "sweep", "dies"))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, stderr=subprocess.DEVNULL)
    (tmp_path / ".mlflow.db.0.part-journal").write_bytes(b"half")

    tracker, run = MLflowTracker(), Run.new(tmp_path, "sweep", "lives")
    tracker.start(run)
    tracker.end("FINISHED")

    assert done.returncode == -signal.SIGKILL
    assert tracker.info()["experiment_id"] == "1"
    assert not list(tmp_path.glob(".mlflow.db.*part*"))


def test_mlflow_understands_the_schema_of_an_input():
    from mlflow.types import Schema

    columns = _schema({"columns": [{"name": "age", "kind": "number"}, {"name": "city", "kind": "text"}]})
    arrays = _schema({"columns": None, "shape": [8, 8], "dtype": "float32"})

    ages_and_cities = Schema.from_json(json.dumps(columns["mlflow_colspec"])).inputs
    (rows,) = Schema.from_json(json.dumps(arrays["mlflow_tensorspec"]["features"])).inputs

    assert [(each.name, each.type.name) for each in ages_and_cities] == [("age", "double"), ("city", "string")]
    assert (rows.shape, rows.type.name) == ((-1, 8, 8), "float32")


def test_two_new_stores_of_one_process_are_made_one_after_the_other(tmp_path):
    uris = [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other")]
    first = [MLflowTracker(uri) for uri in uris]

    with Recorder(first, Run.new(tmp_path, "digits", "first"), on_error="raise") as recorder:
        recorder.log_params({"lr": 0.1})
    with Recorder([MLflowTracker()], Run.new(tmp_path, "digits", "second"), on_error="raise") as recorder:
        recorder.log_params({"lr": 0.2})

    assert [tracker.info()["tracking_uri"] for tracker in first] == uris
    assert (tmp_path / "mlflow.db").is_file()


@pytest.mark.slow
def test_a_wish_that_cannot_be_met_costs_a_program_whose_warnings_are_errors_nothing_but_the_warning(tmp_path):
    script = """
import sys
from gymtrain_trackers import Recorder, Run, load
try:
    with Recorder([load("mlflow", run_id="0" * 32)], Run.new(sys.argv[1], "wishes", "one")) as recorder:
        recorder.wait_started()
        recorder.log_params({"lr": 0.1})
except Warning as warning:
    print(warning)
print(recorder.info()["mlflow"]["run_id"])
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", script, str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")

    assert "is no run of this store; a new one is made" in printed[0]
    assert re.fullmatch("[0-9a-f]{32}", printed[1])


def test_a_traceback_with_characters_that_no_encoding_has_is_written_whole(tmp_path):
    run = Run.new(tmp_path)

    with pytest.raises(ValueError, match="odd"), Recorder([], run):
        raise ValueError("odd \udcff")

    assert "odd \\udcff" in (run.directory / "error.txt").read_text(encoding="utf-8")
