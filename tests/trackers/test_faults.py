"""What a server of MLflow may do to a run: nothing. The numbers are the rows of the fault matrix."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import MLflowServer

from gymtrain_trackers import Recorder, Run, TrackingWarning, read_journal, sync
from gymtrain_trackers.mlflow import MLflowTracker

pytestmark = pytest.mark.slow


@pytest.fixture
def client(server):
    from mlflow import MlflowClient

    return MlflowClient(server.url)


@pytest.fixture
def run(tmp_path, request):
    return Run.new(tmp_path, request.node.name[:60], "mlp")


def found(client, run):
    experiment = client.get_experiment_by_name(run.experiment)
    (stored,) = client.search_runs([experiment.experiment_id], f"tags.`gymtrain.run_id` = '{run.id}'")
    return stored


def points_of(client, run):
    """All rows of the store, also those that a page of the UI would show as one."""
    rows, token = [], None
    while True:
        page = client._tracking_client.store.get_metric_history(found(client, run).info.run_id, "loss", 1000, token)
        rows += [(row.step, row.value, row.timestamp) for row in page]
        token = page.token
        if not token:
            return sorted(rows)


def points_in_journal(run):
    entries = read_journal(run.directory / "journal.jsonl")
    points = [point for entry in entries if entry["verb"] == "log_metrics" for point in entry["metrics"]]
    return sorted((step, value, int(timestamp * 1000)) for _, value, step, timestamp in points)


def record(proxy, run, during=lambda: None, close_timeout=2.0, steps=40):
    """Record a run; return what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder([MLflowTracker(proxy.url)], run, close_timeout=close_timeout) as recorder:
            recorder.log_params({"lr": 0.1})
            for step in range(1, steps + 1):
                recorder.log_metrics({"loss": 1 / step}, step=step)
                if step == steps // 2:
                    recorder.log_tags({"half": "way"})
                    during()
    return [str(each.message) for each in caught if each.category is TrackingWarning]


def reached(proxy, run, client):
    """Wait until the first half is stored."""

    def wait():
        for _ in range(600):
            if any(path.endswith("runs/log-batch") for _, _, path in proxy.arrivals):
                return
            time.sleep(0.05)
        raise AssertionError("nothing arrived")

    return wait


def is_complete(client, run, status="FINISHED"):
    stored = found(client, run)
    assert points_of(client, run) == points_in_journal(run)
    assert len({step for step, _, _ in points_in_journal(run)}) == 40
    assert stored.data.params == {"lr": "0.1"}
    assert stored.data.tags["half"] == "way"
    assert stored.info.status == status


def synced(run):
    """Deliver what is left, as soon as the call that was in progress at the end is over."""
    for _ in range(600):
        try:
            return sync(run.directory)
        except RuntimeError as error:
            if "is still going" not in str(error):
                raise
            time.sleep(0.1)
    raise AssertionError("the run is never let go")


def test_a_healthy_server_gets_everything_without_a_word(proxy, run, client):
    assert record(proxy, run, close_timeout=30) == []
    is_complete(client, run)


# F35
def test_a_server_that_is_not_there_at_the_start_gets_the_run_later(proxy, run, client):
    proxy.stop()

    warned = record(proxy, run)
    proxy.start()
    result = synced(run)

    assert len(warned) == 2
    assert "start raised MlflowException" in warned[0]
    assert "it is tried again" in warned[0]
    assert "44 entries of the journal are not delivered (`gymtrain sync" in warned[1]
    assert result.undelivered == {"mlflow": 0}
    is_complete(client, run)


# F36
def test_a_server_that_dies_for_ever_in_the_middle_loses_nothing(proxy, run, client):
    wait = reached(proxy, run, client)

    def dies():
        wait()
        proxy.stop()

    warned = record(proxy, run, dies)
    proxy.start()
    synced(run)

    assert "entries of the journal are not delivered (`gymtrain sync" in warned[-1]
    is_complete(client, run)


# F37
def test_a_server_that_comes_back_has_everything_when_the_run_ends(proxy, run, client):
    wait = reached(proxy, run, client)

    def away():
        wait()
        proxy.stop()
        threading.Timer(3.0, proxy.start).start()

    warned = record(proxy, run, away, close_timeout=30)

    assert len(warned) <= 1
    is_complete(client, run)


# F38
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_answers_with_an_error_for_a_time_gets_everything(proxy, run, client, status):
    ends = time.monotonic() + 2
    refusal = (status, {"Retry-After": "1"}, b"not now")
    proxy.fault = lambda method, path, body: refusal if time.monotonic() < ends else "pass"

    warned = record(proxy, run, close_timeout=30)

    assert len(warned) == 1
    assert f"{status} " in warned[0]
    arrivals = [when for when, _, _ in proxy.arrivals]
    assert arrivals[1] - arrivals[0] >= 1.0, proxy.arrivals[:3]  # as long as it asked for
    is_complete(client, run)


# F39
def test_a_server_that_accepts_and_never_answers_does_not_keep_the_process(proxy, run, client):
    wait = reached(proxy, run, client)

    def swallows():
        wait()
        proxy.fault = lambda method, path, body: "black hole"

    warned = record(proxy, run, swallows)
    proxy.fault = lambda method, path, body: "pass"
    proxy.released.set()
    synced(run)

    assert "still busy 2 s after the end of the run" in warned[-1]
    is_complete(client, run)


# F39
def test_a_server_that_never_answered_at_all_does_not_keep_the_process_either(proxy, run, client):
    proxy.fault = lambda method, path, body: "black hole"

    warned = record(proxy, run)
    proxy.fault = lambda method, path, body: "pass"
    proxy.released.set()
    synced(run)

    assert "44 entries of the journal are not delivered" in warned[-1]
    is_complete(client, run)


# F40
def test_a_slow_server_gets_everything(proxy, run, client):
    proxy.fault = lambda method, path, body: 0.5

    assert record(proxy, run, close_timeout=30) == []
    is_complete(client, run)


# F41
def test_an_answer_that_is_lost_stores_nothing_twice(proxy, run, client):
    seen = set()

    def once_each(method, path, body):
        key = method, path.partition("?")[0], body
        if method == "GET" or key in seen:
            return "pass"
        seen.add(key)
        return "cut"

    proxy.fault = once_each

    record(proxy, run, close_timeout=30)

    assert len(seen) >= 5
    is_complete(client, run)


# F42
@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://mlflow.invalid:5000", "mlflow.invalid"),
        ("https://127.0.0.1:{port}", "SSL"),
        ("http://127.0.0.1:{port}/407", "407"),
    ],
)
def test_a_server_that_cannot_be_talked_to_is_named_once(proxy, run, uri, reason):
    proxy.fault = lambda method, path, body: (407, {}, b"who are you?")
    tracker = MLflowTracker(uri.format(port=proxy.port))

    def train():
        with Recorder([tracker], run, close_timeout=2.0) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=1)

    with pytest.warns(TrackingWarning, match=reason) as warned:
        train()

    assert len([each for each in warned if "it is tried again" in str(each.message)]) == 1
    assert (run.directory / "journal.jsonl").exists()


# F43
@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_does_not_let_us_in_is_left_alone_and_the_journal_stays(proxy, run, client, status):
    proxy.fault = lambda method, path, body: (status, {}, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')

    warned = record(proxy, run)
    asked = len(proxy.arrivals)
    proxy.fault = lambda method, path, body: "pass"
    synced(run)

    assert len(warned) == 1
    assert "the run goes on without it" in warned[0]
    assert asked == 2  # whether it is there, and the first question to it
    is_complete(client, run)


# F43
LETS_IN = {"Basic " + base64.b64encode(b"me:s3cret").decode(), "Bearer t0ken"}


def with_credentials(proxy, monkeypatch, way, password="s3cret"):
    """Return the address of a server that asks for credentials, after giving them in one of the ways that there are."""
    proxy.credentials = LETS_IN
    if way == "address":
        return f"http://me:{password}@127.0.0.1:{proxy.port}"
    names = {"TOKEN": "t0ken"} if way == "token" else {"USERNAME": "me", "PASSWORD": password}
    for name, value in names.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    return proxy.url


def on_disk(directory):
    return [path for path in directory.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize("way", ["address", "environment", "token"])
def test_a_server_with_a_password_gets_everything_and_the_password_is_not_written_down(
    proxy, run, client, monkeypatch, tmp_path, way
):
    uri = with_credentials(proxy, monkeypatch, way)
    asset = tmp_path / "asset.txt"
    asset.write_text("content")

    with Recorder([MLflowTracker(uri)], run, close_timeout=30) as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_tags({"half": "way"})
        recorder.log_asset(asset)
        for step in range(1, 41):
            recorder.log_metrics({"loss": 1 / step}, step=step)

    is_complete(client, run)
    assert [each.path for each in client.list_artifacts(found(client, run).info.run_id)] == ["asset.txt"]
    assert "s3cret" not in json.dumps(recorder.info())
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("way", ["address", "environment"])
def test_a_wrong_password_is_one_warning_and_what_is_right_delivers_later(
    proxy, run, client, monkeypatch, tmp_path, way
):
    uri = with_credentials(proxy, monkeypatch, way, password="s3cret-not")

    warned = record(SimpleNamespace(url=uri), run, close_timeout=30)

    assert len(warned) == 1
    assert re.search(r"tracker 'mlflow': start raised .*(401|not authenticated).*the run goes on without it", warned[0])
    assert "s3cret" not in warned[0]
    assert on_disk(tmp_path) == []
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    synced(run)
    is_complete(client, run)


def test_an_experiment_deleted_in_the_middle_is_one_warning(proxy, run, client):
    wait = reached(proxy, run, client)

    def deletes():
        wait()
        client.delete_experiment(found(client, run).info.experiment_id)

    warned = record(proxy, run, deletes)
    client.restore_experiment(client.get_experiment_by_name(run.experiment).experiment_id)
    synced(run)

    assert len(warned) == 1
    assert "was deleted; the run goes on without it" in warned[0]
    is_complete(client, run)


# F44
def test_one_item_that_the_server_refuses_is_named_and_the_rest_delivered(proxy, run, client):
    refusal = (400, {}, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "this step is unlucky"}')
    proxy.fault = lambda method, path, body: (
        refusal
        if path.endswith("log-batch") and any(each["step"] == 13 for each in json.loads(body).get("metrics", []))
        else "pass"
    )

    warned = record(proxy, run, close_timeout=30)

    assert len(warned) == 1
    assert "metric 'loss' at step 13: INVALID_PARAMETER_VALUE: this step is unlucky" in warned[0]
    assert [step for step, _, _ in points_of(client, run)] == [step for step in range(1, 41) if step != 13]
    assert found(client, run).info.status == "FINISHED"


# F50
def test_a_run_that_the_server_has_forgotten_is_sent_anew(proxy, run, client):
    record(proxy, run, close_timeout=30)
    forgotten = found(client, run).info.run_id
    client.set_tag(forgotten, "gymtrain.run_id", "of another store")
    cursor = run.directory / "delivery" / "mlflow.json"
    cursor.write_text(cursor.read_text().replace(forgotten, "0" * 32))

    synced(run)

    assert found(client, run).info.run_id != forgotten
    is_complete(client, run)


# F50
@pytest.mark.parametrize("is_away", [True, False], ids=["after a time", "at once"])
def test_a_server_that_comes_back_with_an_empty_store_gets_all_of_the_run_again(proxy, run, client, tmp_path, is_away):
    from mlflow import MlflowClient

    (tmp_path / "empty").mkdir()
    empty = MLflowServer(tmp_path / "empty")
    wait = reached(proxy, run, client)

    def loses_its_store():
        wait()
        if is_away:
            proxy.stop()
        proxy.server = empty

    try:
        warned = record(proxy, run, loses_its_store)
        if is_away:
            proxy.start()
        result = synced(run)

        assert len(warned) >= 1
        assert result.undelivered == {"mlflow": 0}
        is_complete(MlflowClient(empty.url), run)
    finally:
        empty.stop()


# F47, F48
def test_a_process_that_is_killed_while_the_server_is_away_is_delivered_by_sync(proxy, run, client):
    script = """
import os, signal, sys
from gymtrain_trackers import Recorder, Run, load
from pathlib import Path
run = Run(sys.argv[2], sys.argv[3], "mlp", Path(sys.argv[4]), Path(sys.argv[5]), float(sys.argv[6]))
with Recorder([load("mlflow", tracking_uri=sys.argv[1])], run) as recorder:
    recorder.log_params({"lr": 0.1})
    recorder.log_tags({"half": "way"})
    for step in range(1, 41):
        recorder.log_metrics({"loss": 1 / step}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    proxy.stop()
    place = [run.id, run.experiment, str(run.root), str(run.directory), str(run.started)]
    subprocess.run([sys.executable, "-c", script, proxy.url, *place], check=False)
    proxy.start()

    synced(run)

    is_complete(client, run, "KILLED")
    assert found(client, run).data.tags["gymtrain.ended"] == "process died"


def test_files_and_images_are_stored_once(proxy, run, client, tmp_path):
    import numpy as np

    (tmp_path / "model.zip").write_bytes(b"zip")
    with Recorder([MLflowTracker(proxy.url)], run, close_timeout=30) as recorder:
        recorder.log_asset(tmp_path / "model.zip", "bundle/model.zip")
        recorder.log_image(np.zeros((4, 6), np.uint8), "grey", step=1)
    (run.directory / "delivery" / "mlflow.json").unlink()
    synced(run)

    run_id = found(client, run).info.run_id
    assert [item.path for item in client.list_artifacts(run_id, "bundle")] == ["bundle/model.zip"]
    assert len(client.list_artifacts(run_id, "images")) == 2  # one in full, one small


# F45
def test_a_database_that_another_process_holds_gets_everything(tmp_path, run):
    from mlflow import MlflowClient

    held = tmp_path / "mlflow.db"
    with Recorder([MLflowTracker()], run, close_timeout=60) as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_tags({"half": "way"})
        assert recorder.wait_started(60)
        script = f"""
import sqlite3, sys, time
database = sqlite3.connect({str(held)!r}, timeout=30)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(4)
"""
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        other.stdout.readline()
        for step in range(1, 41):
            recorder.log_metrics({"loss": 1 / step}, step=step)
    other.communicate()

    is_complete(MlflowClient(recorder.info()["mlflow"]["tracking_uri"]), run)


# F45
def test_a_database_that_is_none_is_left_alone(tmp_path, run):
    (tmp_path / "mlflow.db").write_bytes(b"not a database, and long enough to look at" * 100)

    def train():
        with Recorder([MLflowTracker()], run, close_timeout=2) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=1)

    with pytest.warns(TrackingWarning, match="file is not a database"):
        train()


def test_the_rows_of_the_store_are_unique_by_its_own_rules(tmp_path, run):
    with Recorder([MLflowTracker()], run, close_timeout=60) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    run_id = recorder.info()["mlflow"]["run_id"]
    (point,) = [entry["metrics"][0] for entry in read_journal(run.directory / "journal.jsonl") if "metrics" in entry]
    tracker = MLflowTracker()
    assert tracker.resume(run, json.loads((run.directory / "delivery" / "mlflow.json").read_text())["state"])

    from gymtrain_trackers import Metric

    tracker.log_metrics([Metric("loss", 1.0, 1, point[3]), Metric("loss", 2.0, 2, point[3])])
    tracker.log_metrics([Metric("loss", 1.0, 1, point[3]), Metric("loss", 2.0, 2, point[3])])

    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        rows = database.execute("SELECT step, value FROM metrics WHERE run_uuid = ?", [run_id]).fetchall()
    database.close()
    assert sorted(rows) == [(1, 1.0), (2, 2.0)]


def test_the_environment_says_how_long_a_request_may_take_and_is_left_alone(proxy, run, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    before = dict(os.environ)
    proxy.fault = lambda method, path, body: "black hole"

    warned = record(proxy, run, close_timeout=10)

    assert "imed out" in warned[0]
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert Path(run.directory / "journal.jsonl").exists()
