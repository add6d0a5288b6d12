from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gymtrain_trackers import DatasetInput, Metric, Recorder, Run, TrackerError, load, read_record, sync
from gymtrain_trackers.files import RunLock
from gymtrain_trackers.record import HEAD_BYTES, TAIL_BYTES
from gymtrain_trackers.starts import moved, start_entry

DIES = """
import os, signal, sys
from gymtrain_trackers import Recorder, Run, load
with Recorder([load("jsonl")], Run.new(sys.argv[1], "digits", "mlp")) as recorder:
    recorder.log_metrics({"loss": 1.0}, step=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_record_holds_the_last_values_of_a_run_and_how_it_ended(tmp_path):
    data = DatasetInput("digits", "9584", "training", profile={"rows": 10})
    with Recorder([load("jsonl")], Run.new(tmp_path, "digits", "mlp")) as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_inputs([data])
        for epoch in (1, 2):
            recorder.log_metrics({"loss": 1 / epoch}, step=epoch)
            recorder.log_tags({"epoch": str(epoch)})

    record = read_record(recorder.run.directory)

    assert (record.run, record.status, record.inputs) == (recorder.run, "FINISHED", [data])
    assert (record.params, record.tags) == ({"lr": 0.1}, {"epoch": "2"})
    assert record.metrics["loss"][:3] == ("loss", 0.5, 2)
    assert record.run.started <= record.ended <= time.time()
    assert [each["name"] for each in record.trackers] == ["jsonl"]


def test_a_run_is_running_within_its_block_and_failed_after_an_error(tmp_path):
    recorder = Recorder([], Run.new(tmp_path))

    with pytest.raises(ZeroDivisionError), recorder:
        during = read_record(recorder.run.directory)
        raise ZeroDivisionError

    assert (during.status, during.ended) == ("RUNNING", None)
    assert read_record(recorder.run.directory).status == "FAILED"


def test_a_run_whose_process_was_killed_has_died_before_and_after_it_is_repaired(tmp_path):
    code = subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False).returncode
    assert code == -signal.SIGKILL
    (directory,) = (path.parent for path in tmp_path.glob("*/*/journal.jsonl"))

    before = read_record(directory)
    sync(directory)
    after = read_record(directory)

    assert (before.status, after.status) == ("DIED", "DIED")
    assert before.ended == before.metrics["loss"].timestamp


def test_of_a_long_journal_only_the_ends_are_read(tmp_path):
    points = [Metric("batch/loss", 0.123456789, step, 1.0) for step in range(1000)]
    with Recorder([], Run.new(tmp_path)) as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_metrics({"once": 1.0}, step=1)
        for _ in range(10):
            recorder.log_metric_points(points)
        recorder.log_metrics({"lost": 1.0}, step=1)
        for _ in range(20):
            recorder.log_metric_points(points)
        recorder.log_tags({"team": "a"})
    assert (recorder.run.directory / "journal.jsonl").stat().st_size > HEAD_BYTES + TAIL_BYTES

    record = read_record(recorder.run.directory)

    assert (record.status, record.params, record.tags) == ("FINISHED", {"lr": 0.1}, {"team": "a"})
    assert set(record.metrics) == {"once", "batch/loss"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"verb":"log_metrics","metrics":[["loss",0.',
        b'{"verb":"log_metrics","metrics":5}\n',
        b'{"verb":"log_metrics","metrics":[["loss"]]}\n',
        b'{"verb":"log_metrics","metrics":[["loss",1,"first",null]]}\n',
        b'{"verb":"log_params","params":[1]}\n',
        b'{"verb":"log_params","params":{},"time":"noon"}\n',
        b'{"verb":"log_inputs","inputs":[{"name":"digits"}]}\n',
        b'{"verb":"end","status":"SPLENDID"}\n',
        b'{"verb":"unheard of"}\n',
        b"\x00\x00\xff\n",
        b"no JSON\n",
    ],
)
def test_lines_that_are_damaged_are_passed_over(line, tmp_path):
    with Recorder([], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 0.5}, step=1)
    path = recorder.run.directory / "journal.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line.rstrip(b"\n") + b"\n" + b"".join(others) + line)

    record = read_record(recorder.run.directory)

    assert record.metrics["loss"].value == 0.5


@pytest.mark.parametrize("start", [b"", b"[]\n", json.dumps({"verb": "start", "id": "x"}).encode() + b"\n"])
def test_a_journal_that_does_not_say_whose_it_is_is_refused(start, tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(start)

    with pytest.raises(TrackerError, match=r"journal\.jsonl has no entry that starts a run"):
        read_record(tmp_path)


def test_a_directory_without_a_journal_is_refused(tmp_path):
    with pytest.raises(TrackerError, match="is not the directory of a run"):
        read_record(tmp_path)


@pytest.mark.parametrize("trackers", [[5], [{"name": "mlflow"}], [{"name": "a", "type": "b", "arguments": None}]])
def test_a_tracker_of_which_the_journal_does_not_know_how_it_was_made_is_left_out(trackers, tmp_path):
    run = Run.new(tmp_path)
    start = start_entry(run, trackers)
    run.directory.mkdir(parents=True)
    (run.directory / "journal.jsonl").write_text(json.dumps(start) + "\n")

    assert read_record(run.directory).trackers == []


@pytest.mark.parametrize("scheme", ["", "file://", "sqlite:///"])
def test_what_leaves_the_root_of_a_run_does_not_move_with_it(scheme):
    inside, outside = f"{scheme}/tmp/runs/a..b/x.db", f"{scheme}/tmp/runs/../other/x.db"

    assert moved(inside, "/tmp/runs", Path("/mnt")) == f"{scheme}/mnt/a..b/x.db"
    assert moved(outside, "/tmp/runs", Path("/mnt")) == outside
    assert [moved(inside, before, Path("/mnt")) for before in ("", ".", "tmp", None)] == [inside] * 4


def test_a_store_beside_a_run_that_was_moved_is_named_where_it_is_now(tmp_path):
    board = load("tensorboard", directory=str(tmp_path / "there" / "board"))
    with Recorder([board], Run.new(tmp_path / "there", "digits")) as recorder:
        pass
    os.rename(tmp_path / "there", tmp_path / "here")

    (recipe,) = read_record(tmp_path / "here" / "digits" / recorder.run.directory.name).trackers

    assert recipe["arguments"]["directory"] == str(tmp_path / "here" / "board")


def test_a_run_that_was_copied_is_where_it_is_now_and_is_not_written_to(tmp_path):
    with Recorder([], Run.new(tmp_path / "there", "digits")) as recorder:
        pass
    os.rename(tmp_path / "there", tmp_path / "here")
    directory = tmp_path / "here" / "digits" / recorder.run.directory.name
    before = sorted((path.name, path.stat().st_mtime_ns) for path in directory.iterdir())

    record = read_record(directory)

    assert (record.run.root, record.run.directory) == (tmp_path / "here", directory)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in directory.iterdir()) == before


def test_a_run_that_died_and_was_gone_on_with_is_no_longer_dead(tmp_path):
    run = Run.new(tmp_path)
    run.directory.mkdir(parents=True)
    lines = [
        start_entry(run, []),
        {"verb": "log_tags", "tags": {"gymtrain.ended": "process died", "gymtrain.error": "x", "team": "a"}},
        {"verb": "end", "status": "KILLED"},
        start_entry(run, []),
        {"verb": "end", "status": "FINISHED"},
    ]
    (run.directory / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    record = read_record(run.directory)

    assert (record.status, record.tags) == ("FINISHED", {"team": "a"})


@pytest.mark.parametrize(
    "damaged",
    [
        '{"verb":[]}',
        '{"verb":"log_metrics","metrics":[["loss",0.5,1e999,1.0]]}',
        '{"verb":"log_metrics","metrics":[["loss",' + "9" * 400 + ",1,1.0]]}",
        "[" * 100_000,
        '{"verb":"log_params","params":[]}',
    ],
)
def test_a_damaged_line_is_passed_over(tmp_path, damaged):
    with Recorder([], Run.new(tmp_path)) as recorder:
        recorder.log_params({"lr": 0.1})
    path = recorder.run.directory / "journal.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], damaged, lines[-1]]) + "\n")

    record = read_record(recorder.run.directory)

    assert (record.status, record.params) == ("FINISHED", {"lr": 0.1})


def test_readers_do_not_take_each_other_for_the_process_that_records(tmp_path):
    with Recorder([], Run.new(tmp_path)) as recorder:
        pass
    with (recorder.run.directory / "journal.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another reader does

        assert not RunLock(recorder.run.directory).is_held_elsewhere()


GOOD = {"id": "0" * 32, "experiment": "a", "name": "b", "root": "/r", "directory": "/r/a/b", "started": 1.0}


@pytest.mark.parametrize(
    "given",
    [
        {"started": "soon"},
        {"started": None},
        {"started": 1e300},
        {"started": float("nan")},
        {"root": 5},
        {"experiment": None},
        {"directory": "/r/a/b/" + "c/" * 90},
        {"directory": "/r"},
    ],
)
def test_a_start_that_names_no_run_is_an_error_of_ours(tmp_path, given):
    (tmp_path / "journal.jsonl").write_text(json.dumps({"verb": "start", **GOOD, **given}) + "\n")

    with pytest.raises(TrackerError, match="has no entry that starts a run"):
        read_record(tmp_path)


def test_odd_recipes_keys_and_times_are_passed_over(tmp_path):
    lines = [
        {"verb": "start", **GOOD, "trackers": 5},
        {"verb": "log_metrics", "metrics": [[["a"], 1.0, 1, 1.0], ["loss", 0.5, 1, 2.0]]},
        {"verb": "end", "status": "FINISHED", "time": float("inf")},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    record = read_record(tmp_path)

    assert (record.status, record.trackers, list(record.metrics), record.ended) == ("FINISHED", [], ["loss"], 2.0)


def test_a_run_is_delivered_although_a_reader_asks_at_that_moment_whose_it_is(tmp_path):
    with Recorder([load("jsonl")], Run.new(tmp_path)) as recorder:
        recorder.log_params({"lr": 0.1})
    with (recorder.run.directory / "journal.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        asking = threading.Timer(0.02, fcntl.flock, (lock, fcntl.LOCK_UN))
        asking.start()

        assert sync(recorder.run.directory).undelivered == {"jsonl": 0}
        asking.join()
