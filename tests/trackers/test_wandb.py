from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb_log

from gymtrain_trackers import ArgumentError, Metric, Recorder, Run, TrackerError, read_journal
from gymtrain_trackers.wandb import WandbTracker


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def run(tmp_path):
    run = Run.new(tmp_path, "digits", "mlp")
    run.directory.mkdir(parents=True)
    return run


def log_of(tracker):
    (log,) = Path(tracker.info()["directory"]).glob("*.wandb")
    wandb_log.exit_code(log)
    return log


def test_points_of_several_axes_are_kept_in_any_order(run):
    tracker = WandbTracker(mode="offline")
    with Recorder([tracker], run, on_error="raise") as recorder:
        recorder.log_metrics({"batch/loss": 0.9, "batch/epoch": 1}, step=100)
        recorder.log_metrics({"train/loss": 0.8, "val/loss": 0.7}, step=1)
        recorder.log_metrics({"batch/loss": 0.6}, step=200)
        recorder.log_metrics({"system/cpu": 10.0}, step=0)
        recorder.log_metrics({"train/loss": 0.5}, step=2)
        recorder.log_metrics({"test/loss": 0.4}, step=1)

    log = log_of(tracker)
    rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in wandb_log.rows(log)]
    assert rows == [
        {"batch/loss": 0.9, "batch/epoch": 1, "batch/step": 100},
        {"train/loss": 0.8, "val/loss": 0.7, "epoch": 1},
        {"batch/loss": 0.6, "batch/step": 200},
        {"system/cpu": 10, "system/step": 0},
        {"train/loss": 0.5, "epoch": 2},
        {"test/loss": 0.4, "epoch": 1},
    ]
    assert wandb_log.steps(log) == {
        "batch/loss": "batch/step",
        "batch/epoch": "batch/step",
        "train/loss": "epoch",
        "val/loss": "epoch",
        "system/cpu": "system/step",
        "test/loss": "epoch",
    }


def test_rows_are_the_same_in_whatever_batches_they_are_told(tmp_path):
    points = [Metric(key, 1.0, step, float(step)) for step in range(1, 4) for key in ("train/loss", "val/loss")]
    rows = []
    for size in (2, 6):
        run = Run.new(tmp_path)
        run.directory.mkdir(parents=True)
        tracker = WandbTracker(mode="offline")
        tracker.start(run)
        for start in range(0, 6, size):
            tracker.log_metrics(points[start : start + size])
        tracker.end("FINISHED")
        rows.append([(row["_step"], row["epoch"], row["_timestamp"]) for row in wandb_log.rows(log_of(tracker))])

    assert rows[0] == rows[1] == [(0, 1, 1.0), (1, 2, 2.0), (2, 3, 3.0)]


def test_keys_that_are_wandbs_own_get_another_name(run):
    tracker = WandbTracker(mode="offline")
    tracker.start(run)
    tracker.log_metrics([Metric("epoch", 7.0, 1, 1.0), Metric("_step", 8.0, 1, 1.0)])
    tracker.end("FINISHED")

    (row,) = wandb_log.rows(log_of(tracker))
    assert (row["epoch"], row["epoch_"], row["_step_"], row["_step"]) == (1, 7, 8, 0)


def test_the_journal_can_be_delivered_again(run):
    with Recorder([WandbTracker(mode="offline")], run, on_error="raise") as recorder:
        recorder.log_metrics({"loss": 0.5}, step=1)
    (run.directory / "delivery" / "wandb.json").unlink()
    code = f"from gymtrain_trackers import sync; print(sync({str(run.directory)!r}).undelivered)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "{'wandb': 0}"
    (log,) = (run.directory / "wandb").glob("offline-run-*/*.wandb")
    assert [row["loss"] for row in wandb_log.rows(log)] == [0.5]


def test_the_process_stays_as_it_was_and_nothing_is_written_elsewhere(tmp_path):
    """In a process of its own, at a terminal's mercy: no prompt, no network, no file but in the run's directory."""
    code = """
import os, signal, socket, sys, threading
from gymtrain_trackers import Recorder, Run, load

connect = socket.socket.connect

def connect_within(self, address):
    assert self.family == socket.AF_UNIX, f"connects to {address}"
    connect(self, address)

socket.socket.connect = connect_within

def state():
    hooks = sys.exit, sys.excepthook, sys.stdout, sys.stderr, threading.excepthook
    return dict(os.environ), os.getcwd(), hooks, [signal.getsignal(each) for each in (2, 15)]

before = state()
with Recorder([load("wandb", mode="offline")], Run.new(sys.argv[1]), on_error="raise") as recorder:
    recorder.log_metrics({"loss": 0.5}, step=1)
    recorder.log_asset(__import__("gymtrain_trackers").__file__, "code.py")
import wandb
print(before == state(), wandb.run)
"""
    home, here, runs = tmp_path / "home", tmp_path / "here", tmp_path / "runs"
    for folder in (home, here):
        folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "XDG_"))}
    paths = os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)
    environment |= {"HOME": str(home), "PYTHONPATH": paths}

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(runs)],
        capture_output=True,
        text=True,
        cwd=here,
        env=environment,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["True", "None"]
    assert [*home.iterdir(), *here.iterdir()] == []


def test_online_without_a_key_the_run_goes_on_without_it(run, monkeypatch):
    with pytest.raises(TrackerError, match=r"W&B has no API key: call `wandb login`, set WANDB_API_KEY or give mode="):
        WandbTracker(mode="online").start(run)


def test_a_server_that_is_away_is_tried_again(run, monkeypatch):
    import wandb

    monkeypatch.setattr("gymtrain_trackers.wandb.START_SECONDS", 1)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()  # which has read the environment before
    tracker = WandbTracker(mode="online")

    with pytest.raises(wandb.errors.CommError) as raised:
        tracker.start(run)

    wandb.teardown()
    assert tracker.is_temporary(raised.value)
    assert not tracker.is_temporary(wandb.errors.AuthenticationError("403"))


def test_the_journal_names_neither_keys_nor_hosts(run):
    with Recorder([WandbTracker("digits", "team", "offline")], run, on_error="raise") as recorder:
        pass

    (recipe,) = next(read_journal(recorder.run.directory / "journal.jsonl"))["trackers"]
    assert recipe == {
        "name": "wandb",
        "type": "wandb",
        "arguments": {"project": "digits", "entity": "team", "mode": "offline", "histograms": False},
    }


def test_a_mode_must_be_one_of_two(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "shared")
    with pytest.raises(ArgumentError, match="wandb mode: got 'shared'; expected 'online' or 'offline'"):
        WandbTracker()
