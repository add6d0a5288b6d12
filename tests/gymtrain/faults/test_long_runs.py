from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import user_code

from gymtrain import Callback
from gymtrain_trackers import Metric, Recorder, Run, Tracker

MB = 2**20


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Measure(Callback):
    """Reads the memory in use, every so many epochs and steps."""

    def __init__(self, epochs: int = 0, steps: int = 0) -> None:
        self.epochs, self.steps, self.seen = epochs, steps, []

    def on_epoch_end(self, state):
        if self.epochs and state.epoch % self.epochs == 0:
            self.seen.append(resident())

    def on_step_end(self, state):
        if self.steps and state.step % self.steps == 0:
            self.seen.append(resident())


ROWS = dict(zip("Xy", user_code.rows_of("regression", 12), strict=True))
TRACKING = {"log_every_n_steps": 1, "log_system_metrics": False}


@pytest.mark.slow
def test_thousands_of_epochs_do_not_fill_the_memory(tiny):
    training = {"epochs": 3000, "validation_split": 0.25, "early_stopping": {"patience": 3000}}
    measure = Measure(epochs=500)

    result = tiny({"type": "arrays", **ROWS}, training=training, tracking=TRACKING).train([measure])

    assert len(result["metrics"]["train/loss"]) == len(result["metrics"]["val/loss"]) == 3000
    assert max(measure.seen) - measure.seen[0] <= 10 * MB  # 32 MB in 10 000 epochs


@pytest.mark.slow
def test_steps_that_are_all_logged_do_not_fill_the_memory(tiny):
    training = {"epochs": None, "max_steps": 10_000, "batch_size": 1}
    measure = Measure(steps=1000)
    tracking = {**TRACKING, "trackers": [{"type": "jsonl"}]}

    result = tiny({"type": "arrays", **ROWS}, training=training, tracking=tracking).train([measure])

    assert max(measure.seen) - measure.seen[0] <= 8 * MB
    journal = Path(result["run"]["run_dir"]) / "journal.jsonl"
    assert [step for key, _, step, _ in points(journal) if key == "batch/loss"] == list(range(1, 10_001))


class Stuck(Tracker):
    """Takes nothing before it is let go; then counts what comes."""

    name = "stuck"

    def __init__(self) -> None:
        self.may_go, self.count = threading.Event(), 0

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        self.may_go.wait()
        self.count += len(metrics)


@pytest.mark.slow
def test_points_that_wait_for_a_tracker_do_not_fill_the_memory(tmp_path):
    tracker, run = Stuck(), Run.new(tmp_path)
    with Recorder([tracker], run) as recorder:
        before = resident()
        for start in range(0, 500_000, 1000):
            recorder.log_metric_points([Metric("loss", step / 2, step, 0.0) for step in range(start, start + 1000)])
        waiting = resident()
        tracker.may_go.set()

    assert tracker.count == sum(1 for _ in points(run.directory / "journal.jsonl")) == 500_000
    assert waiting - before <= 32 * MB


def points(journal: Path) -> Iterator[list]:
    with journal.open() as file:
        for line in file:
            yield from json.loads(line).get("metrics", [])
