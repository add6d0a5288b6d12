"""What the package promises to a script that uses neither gymtrain nor torch, which cannot be imported here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gymtrain_trackers import sync

PLAIN = """
import os, signal, sys
sys.modules["torch"] = sys.modules["gymtrain"] = None  # importing either raises
from gymtrain_trackers import Recorder, Run, load

run = Run.new(sys.argv[1], "alone", "plain")
print(run.id, run.directory, sep="\\n", flush=True)
trackers = [load("mlflow", tracking_uri=sys.argv[2] or None), load("tensorboard"), load("jsonl")]
with Recorder(trackers, run, close_timeout=60) as recorder:
    recorder.log_params({"lr": 0.1})
    for step in range(1, 41):
        recorder.log_metrics({"loss": 1 / step}, step=step)
    %s
"""


def start(ending: str, root: Path, uri: str = "") -> subprocess.Popen[str]:
    command: Sequence[str] = [sys.executable, "-c", PLAIN % ending, str(root), uri]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(uri: str, run_id: str):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'alone'")
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`gymtrain.run_id` = '{run_id}'")
    points = [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, "loss")]
    return found, client, sorted(points)


def scalars(root: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (directory,) = (root / "tensorboard" / "alone").iterdir()
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


ALL = [(step, pytest.approx(1 / step)) for step in range(1, 41)]


@pytest.mark.slow
def test_a_script_that_is_killed_is_completed_by_sync(tmp_path):
    script = start("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    printed, complaint = script.communicate(timeout=120)
    run_id, directory = printed.splitlines()
    assert script.returncode == -9, complaint

    assert set(sync(directory).undelivered.values()) == {0}

    found, _, points = stored(f"sqlite:///{tmp_path}/mlflow.db", run_id)
    assert (found.info.status, found.data.params, points) == ("KILLED", {"lr": "0.1"}, ALL)
    assert scalars(tmp_path) == ALL


@pytest.mark.slow
def test_a_script_that_raises_has_failed_with_its_traceback(tmp_path):
    script = start("raise ArithmeticError('too steep')", tmp_path)
    printed, complaint = script.communicate(timeout=120)
    run_id, directory = printed.splitlines()

    assert script.returncode == 1
    assert complaint.splitlines()[-1] == "ArithmeticError: too steep"
    found, client, points = stored(f"sqlite:///{tmp_path}/mlflow.db", run_id)
    assert (found.info.status, points) == ("FAILED", ALL)
    assert found.data.tags["gymtrain.error"] == "ArithmeticError: too steep"
    trace = Path(client.download_artifacts(found.info.run_id, "error.txt", str(tmp_path))).read_text()
    assert trace == (Path(directory) / "error.txt").read_text()
    assert "raise ArithmeticError" in trace or 'File "<string>"' in trace


@pytest.mark.slow
def test_a_script_does_not_notice_a_server_that_is_away_for_a_time(tmp_path, proxy):
    proxy.stop()
    script = start('print("logged", flush=True); sys.stdin.readline()', tmp_path, proxy.url)
    run_id, _, logged = (script.stdout.readline().strip() for _ in range(3))
    assert logged == "logged"

    proxy.start()
    _, complaint = script.communicate("go on\n", timeout=120)

    assert script.returncode == 0, complaint
    found, _, points = stored(proxy.url, run_id)
    assert (found.info.status, points) == ("FINISHED", ALL)
