from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gymtrain
from gymtrain import Callback, Trainer


def weights_of(bundle: Path) -> str:
    return gymtrain.inspect(bundle)["manifest"]["members"]["weights.safetensors"]["sha256"]


# The clock.

# Trains once for each clock, which stands in the place of `time.time` before anything is imported.
CLOCKS = """
import json, sys, time
from pathlib import Path

real, real_ns = time.time, time.time_ns
offset = 0.0
time.time = lambda: real() + offset
time.time_ns = lambda: real_ns() + int(offset * 1e9)

from mlflow import MlflowClient
from gymtrain import Callback, Trainer

class SetBack(Callback):
    def on_epoch_end(self, state):
        global offset
        if state.epoch == 2:
            offset -= 3600.0

ends = {}
begins = {"set back": real(), "1970": 60.0, "2038": 2.0**31 - 1, "2106": 2.0**32}
for name, begin in begins.items():
    offset = begin - real()
    root = Path(sys.argv[1]) / name
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={
            "model": {"type": "mlp", "dropout": 0.5},
            "training": {"epochs": 4, "validation_split": 0.2, "checkpoint": {}},
        },
        tracking={"root": str(root), "log_every_n_steps": 1, "trackers": ["mlflow", "tensorboard"]},
    )
    result = trainer.train([SetBack()] if name == "set back" else [])
    trainer.save(root / "model.zip")
    run = result["run"]
    client = MlflowClient(run["tracking_uri"])
    ends[name] = {
        "result": result,
        "bundle": str(root / "model.zip"),
        "mlflow status": client.get_run(run["run_id"]).info.status,
        "mlflow steps": [point.step for point in client.get_metric_history(run["run_id"], "train/loss")],
    }
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", CLOCKS, str(tmp_path_factory.mktemp("clocks"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["set back", "1970", "2038", "2106"])
def test_a_clock_that_is_wrong_loses_nothing(clocks, clock):
    end = clocks[clock]
    result = end["result"]

    assert result["status"] == end["mlflow status"] == "FINISHED"
    assert sorted(end["mlflow steps"]) == [1, 2, 3, 4]
    steps: dict[str, list[int]] = {}
    for line in (Path(result["run"]["run_dir"]) / "journal.jsonl").read_text().splitlines():
        for key, _, step, _ in json.loads(line).get("metrics", []):
            steps.setdefault(key, []).append(step)
    assert steps["train/loss"] == steps["val/loss"] == [1, 2, 3, 4]
    assert steps["batch/loss"] == list(range(1, steps["batch/loss"][-1] + 1))
    # Durations are of a clock that nobody sets.
    assert all(seconds >= 0 for seconds in result["elapsed"].values())
    assert result["elapsed"]["total"] < 1800
    assert weights_of(Path(end["bundle"])) == weights_of(Path(clocks["1970"]["bundle"]))


class Interrupt(Callback):
    def on_epoch_begin(self, state):
        if state.epoch == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize("resume", ["auto", "run"])
def test_the_furthest_checkpoint_of_a_run_is_taken_although_the_clock_was_set_back(tiny, resume):
    training = {"epochs": 5, "checkpoint": {"keep_last": 3}}
    trainer = tiny(training=training)
    with pytest.raises(KeyboardInterrupt):
        trainer.train([Interrupt()])
    checkpoints = sorted(Path(trainer.result["run"]["checkpoint_dir"]).glob("*.zip"))
    hour = 3600 * 10**9
    for age, path in enumerate(checkpoints):
        written = path.stat().st_mtime_ns - age * hour
        os.utime(path, ns=(written, written))

    run = "auto" if resume == "auto" else trainer.result["run"]["run_dir"]
    result = tiny(training=training).train(resume=run)

    assert Path(result["resumed_from"]) == checkpoints[-1]


# Threads of torch.


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_the_same_seed_gives_the_same_bits_with_the_same_number_of_threads(tiny, tmp_path):
    rows, ends = np.random.default_rng(0).random((20, 64)) * 16, {}
    for number in (1, 2):
        bits = []
        for _ in range(2):
            trainer = tiny("digits", {"type": "mlp", "hidden": [64], "dropout": 0.5}, {"epochs": 2})
            with threads(number):
                trainer.train()
            trainer.save(tmp_path / "model.zip")
            bits.append((trainer.result["metrics"], weights_of(tmp_path / "model.zip")))
        assert bits[0] == bits[1]
        ends[number] = trainer.predict_proba(rows)

    # Sums are taken in another order: what is learned is the same but for the last digits.
    np.testing.assert_allclose(ends[1], ends[2], atol=1e-3)


# What surrounds a process.

PLAIN = """
import os, sys
from pathlib import Path
from gymtrain import Trainer

os.umask(int(sys.argv[2], 8))
root = Path(sys.argv[1])
trainer = Trainer(
    dataset={
        "dataset": {"type": "dataframe", "data": [
            {"größe": float(n), "farbe": "ıİß"[n % 3], "ziel": "ja" if n % 4 else "nein"} for n in range(60)
        ], "target": "ziel"},
        "samples": {"train": 0.8, "val": 0.2, "stratify": True},
    },
    model={
        "model": {"type": "mlp", "dropout": 0.5},
        "training": {"epochs": 3, "class_weight": "balanced", "metrics": ["f1", "accuracy"], "checkpoint": {}},
    },
)
result = trainer.train()
trainer.save(root / "model.zip")
(root / "checkpoints").symlink_to(result["run"]["checkpoint_dir"])
"""

SURROUNDINGS = {
    "plain": ({"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}, "022"),
    "closed": ({"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0"}, "077"),
    "open": ({"PYTHONHASHSEED": "2", "LC_ALL": "POSIX", "TZ": "XXX-14:45", "PYTHONCOERCECLOCALE": "0"}, "000"),
}


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trains in each of the surroundings, each in a directory of its own; returns the directories."""
    root, roots = tmp_path_factory.mktemp("surroundings"), {}
    program = root / "program.py"
    program.write_text(PLAIN, encoding="utf-8")
    for name, (environment, mask) in SURROUNDINGS.items():
        roots[name] = root / name
        (root / name / "here").mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-W", "ignore", str(program), str(root / name), mask],
            capture_output=True,
            check=True,
            cwd=root / name / "here",
            env={**os.environ, **environment},
        )
    return roots


@pytest.mark.slow
@pytest.mark.parametrize("name", ["closed", "open"])
def test_what_surrounds_a_process_changes_no_bit(surroundings, name):
    one, other = (gymtrain.inspect(surroundings[which] / "model.zip") for which in ("plain", name))

    for key in ("metrics", "best", "spec_sha256"):
        assert one["results"][key] == other["results"][key]
    members = ["weights.safetensors", "selfcheck.safetensors", "schema.json"]
    members += [member for member in one["manifest"]["members"] if member.startswith("preprocessors/")]
    for member in members:
        assert one["manifest"]["members"][member] == other["manifest"]["members"][member]
    assert Trainer.load(surroundings[name] / "model.zip").classes_.tolist() == ["ja", "nein"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [("plain", 0o644), ("closed", 0o600), ("open", 0o666)])
def test_bundles_and_checkpoints_may_be_read_by_whom_the_umask_lets(surroundings, name, mode):
    root = surroundings[name]
    files = [root / "model.zip", *(root / "checkpoints").glob("*.zip")]

    assert len(files) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}
