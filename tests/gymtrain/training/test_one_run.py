"""A training that is interrupted and resumed is one run, wherever it is shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from user_code import KeptHistory

from gymtrain import Callback, CallbackError, Trainer, TrainingError
from gymtrain_trackers import RunBusyError, read_journal, sync
from gymtrain_trackers.files import RunLock

TESTS = Path(__file__).parents[2]


class Stop(Callback):
    """Ends a training as Ctrl-C would, after a step."""

    def __init__(self, step: int, kind: type[BaseException] = KeyboardInterrupt) -> None:
        self.step, self.kind = step, kind

    def on_step_end(self, state: Any) -> None:
        if state.step == self.step:
            raise self.kind("stopped")


# 4 steps in an epoch.
TRAINING = {"epochs": 4, "batch_size": 24, "validation_split": 0.2, "checkpoint": {"every_steps": 3, "every_epochs": 1}}
TRACKING = {"log_every_n_steps": 1}


def interrupted(kept: Any, step: int = 7, **training: Any) -> tuple[Trainer, Any]:
    """Return a trainer that was interrupted after a step, and what gives its tracker."""
    trainer, tracker = kept(training={**TRAINING, **training}, tracking=TRACKING)
    with pytest.raises(KeyboardInterrupt):
        trainer.train([Stop(step)])
    return trainer, tracker


def run_of(trainer: Trainer) -> Path:
    assert trainer.result is not None
    return Path(trainer.result["run"]["run_dir"])


def points(directory: Path) -> Counter[tuple[str, int]]:
    entries = [entry for entry in read_journal(directory / "journal.jsonl") if entry["verb"] == "log_metrics"]
    return Counter((key, step) for entry in entries for key, _, step, _ in entry["metrics"])


def steps_of(history: KeptHistory, key: str) -> list[int]:
    return [step for step, _ in history.metrics[key]]


def test_a_training_that_is_resumed_goes_on_in_its_own_run(kept):
    first, _ = interrupted(kept)
    before = run_of(first)

    again, tracker = kept(training=TRAINING, tracking=TRACKING)
    result = again.train(resume="auto")

    assert Path(result["run"]["run_dir"]) == before
    assert result["run"]["run_id"] == first.result["run"]["run_id"]
    assert [path.parent for path in before.parents[1].glob("*/*/journal.jsonl")] == [before]
    assert json.loads((before / "result.json").read_text())["status"] == tracker().status == "FINISHED"
    assert set(points(before).values()) == {1}
    assert steps_of(tracker(), "train/loss") == [1, 2, 3, 4]
    assert steps_of(tracker(), "batch/loss") == list(range(1, 17))
    assert tracker().metrics["val/loss"] == list(enumerate(result["metrics"]["val/loss"], start=1))
    assert tracker().tags["gymtrain.resumes"] == "1"
    assert "gymtrain.resumed_from" not in tracker().tags


def test_it_shows_the_same_numbers_as_one_that_was_never_interrupted(kept, tmp_path):
    whole, shown = kept(training=TRAINING, tracking={**TRACKING, "root": str(tmp_path / "whole")})
    whole.train()
    expected = shown().metrics

    trainer, _ = interrupted(kept, step=2)
    for step in (6, 11, 12):
        trainer, _ = kept(training=TRAINING, tracking=TRACKING)
        with pytest.raises(KeyboardInterrupt):
            trainer.train([Stop(step)], resume="auto")
    trainer, tracker = kept(training=TRAINING, tracking=TRACKING)
    trainer.train(resume="auto")

    of_times = ("time/", "perf/", "system/", "model/inference_ms")
    assert {key for key in expected if not key.startswith(of_times)} <= tracker().metrics.keys()
    for key, values in tracker().metrics.items():
        assert key.startswith(of_times) or values == expected[key]
    assert set(points(run_of(trainer)).values()) == {1}
    assert tracker().tags["gymtrain.resumes"] == "4"


def test_samples_of_the_system_go_on_counting(kept):
    interrupted(kept)

    trainer, tracker = kept(training=TRAINING)
    trainer.train(resume="auto")

    assert steps_of(tracker(), "system/cpu_utilization_percentage") == [0, 1, 2, 3]


def test_inputs_and_params_are_not_told_twice_and_a_change_is_shown(kept):
    interrupted(kept)

    trainer, tracker = kept(training={**TRAINING, "epochs": 6}, tracking=TRACKING)
    trainer.train(resume="auto")

    history = tracker()
    assert sorted(each.context for each in history.inputs) == ["test", "training", "validation"]
    assert history.params["training/epochs"] == 6
    assert history.tags["gymtrain.resume_changed/training/epochs"] == "4 -> 6"
    assert json.loads(history.assets["spec.json"].read_text())["model"]["training"]["epochs"] == 4
    assert json.loads(history.assets["spec.resume-1.json"].read_text())["model"]["training"]["epochs"] == 6


def test_a_run_that_had_finished_goes_on_and_its_newer_summary_is_told(kept):
    first, _ = kept(training=TRAINING)
    first.train()

    trainer, tracker = kept(training={**TRAINING, "epochs": 6})
    result = trainer.train(resume="auto")

    metrics, best = tracker().metrics, result["best"]["epoch"]
    assert run_of(trainer) == run_of(first)
    assert steps_of(tracker(), "train/loss") == [1, 2, 3, 4, 5, 6]
    assert metrics["best/epoch"][-1] == (best, best)
    assert metrics["best/val_loss"][-1] == (best, result["best"]["value"])
    assert len(metrics["time/total_s"]) == 2


def test_nothing_left_to_do_changes_nothing_but_that_it_was_looked(kept):
    first, tracker = kept(training=TRAINING)
    before = first.train()
    shown = tracker().metrics

    again, tracker = kept(training=TRAINING)
    after = again.train(resume="auto")

    assert run_of(again) == run_of(first)
    assert after["metrics"] == before["metrics"]
    assert tracker().status == after["status"] == "FINISHED"
    assert {key: values for key, values in tracker().metrics.items() if not key.startswith("system/")} == {
        key: values for key, values in shown.items() if not key.startswith("system/")
    }


def test_a_run_that_died_and_was_ended_by_another_is_right_again(kept):
    trainer, _ = kept(training=TRAINING)
    with pytest.raises(CallbackError, match="stopped"):
        trainer.train([Stop(7, ValueError)])
    journal = run_of(trainer) / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"verb":"end"' not in line))
    sync(run_of(trainer), trackers={"kept_history": KeptHistory()})
    assert KeptHistory.last.tags["gymtrain.ended"] == "process died"
    assert KeptHistory.last.status == "KILLED"

    again, tracker = kept(training=TRAINING)
    again.train(resume="auto")

    assert run_of(again) == run_of(trainer)
    assert tracker().status == "FINISHED"
    assert not {"gymtrain.ended", "gymtrain.error"} & tracker().tags.keys()


def test_checkpoints_of_the_earlier_process_count(kept):
    checkpoint = {"every_epochs": 1, "keep_last": 1, "keep_best": 2}
    training = {**TRAINING, "optimizer": {"type": "SGD", "lr": 1.5}, "checkpoint": checkpoint}
    interrupted(kept, step=14, **training)

    trainer, _ = kept(training=training)
    losses = trainer.train(resume="auto")["metrics"]["val/loss"]

    left = [int(path.name.split("-")[1]) for path in sorted((run_of(trainer) / "checkpoints").iterdir())]
    best = sorted(range(1, 5), key=lambda epoch: losses[epoch - 1])[:2]
    assert left == sorted({4, *best})


def test_what_people_put_beside_the_checkpoints_stays(kept):
    trainer, _ = interrupted(kept)
    folder = run_of(trainer) / "checkpoints"
    shutil.copy(max(folder.iterdir()), folder / "epoch-of-mine.zip")

    kept(training=TRAINING)[0].train(resume=run_of(trainer))

    assert (folder / "epoch-of-mine.zip").exists()


@pytest.mark.parametrize("change", [{"experiment": "other"}, {"root": "other"}, {"run_name": "other"}])
def test_another_place_or_name_is_another_run(kept, tmp_path, change):
    first, _ = interrupted(kept)
    change = {key: str(tmp_path / value) if key == "root" else value for key, value in change.items()}

    trainer, tracker = kept(training=TRAINING, tracking={**TRACKING, **change})
    trainer.train(resume=run_of(first))

    assert run_of(trainer) != run_of(first)
    assert tracker().tags["gymtrain.resumed_from"].startswith(str(run_of(first)))
    assert "gymtrain.resumes" not in tracker().tags
    assert len(points(run_of(trainer))) < len(points(run_of(first))) + 100
    assert json.loads((run_of(first) / "result.json").read_text())["status"] == "KILLED"


def test_an_older_checkpoint_and_a_copied_one_begin_runs_of_their_own(kept, tmp_path):
    first, _ = interrupted(kept, step=14)
    older, newest = sorted((run_of(first) / "checkpoints").iterdir())[-2:]
    copied = shutil.copy(newest, tmp_path / newest.name)
    run = shutil.copytree(run_of(first), run_of(first).with_name("copied"))

    runs = []
    for path in (older, copied, run):
        trainer, tracker = kept(training=TRAINING, tracking=TRACKING)
        runs.append(trainer.train(resume=path)["run"]["run_dir"])
        assert "gymtrain.resumed_from" in tracker().tags
    trainer, _ = kept(training=TRAINING, tracking=TRACKING)

    assert len({str(run_of(first)), *runs}) == 4
    assert trainer.train(resume=newest)["run"]["run_dir"] == str(run_of(first))


def test_a_damaged_newest_checkpoint_keeps_the_run(kept):
    first, _ = interrupted(kept, step=14)
    newest = max((run_of(first) / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])

    trainer, tracker = kept(training=TRAINING, tracking=TRACKING)
    with pytest.warns(UserWarning, match="it is passed over"):
        trainer.train(resume="auto")

    assert run_of(trainer) == run_of(first)
    assert set(points(run_of(trainer)).values()) == {1}
    assert steps_of(tracker(), "batch/loss") == list(range(1, 17))


def test_a_checkpoint_that_is_written_while_another_is_chosen_is_gone_on_with(kept, monkeypatch):
    first, _ = interrupted(kept, step=14)
    newest = max((run_of(first) / "checkpoints").iterdir())
    aside = newest.rename(run_of(first) / newest.name)
    acquire = RunLock.acquire

    def acquired(lock: RunLock, task: Any = "record") -> None:
        """Let the process that has the run write its last checkpoint, just before it goes."""
        if aside.exists():
            aside.rename(newest)
        acquire(lock, task)

    monkeypatch.setattr(RunLock, "acquire", acquired)
    trainer, tracker = kept(training=TRAINING, tracking=TRACKING)
    with pytest.warns(UserWarning, match=f"{newest.name} was written while .* was read; it is gone on with"):
        result = trainer.train(resume="auto")

    assert result["resumed_from"] == str(newest)
    assert run_of(trainer) == run_of(first)
    assert set(points(run_of(trainer)).values()) == {1}
    assert steps_of(tracker(), "batch/loss") == list(range(1, 17))


# F51
@pytest.mark.parametrize("resume", ["auto", "run"])
def test_a_run_that_is_still_going_is_not_gone_on_with(kept, resume):
    first, _ = interrupted(kept)
    lock = RunLock(run_of(first))
    lock.acquire()
    before = {path: path.read_bytes() for path in run_of(first).rglob("*") if path.is_file()}

    trainer, _ = kept(training=TRAINING, tracking=TRACKING)
    with pytest.raises(TrainingError, match=rf"still going: process {os.getpid()} on .*, since .*, is at") as refused:
        trainer.train(resume=run_of(first) if resume == "run" else "auto")

    assert isinstance(refused.value.__cause__, RunBusyError)
    assert {path: path.read_bytes() for path in run_of(first).rglob("*") if path.is_file()} == before
    lock.release()


def test_a_run_that_another_is_just_delivering_is_waited_for(kept):
    first, _ = interrupted(kept)
    script = """
import sys, time
from pathlib import Path
from gymtrain_trackers.files import RunLock
RunLock(Path(sys.argv[1])).acquire("deliver")
print(flush=True)
time.sleep(0.5)
"""
    child = subprocess.Popen([sys.executable, "-c", script, run_of(first)], stdout=subprocess.PIPE)
    child.stdout.readline()

    trainer, _ = kept(training=TRAINING, tracking=TRACKING)
    trainer.train(resume="auto")

    assert run_of(trainer) == run_of(first)
    child.communicate()


KILLED = """
import json, os, signal, sys
from gymtrain import Callback, Trainer

class Die(Callback):
    def on_step_end(self, state):
        if state.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

trackers = ["mlflow", "tensorboard", "jsonl"]
Trainer(
    dataset={"dataset": "iris"},
    model={
        "model": {"type": "mlp", "dropout": 0.5},
        "training": {
            "epochs": 4,
            "batch_size": 24,
            "validation_split": 0.2,
            "checkpoint": {"every_steps": 3, "every_epochs": 1},
        },
    },
    tracking={"root": sys.argv[1], "experiment": "killed", "log_every_n_steps": 1, "trackers": trackers},
).train([Die()], resume="auto")
"""


@pytest.mark.slow
def test_a_curve_has_each_step_once_everywhere_however_often_the_process_was_killed(tmp_path):
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (5, 7, 13, 16, 99):
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (-signal.SIGKILL if step < 99 else 0), done.stderr

    (journal,) = tmp_path.glob("killed/*/journal.jsonl")
    result = json.loads((journal.parent / "result.json").read_text())
    client = MlflowClient(result["run"]["tracking_uri"])
    (stored,) = client.search_runs([result["run"]["experiment_id"]])
    (events,) = (tmp_path / "tensorboard").rglob("*.gymtrain")
    shown = EventAccumulator(str(events), size_guidance={"scalars": 0})
    shown.Reload()
    lines = [json.loads(line) for line in (journal.parent / "metrics.jsonl").read_text().splitlines()]
    counted = points(journal.parent)
    assert set(counted.values()) == {1}
    assert Counter((line["key"], line["step"]) for line in lines if line["kind"] == "metric") == counted
    for key in {key for key, _ in counted}:
        steps = sorted(step for name, step in counted if name == key)
        assert [point.step for point in client.get_metric_history(stored.info.run_id, key)] == steps
        assert sorted(event.step for event in shown.Scalars(key)) == steps
    assert sorted(step for key, step in counted if key == "batch/loss") == list(range(1, 17))
    assert stored.info.status == "FINISHED"
    assert stored.info.end_time >= stored.info.start_time
    assert "gymtrain.ended" not in stored.data.tags
    assert "gymtrain.param_drift" not in stored.data.tags
