from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gymtrain_trackers import Recorder, Run, TrackerError, sync
from gymtrain_trackers.comet import CometTracker


@pytest.fixture
def run(tmp_path):
    run = Run.new(tmp_path, "digits", "mlp")
    run.directory.mkdir(parents=True)
    return run


def points_of(path):
    with zipfile.ZipFile(path) as archive:
        messages = [json.loads(line)["payload"] for line in archive.read("messages.json").splitlines()]
    metrics = [message["metric"] for message in messages if "metric" in message]
    return [(each["metricName"], each["step"]) for each in metrics if each["metricName"] != "process duration"]


def test_each_key_has_its_own_steps(run):
    tracker = CometTracker(mode="offline")
    with Recorder([tracker], run, on_error="raise") as recorder:
        recorder.log_metrics({"batch/loss": 0.9}, step=100)
        recorder.log_metrics({"val/loss": 0.7}, step=1)
        recorder.log_metrics({"batch/loss": 0.6}, step=200)

    assert points_of(tracker.info()["path"]) == [("batch/loss", 100), ("val/loss", 1), ("batch/loss", 200)]


def test_a_run_that_is_told_again_is_one_zip(run):
    with Recorder([CometTracker(mode="offline")], run, on_error="raise") as recorder:
        recorder.log_metrics({"loss": 0.5}, step=1)
    (run.directory / "delivery" / "comet.json").unlink()

    assert sync(run.directory).undelivered == {"comet": 0}

    (path,) = (run.directory / "comet").iterdir()
    assert points_of(path) == [("loss", 1)]


def test_the_process_stays_as_it_was_and_nothing_is_written_elsewhere(tmp_path):
    code = """
import os, signal, socket, sys, threading
import matplotlib.font_manager  # which Comet imports, and which writes what it finds into the home directory
from gymtrain_trackers import Recorder, Run, load

def refuse(self, address):
    raise AssertionError(f"connects to {address}")

socket.socket.connect = refuse

def state():
    hooks = sys.exit, sys.excepthook, sys.stdout, sys.stderr, threading.excepthook
    return dict(os.environ), os.getcwd(), hooks, [signal.getsignal(each) for each in (2, 15)]

before = state()
with Recorder([load("comet", mode="offline")], Run.new(sys.argv[1]), on_error="raise") as recorder:
    recorder.log_metrics({"loss": 0.5}, step=1)
import comet_ml
print(before == state(), comet_ml.get_global_experiment())
print(*[each for each in sys.meta_path if "comet" in type(each).__module__])
"""
    home, here, runs = tmp_path / "home", tmp_path / "here", tmp_path / "runs"
    for folder in (home, here):
        folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMET_")}
    paths = os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)
    environment |= {"HOME": str(home), "PYTHONPATH": paths, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(runs)],
        capture_output=True,
        text=True,
        cwd=here,
        env=environment,
        check=False,
    )

    assert done.stdout.split() == ["True", "None"], done.stderr
    assert "Traceback" not in done.stderr
    assert [*home.iterdir(), *here.iterdir()] == []


def test_online_without_a_key_the_run_goes_on_without_it(run, monkeypatch):
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    monkeypatch.setenv("COMET_CONFIG", str(run.directory / "comet.config"))
    with pytest.raises(
        TrackerError, match=r"Comet has no API key: call `comet login`, set COMET_API_KEY or give mode="
    ):
        CometTracker(mode="online").start(run)
