from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain_trackers import ArgumentError, Metric, Recorder, Run, TrackingWarning, read_journal, sync
from gymtrain_trackers.journal import Journal
from gymtrain_trackers.jsonl import JSONLinesTracker

FIRST = {"verb": "log_tags", "tags": {"team": "a"}}
SECOND = {"verb": "log_metrics", "metrics": [["loss", 0.5, 1, 2.0]]}


def test_a_last_line_cut_at_any_byte_is_passed_over_and_mended_by_the_next_writer(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in (FIRST, SECOND))
    first_line = whole.index(b"\n") + 1

    for cut in range(first_line, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read_journal(path)) == [FIRST]
        journal = Journal(path)
        journal.append(FIRST)
        journal.close()

        # Only the line that lacked nothing but its end is made whole.
        kept = [SECOND] if cut == len(whole) - 1 else []
        assert list(read_journal(path)) == [FIRST, *kept, FIRST]


def test_zeros_that_a_loss_of_power_left_are_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(json.dumps(FIRST).encode() + b"\n" + bytes(100))

    journal = Journal(path)
    journal.append(SECOND)
    journal.close()

    assert list(read_journal(path)) == [FIRST, SECOND]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


# F13
def test_entries_wait_in_memory_while_the_disk_is_full_and_are_written_when_there_is_room(small_disk):
    problems = []
    ballast = small_disk / "ballast"
    journal = Journal(small_disk / "journal.jsonl", lambda message, error: problems.append((message, error.errno)))
    journal.append(FIRST)
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))

    for step in range(200):
        journal.append({"verb": "log_metrics", "metrics": [["loss", 0.5, step, 2.0]]})
    in_the_queue, offset = 0, 0
    while data := journal.read(offset):
        in_the_queue, offset = in_the_queue + data.count(b"\n"), offset + len(data)
    on_disk = len(list(read_journal(journal.path)))
    ballast.unlink()
    journal.close()

    assert in_the_queue == 201 > on_disk
    assert [number for _, number in problems] == [errno.ENOSPC]
    assert "wait in memory" in problems[0][0]
    assert [entry["metrics"][0][2] for entry in list(read_journal(journal.path))[1:]] == list(range(200))


# F13
def test_a_full_disk_stops_nothing_and_is_warned_of_once(small_disk, tmp_path):
    store = tmp_path / "metrics.jsonl"
    recorder = Recorder([JSONLinesTracker(str(store))], Run.new(small_disk))

    def record():
        with recorder:
            for step in range(3000):
                recorder.log_metrics({"loss": 0.5}, step=step)

    with pytest.warns(TrackingWarning, match=r"No space left") as warned:
        record()

    full = [str(each.message) for each in warned if "wait in memory" in str(each.message)]
    assert len(full) == 1
    assert any("could not be written" in str(each.message) for each in warned)
    steps = [json.loads(line)["step"] for line in store.read_text().splitlines() if '"metric"' in line]
    assert steps == list(range(3000))


def test_more_than_the_memory_holds_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("gymtrain_trackers.journal.BACKLOG_ENTRIES", 10)
    problems = []
    journal = Journal(tmp_path / "journal.jsonl", lambda message, error: problems.append(message))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        for _ in range(25):
            journal.append(FIRST)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert ": 25 entries could not be written" in problems[-1]
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


values = st.floats(allow_nan=False, width=32)
calls = st.one_of(
    st.tuples(st.just("log_params"), st.dictionaries(st.text(max_size=5), st.integers() | st.text(), max_size=3)),
    st.tuples(st.just("log_tags"), st.dictionaries(st.text(max_size=5), st.text(), max_size=3)),
    st.tuples(st.just("log_metrics"), st.dictionaries(st.sampled_from("abc"), values, min_size=1, max_size=3)),
)


def logged(directory: Path, made: list) -> Run:
    run = Run.new(directory)
    with Recorder([JSONLinesTracker()], run) as recorder:
        for step, (verb, content) in enumerate(made):
            if verb == "log_metrics":
                recorder.log_metrics(content, step=step)
            else:
                getattr(recorder, verb)(content)
    return run


def told(run: Run) -> list:
    return (run.directory / "metrics.jsonl").read_bytes().splitlines(keepends=True)


def lines_of(journal: Path) -> int:
    """How many lines the tracker writes for the entries of a journal."""
    return sum(len(entry["metrics"]) if entry["verb"] == "log_metrics" else 1 for entry in read_journal(journal))


@settings(max_examples=40)
@given(made=st.lists(calls, max_size=6), where=st.floats(0, 1), there=st.floats(0, 1), has_cursor=st.booleans())
def test_any_run_killed_at_any_byte_and_synced_has_every_line_once(made, where, there, has_cursor):
    with tempfile.TemporaryDirectory() as directory:
        run = logged(Path(directory), made)
        everything = told(run)
        journal, store = run.directory / "journal.jsonl", run.directory / "metrics.jsonl"
        start = journal.read_bytes().index(b"\n") + 1
        size = journal.stat().st_size
        os.truncate(journal, start + int(where * (size - start)))
        # The store is at any byte too, but never further than the journal.
        upper = sum(map(len, everything[: lines_of(journal)]))
        os.truncate(store, int(there * upper))
        if not has_cursor:
            (run.directory / "delivery" / "jsonl.json").unlink()

        result = sync(run.directory)

        count = lines_of(journal)
        ended = [line for line in told(run) if b'"kind":"end"' in line or b"process died" in line]
        assert told(run) == everything[: count - len(ended)] + ended
        assert sum(b'"kind":"end"' in line for line in told(run)) == 1
        assert result.undelivered == {"jsonl": 0}


def test_a_process_that_is_killed_loses_nothing_that_it_logged(tmp_path):
    script = """
import os, signal, sys
from gymtrain_trackers import Recorder, Run
with Recorder([], Run.new(sys.argv[1])) as recorder:
    for step in range(1000):
        recorder.log_metrics({"loss": 1.0}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=False)

    (path,) = tmp_path.glob("*/*/journal.jsonl")
    assert [entry["metrics"][0][2] for entry in list(read_journal(path))[1:]] == list(range(1000))


@given(
    points=st.lists(
        st.tuples(st.text(min_size=1), st.floats(), st.integers(-(2**63), 2**63), st.floats(0, 4e9)), max_size=5
    )
)
def test_every_line_of_points_is_json_and_comes_back(points):
    with tempfile.TemporaryDirectory() as root:
        run = Run.new(root)
        with Recorder([], run) as recorder:
            recorder.log_metric_points([Metric(*point) for point in points])
        lines = (run.directory / "journal.jsonl").read_text(encoding="ascii").splitlines()

    for line in lines:
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    logged = [point for each in map(json.loads, lines) for point in each.get("metrics", ())]
    told = [(key, float(value), step, when) for key, value, step, when in logged]
    assert repr(told) == repr([(key, value, step, float(when)) for key, value, step, when in points])


@pytest.mark.parametrize("when", [float("nan"), float("inf"), None, "now"])
def test_a_point_whose_time_is_no_number_is_refused(tmp_path, when):
    with (
        Recorder([], Run.new(tmp_path)) as recorder,
        pytest.raises(ArgumentError, match=r"metric 'loss'.*time .*expected a number"),
    ):
        recorder.log_metric_points([Metric("loss", 0.5, 1, when)])
