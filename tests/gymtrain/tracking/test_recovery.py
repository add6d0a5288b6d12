from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gymtrain import TrainingError
from gymtrain.cli import app
from gymtrain.tracking import deliver, deliver_all
from gymtrain_trackers import Recorder, Run, load, read_journal

DIES = """
import os, signal, sys
from gymtrain_trackers import Recorder, Run, load
with Recorder([load("jsonl")], Run.new(sys.argv[1], "digits", "mlp")) as recorder:
    recorder.log_metrics({"loss": 1.0}, step=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def dead(tmp_path):
    """The directory of a run whose process died without a word."""
    code = subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False).returncode
    assert code == -signal.SIGKILL
    (path,) = tmp_path.glob("*/*/journal.jsonl")
    return path.parent


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_doctor_completes_the_runs_that_died(dead, tmp_path):
    first, second = run("doctor", tmp_path), run("doctor", tmp_path)

    assert (first.exit_code, first.stdout) == (0, f"{dead}: complete\n")
    assert (second.exit_code, second.stdout) == (0, "No run misses anything.\n")
    assert list(read_journal(dead / "journal.jsonl"))[-1]["status"] == "KILLED"
    assert '"loss"' in (dead / "metrics.jsonl").read_text()


def test_sync_delivers_the_runs_that_it_is_given(dead):
    result = run("sync", dead)

    assert (result.exit_code, result.stdout) == (0, f"{dead}: complete\n")
    assert '"status":"KILLED"' in (dead / "metrics.jsonl").read_text()


def test_a_store_that_cannot_be_reached_is_named_and_the_exit_code_says_so(tmp_path):
    recorder = Recorder([load("tensorboard", directory=str(tmp_path / "board"))], Run.new(tmp_path / "runs"))
    with recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    (recorder.run.directory / "delivery" / "tensorboard.json").unlink()
    os.rename(tmp_path / "board", tmp_path / "elsewhere")
    (tmp_path / "board").touch()

    result = run("doctor", tmp_path / "runs")

    assert result.exit_code != 0
    assert "board" in result.output


def test_a_run_that_is_still_going_is_left_alone(tmp_path):
    with Recorder([load("jsonl")], Run.new(tmp_path)) as recorder:
        with pytest.raises(TrainingError, match="is still going: process"):
            deliver(recorder.run.directory)
        assert deliver_all(tmp_path) == []
        assert run("sync", recorder.run.directory).exit_code == 1


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="is not the directory of a run"):
        deliver(Path(tmp_path))


def test_where_a_run_goes_is_said_before_and_what_a_strangers_journal_asks_for_is_left_out(tmp_path):
    (tmp_path / "secret").write_text("a key")
    with Recorder([load("jsonl")], Run.new(tmp_path / "theirs", "digits", "mlp")) as recorder:
        recorder.log_asset(tmp_path / "secret")
    copies = []
    for place in ("one", "other"):
        copies.append(Path(shutil.copytree(recorder.run.directory, tmp_path / place / "digits" / "mlp-00000000")))
        for left in ("metrics.jsonl", "delivery/jsonl.json"):
            (copies[-1] / left).unlink()

    untrusted, trusted = run("sync", copies[0]), run("sync", "--trust", copies[1])

    assert untrusted.exit_code == 1
    said, left_out = untrusted.stderr.splitlines()
    assert said == f"{copies[0]}: to jsonl"
    assert left_out.startswith(f"  left out: tracker 'jsonl': log_asset of 'secret': '{tmp_path / 'secret'}' is not in")
    assert (trusted.exit_code, trusted.stdout) == (0, f"{copies[1]}: complete\n")
    assert '"name":"secret"' not in (copies[0] / "metrics.jsonl").read_text()
    assert '"name":"secret"' in (copies[1] / "metrics.jsonl").read_text()
