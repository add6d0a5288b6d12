from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gymtrain_trackers import (
    ArgumentError,
    DatasetInput,
    Recorder,
    RejectedError,
    Run,
    RunBusyError,
    TemporaryError,
    Tracker,
    TrackerError,
    TrackingWarning,
    load,
    read_journal,
    recorded_run,
    sync,
    unfinished,
)
from gymtrain_trackers.history import HistoryTracker
from gymtrain_trackers.journal import Journal
from gymtrain_trackers.jsonl import JSONLinesTracker
from gymtrain_trackers.tensorboard import TensorBoardTracker

TRAINS_FOR_EVER = """
import sys
from gymtrain_trackers import Recorder, Run, load
names = sys.argv[2:]
with Recorder([load(name) for name in names], Run.new(sys.argv[1], "digits", "mlp")) as recorder:
    recorder.log_params({"lr": 0.1})
    step = 0
    while True:
        step += 1
        recorder.log_metrics({"loss": 1 / step}, step=step)
        if step == 50:
            recorder.log_tags({"team": "a"})  # makes the trackers be told in the middle of it
        if step % 20 == 0:
            print(step, flush=True)
"""


def killed_run(root: Path, *names: str, after: int) -> tuple[Path, int]:
    """Return the directory of a run that was killed some time after so many lines, and its last step known."""
    child = subprocess.Popen([sys.executable, "-c", TRAINS_FOR_EVER, root, *names], stdout=subprocess.PIPE, text=True)
    last = 0
    for _ in range(after):
        last = int(child.stdout.readline())
    child.kill()
    child.communicate()
    (path,) = root.glob("digits/*/journal.jsonl")
    return path.parent, last


def steps_in_journal(directory: Path) -> list[int]:
    points = [entry["metrics"] for entry in read_journal(directory / "journal.jsonl") if "metrics" in entry]
    return [step for batch in points for _, _, step, _ in batch]


def steps_in_jsonl(directory: Path) -> list[int]:
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == "metric"]


def steps_in_tensorboard(root: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (directory,) = (root / "tensorboard" / "digits").iterdir()
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars("loss")]


# F47, F52
@pytest.mark.slow
@pytest.mark.parametrize("after", [random.Random(seed).randrange(1, 400) for seed in range(6)])
def test_a_run_killed_at_any_moment_is_completed_by_sync(tmp_path, after):
    directory, last = killed_run(tmp_path, "jsonl", "tensorboard", after=after)
    assert unfinished(tmp_path) == [directory]

    result = sync(directory)
    again = sync(directory)

    steps = steps_in_journal(directory)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= last
    assert steps_in_jsonl(directory) == steps
    assert steps_in_tensorboard(tmp_path) == steps
    assert list(read_journal(directory / "journal.jsonl"))[-1]["status"] == "KILLED"
    assert result.undelivered == again.undelivered == {"jsonl": 0, "tensorboard": 0}
    assert unfinished(tmp_path) == []


# F47, F48
@pytest.mark.slow
def test_a_run_whose_process_died_is_completed_by_the_next_run(tmp_path):
    from mlflow import MlflowClient

    directory, _ = killed_run(tmp_path, "mlflow", after=100)

    with Recorder([load("mlflow")], Run.new(tmp_path, "digits", "next"), close_timeout=60) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)

    client = MlflowClient(recorder.info()["mlflow"]["tracking_uri"])
    runs = client.search_runs([recorder.info()["mlflow"]["experiment_id"]])
    dead = next(run for run in runs if run.info.run_name == "mlp")
    points = client.get_metric_history(dead.info.run_id, "loss")
    assert dead.info.status == "KILLED"
    assert dead.data.tags["gymtrain.ended"] == "process died"
    assert [point.step for point in points] == steps_in_journal(directory)
    assert sorted(run.info.run_name for run in runs) == ["mlp", "next"]


# F51
def test_a_run_belongs_to_one_process_at_a_time(tmp_path):
    run = Run.new(tmp_path)

    with Recorder([], run):
        with (
            pytest.raises(RunBusyError, match=rf"is still going: process {os.getpid()} on .*, since 20"),
            Recorder([], run),
        ):
            pass
        with pytest.raises(RunBusyError, match="is still going"):
            sync(run.directory)
        assert unfinished(tmp_path) == []


def test_a_directory_without_a_journal_is_no_run(tmp_path):
    with pytest.raises(TrackerError, match=r"is not the directory of a run: it has no journal\.jsonl"):
        sync(tmp_path)


def test_a_copied_run_is_delivered_to_stores_beside_the_copy(tmp_path):
    with Recorder([JSONLinesTracker(), TensorBoardTracker()], Run.new(tmp_path / "here", "digits", "mlp")) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=7)
    there = tmp_path / "there" / "digits" / recorder.run.directory.name
    shutil.copytree(recorder.run.directory, there)
    shutil.rmtree(tmp_path / "here")

    result = sync(there)

    assert steps_in_tensorboard(tmp_path / "there") == [7]
    assert steps_in_jsonl(there) == [7]
    assert not (tmp_path / "here").exists()
    assert result.trackers["jsonl"]["path"] == str(there / "metrics.jsonl")


def test_a_class_of_ones_own_is_given_to_sync_and_never_imported_by_it(tmp_path):
    class Own(JSONLinesTracker):
        name = "own"

    with Recorder([Own()], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    directory = recorder.run.directory
    (directory / "delivery" / "own.json").unlink()

    without, given = sync(directory), HistoryTracker()
    sync(directory, {"own": given})

    assert "cannot be made again from the journal" in without.trackers["own"]["error"]
    assert given.metrics == {"loss": [(1, 1.0)]}


def test_two_runs_of_one_name_at_the_same_time_stay_apart(tmp_path):
    # F49
    first, second = (Recorder([TensorBoardTracker()], Run.new(tmp_path, "digits", "mlp")) for _ in range(2))

    with first, second:
        first.log_metrics({"loss": 1.0}, step=1)
        second.log_metrics({"loss": 2.0}, step=2)

    assert len(list((tmp_path / "tensorboard" / "digits").iterdir())) == 2
    assert len(list((tmp_path / "digits").iterdir())) == 2


def test_a_run_that_goes_on_in_another_process_is_one_run(tmp_path):
    run = Run.new(tmp_path, "digits", "mlp")
    for step in (1, 2):
        with Recorder([JSONLinesTracker(), TensorBoardTracker()], run) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=step)

    assert steps_in_jsonl(run.directory) == [1, 2]
    assert steps_in_tensorboard(tmp_path) == [1, 2]


def test_a_run_that_goes_on_passes_over_what_it_has(tmp_path):
    pixels = np.zeros((2, 2), np.uint8)
    run = Run.new(tmp_path, "digits", "mlp")
    for last in (3, 5):
        history = HistoryTracker()
        with Recorder([history, JSONLinesTracker(), TensorBoardTracker()], run) as recorder:
            recorder.log_inputs([DatasetInput("digits", "abc", "training")])
            for step in range(1, last + 1):
                recorder.log_metrics({"loss": 1 / step}, step=step)
                recorder.log_image(pixels + step, "picture", step)
            recorder.log_metrics({"best/loss": 1 / last, "time/s": 1.0}, step=3, again=True)
            recorder.log_metrics({"best/loss": 9.0}, step=3)
        assert recorder.starts == (0 if last == 3 else 1)

    assert recorder.last_step("loss") == 3
    assert history.metrics["loss"] == [(step, 1 / step) for step in range(1, 6)]
    assert history.metrics["best/loss"] == [(3, 1 / 3), (3, 9.0), (3, 1 / 5)]
    assert sorted(step for _, step in history.images) == [1, 2, 3, 4, 5]
    assert len(history.inputs) == 1
    assert steps_in_tensorboard(tmp_path) == [1, 2, 3, 4, 5]
    assert len(list((run.directory / "figures").iterdir())) == 5
    assert recorded_run(run.directory) == run


def test_a_tracker_that_came_later_is_known_to_sync(tmp_path):
    run = Run.new(tmp_path, "digits", "mlp")
    with Recorder([TensorBoardTracker()], run) as recorder:
        recorder.log_tags({"long": "x" * (1 << 20)})
    with Recorder([JSONLinesTracker()], run) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    (run.directory / "metrics.jsonl").unlink()
    (run.directory / "delivery" / "jsonl.json").unlink()

    assert unfinished(tmp_path) == [run.directory]
    assert sync(run.directory).undelivered == {"jsonl": 0, "tensorboard": 0}
    assert steps_in_jsonl(run.directory) == steps_in_tensorboard(tmp_path) == [1]


def test_a_copied_or_missing_run_is_not_the_run_to_go_on_with(tmp_path):
    with Recorder([], Run.new(tmp_path / "runs", "digits", "mlp")) as recorder:
        pass
    directory = recorder.run.directory
    copied = shutil.copytree(directory, directory.with_name("copy"))

    with pytest.raises(TrackerError, match=r"copy' is a copy of the run in '.*mlp-"):
        recorded_run(copied)
    with pytest.raises(TrackerError, match="is not the directory of a run"):
        recorded_run(tmp_path)
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    shutil.rmtree(moved / "digits" / "copy")
    assert recorded_run(moved / "digits" / directory.name).root == moved


def test_a_record_that_a_kill_cut_short_is_written_again(tmp_path):
    with Recorder([TensorBoardTracker()], Run.new(tmp_path, "digits", "mlp")) as recorder:
        for step in range(5):
            recorder.log_metrics({"loss": 1.0}, step=step)
    (file,) = (tmp_path / "tensorboard" / "digits").rglob("*.gymtrain")
    whole = file.read_bytes()
    (recorder.run.directory / "delivery" / "tensorboard.json").unlink()

    for cut in range(0, len(whole), 7):
        os.truncate(file, cut)
        sync(recorder.run.directory)
        assert file.read_bytes() == whole
        (recorder.run.directory / "delivery" / "tensorboard.json").unlink()


class Moody(HistoryTracker):
    """Fails as it is told to, a few times."""

    name = "moody"

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times, self.attempts = error, times, 0

    def log_metrics(self, metrics) -> None:
        self.attempts += 1
        if self.attempts <= self.times:
            raise self.error
        super().log_metrics(metrics)


@pytest.mark.parametrize("error", [TemporaryError("503"), ConnectionRefusedError("refused"), TimeoutError("late")])
def test_what_fails_for_a_time_is_tried_again_and_nothing_is_lost(tmp_path, error):
    moody = Moody(error, times=3)

    def record():
        with Recorder([moody], Run.new(tmp_path)) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=1)
        return recorder

    with pytest.warns(TrackingWarning, match=r"log_metrics raised .*; it is tried again") as warned:
        recorder = record()

    assert len(warned) == 1
    assert moody.metrics == {"loss": [(1, 1.0)]}
    assert recorder.info()["moody"] == {"status": "ok"}


def test_one_hiccup_is_not_worth_a_warning(tmp_path):
    moody = Moody(ConnectionResetError("reset"), times=1)

    with Recorder([moody], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)

    assert moody.metrics == {"loss": [(1, 1.0)]}


def test_what_a_store_rejects_is_named_and_the_rest_goes_on(tmp_path):
    moody = Moody(RejectedError(["metric 'loss' at step 1: too large"]), times=1)

    def record():
        with Recorder([moody], Run.new(tmp_path)) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=1)
            recorder.log_tags({"team": "a"})
            recorder.log_metrics({"loss": 2.0}, step=2)

    with pytest.warns(TrackingWarning, match="tracker 'moody': log_metrics: metric 'loss' at step 1: too large"):
        record()

    assert moody.metrics == {"loss": [(2, 2.0)]}
    assert moody.tags == {"team": "a"}


def test_a_tracker_that_is_stuck_does_not_delay_the_others(tmp_path):
    import threading

    class Stuck(Tracker):
        name = "stuck"
        released = threading.Event()

        def start(self, run):
            self.released.wait(60)

    history = HistoryTracker()
    told = threading.Event()
    history.log_tags = lambda tags: told.set()
    with Recorder([Stuck(), history], Run.new(tmp_path)) as recorder:
        recorder.log_tags({"team": "a"})
        assert told.wait(30)
        Stuck.released.set()


def in_a_fork(function) -> int:
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_in_a_forked_child_a_recorder_warns_once_and_does_nothing(tmp_path):
    history = HistoryTracker()

    with Recorder([history, JSONLinesTracker()], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)

        def child():
            with pytest.warns(TrackingWarning, match="belongs to process .* is not recorded") as warned:
                recorder.log_metrics({"loss": 2.0}, step=2)
                recorder.log_tags({"team": "child"})
                recorder.log_params({"lr": 0.1})
                recorder.close("FAILED")
                recorder.__exit__(ValueError, ValueError("in the child"), None)
            assert len(warned) == 1

        code = in_a_fork(child)
        recorder.log_metrics({"loss": 3.0}, step=3)

    assert code == 0
    assert steps_in_jsonl(recorder.run.directory) == [1, 3]
    assert history.status == "FINISHED"
    assert [entry["verb"] for entry in read_journal(recorder.run.directory / "journal.jsonl")].count("end") == 1


def test_a_child_that_outlives_its_parent_does_not_keep_the_run(tmp_path):
    script = """
import os, signal, sys, time
from gymtrain_trackers import Recorder, Run, load
with Recorder([load("jsonl")], Run.new(sys.argv[1])) as recorder:
    recorder.log_metrics({"loss": 1.0}, step=1)
    is_there, says_so = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(says_so, b".")
        time.sleep(60)
        os._exit(0)
    os.read(is_there, 1)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.wait()
    try:
        (directory,) = unfinished(tmp_path)
        sync(directory)
        assert steps_in_jsonl(directory) == [1]
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


def test_a_spawned_process_leaves_the_run_of_its_parent_alone(tmp_path):
    with Recorder([JSONLinesTracker()], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
        child = multiprocessing.get_context("spawn").Process(target=os.getpid)
        child.start()
        child.join(60)

    assert child.exitcode == 0
    assert steps_in_jsonl(recorder.run.directory) == [1]


# F46
def test_a_place_that_tensorboard_cannot_write_is_warned_of(tmp_path):
    tracker = TensorBoardTracker(str(tmp_path / "file" / "board"))
    (tmp_path / "file").touch()

    def record():
        with Recorder([tracker], Run.new(tmp_path)) as recorder:
            recorder.log_metrics({"loss": 1.0}, step=1)

    with pytest.warns(
        TrackingWarning, match=r"'tensorboard': start raised NotADirectoryError.*gymtrain sync"
    ) as warned:
        record()
    (tmp_path / "file").unlink()
    (directory,) = unfinished(tmp_path)
    sync(directory)

    assert len(warned) == 1
    assert len(list((tmp_path / "file").rglob("*.gymtrain"))) == 1


def test_a_damaged_line_is_passed_over_with_a_warning_and_the_rest_delivered(tmp_path):
    with Recorder([], Run.new(tmp_path)) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
    path = recorder.run.directory / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"rubbish\n" + b"".join(lines[1:]))
    history = HistoryTracker()

    sync(recorder.run.directory, {"history": history})

    assert history.metrics == {"loss": [(1, 1.0)]}
    assert history.status == "FINISHED"


def test_the_journal_holds_no_password(tmp_path):
    tracker = load("mlflow", tracking_uri="http://me:secret@127.0.0.1:9/")
    run = Run.new(tmp_path)

    assert "secret" not in json.dumps(tracker.arguments(run))
    assert tracker.arguments(run)["tracking_uri"] == "http://me:***@127.0.0.1:9/"


def test_the_password_is_taken_from_the_environment_again(monkeypatch):
    server, database = "http://me:***@127.0.0.1:9/", "postgresql://me:***@db/x"

    assert load("mlflow", tracking_uri=server)._given_uri == "http://127.0.0.1:9/"
    with pytest.raises(ArgumentError, match="lacks its password; set MLFLOW_TRACKING_URI"):
        load("mlflow", tracking_uri=database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/x")
    assert load("mlflow", tracking_uri=database)._given_uri == "postgresql://me:secret@db/x"


def test_a_journal_without_a_start_is_refused(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"verb": "end", "status": "FINISHED"})
    journal.close()

    with pytest.raises(TrackerError, match="has no entry that starts a run"):
        sync(tmp_path)
