from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import user_code

from gymtrain import Callback, DataError, SpecError, TrainingError
from gymtrain.specs import Experiment
from gymtrain.tracking import Report
from gymtrain.tracking.params import model_params, training_params
from gymtrain_trackers import TrackerError, TrackingWarning

TESTS = Path(__file__).parents[2]
X, Y = user_code.rows_of("multiclass")
ROWS = {"type": "arrays", "X": X, "y": Y}
THREE_PARTS = {"train": 24, "val": 8, "test": 8}


def test_two_runs_of_one_kind_have_the_same_params_and_differ_where_they_differ(kept):
    params = []
    for lr, seed in ((0.1, 0), (0.2, 1)):
        training = {"epochs": 1, "optimizer": {"type": "SGD", "lr": lr}}
        trainer, tracker = kept(ROWS, training=training, seed=seed)
        trainer.train()
        params.append(tracker().params)

    first, second = params
    assert list(first) == list(second)
    assert {key for key in first if first[key] != second[key]} == {"training/optimizer/lr", "dataset/seed"}
    assert first["model/type"] == "linear"
    assert first["dataset/samples/train"] == 0.8
    assert first["training/batch_size"] == 32


def test_the_params_are_the_whole_resolved_spec_but_for_the_tracking():
    spec = Experiment(
        dataset={"dataset": "iris", "preprocessors": ["standard_scaler", {"type": "divide", "factor": 2.0}]},
        model={"model": {"type": "mlp", "hidden": [4, 4]}},
    ).to_dict()

    params = model_params(spec) | training_params(spec)

    assert params["dataset/preprocessors/1/factor"] == 2.0
    assert params["model/hidden"] == [4, 4]
    assert not any("tracking" in key for key in params)
    assert all(not isinstance(value, dict) for value in params.values())


def test_metrics_of_epochs_are_at_their_epoch_and_those_of_steps_at_their_step(kept):
    training = {"epochs": 3, "batch_size": 8}
    trainer, tracker = kept(ROWS, samples=THREE_PARTS, training=training, tracking={"log_every_n_steps": 2})

    result = trainer.train()

    metrics = tracker().metrics
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert metrics[name] == list(enumerate(result["metrics"][name], start=1))
    assert [step for step, _ in metrics["batch/loss"]] == [2, 4, 6, 8]
    assert [(step, epoch) for step, epoch in metrics["batch/epoch"]] == [(2, 1), (4, 2), (8, 3)]


def test_the_loss_of_a_step_is_the_one_that_the_epoch_is_the_mean_of(kept):
    training = {"epochs": 1, "batch_size": 8}
    trainer, tracker = kept(ROWS, samples=THREE_PARTS, training=training, tracking={"log_every_n_steps": 1})

    result = trainer.train()

    losses = [value for _, value in tracker().metrics["batch/loss"]]
    assert np.mean(losses) == pytest.approx(result["metrics"]["train/loss"][0], rel=1e-6)


def test_what_belongs_to_the_whole_run_is_at_the_epoch_whose_weights_are_kept(kept):
    training = {"epochs": 4, "optimizer": {"type": "SGD", "lr": 2.0}}
    trainer, tracker = kept(ROWS, samples=THREE_PARTS, training=training)

    result = trainer.train()

    best, metrics = result["best"]["epoch"], tracker().metrics
    assert metrics["best/epoch"] == [(best, best)]
    assert metrics["best/val_loss"] == [(best, result["best"]["value"])]
    assert metrics["best/train_loss"] == [(best, result["metrics"]["train/loss"][best - 1])]
    assert metrics["test/loss"] == [(best, result["metrics"]["test/loss"])]
    assert metrics["model/params_total"] == [(best, 21)]
    assert metrics["perf/samples_per_s"][0][1] > 0
    assert metrics["time/fit_model_s"] == [(best, result["elapsed"]["fit_model"])]
    assert 0 < metrics["time/total_s"][0][1] <= result["elapsed"]["total"]
    assert tracker().tags["gymtrain.weights"] == "best"


def test_a_run_without_validation_says_that_its_weights_are_the_last(kept):
    trainer, tracker = kept(ROWS, training={"epochs": 2})

    trainer.train()

    assert tracker().tags["gymtrain.weights"] == "last"
    assert "weights: of the last epoch" in tracker().tags["mlflow.note.content"]
    assert not any(name.startswith("best/") for name in tracker().metrics)


def digests(kept, X, **changes):
    trainer, tracker = kept({**ROWS, "X": X, **changes}, samples=THREE_PARTS)
    trainer.train()
    return {each.context: each.digest for each in tracker().inputs}


def test_the_data_of_a_run_has_digests_that_one_byte_changes(kept):
    changed = X.copy()
    changed[0, 0] += 1e-6
    relabelled = Y.copy()
    relabelled[0] = Y[Y[0] != Y][0]

    first, again, other = digests(kept, X), digests(kept, X.copy()), digests(kept, changed)
    labels = digests(kept, X, y=relabelled)

    assert first == again
    assert set(first) == {"training", "validation", "test"}
    assert sum(first[part] != other[part] for part in first) == 1
    assert sum(first[part] != labels[part] for part in first) == 1


def test_the_data_of_a_run_is_described(kept):
    trainer, tracker = kept(ROWS, samples=THREE_PARTS)
    trainer.train()

    training = next(each for each in tracker().inputs if each.context == "training")

    assert training.name == "arrays"
    assert training.profile["rows"] == 24
    assert sum(training.profile["classes"].values()) == 24
    assert training.schema["shape"] == [6]


# Endings (F48).


def written(run_directory):
    return json.loads((Path(run_directory) / "result.json").read_text())


def test_a_run_that_ends_well_is_finished(kept):
    trainer, tracker = kept(ROWS)

    result = trainer.train()

    assert tracker().status == "FINISHED" == result["status"]
    assert tracker().tags["gymtrain.stop_reason"] == "epochs"
    assert written(result["run"]["run_dir"]) == result == trainer.result


def test_a_run_that_fails_is_failed_and_keeps_the_metrics_that_it_had(kept):
    class Bad(Callback):
        def on_epoch_end(self, state):
            if state.epoch == 2:
                raise ValueError("broken")

    trainer, tracker = kept(ROWS, training={"epochs": 5})

    with pytest.raises(RuntimeError, match="broken"):
        trainer.train([Bad()])

    assert tracker().status == "FAILED" == trainer.result["status"]
    assert tracker().tags["gymtrain.stop_reason"] == "error"
    assert "broken" in tracker().tags["gymtrain.error"]
    assert "error.txt" in tracker().assets
    assert len(trainer.result["metrics"]["train/loss"]) == 2
    assert written(trainer.result["run"]["run_dir"]) == trainer.result


def test_a_run_whose_data_fails_is_failed(kept):
    trainer, tracker = kept({**ROWS, "y": Y[:3]})

    with pytest.raises(DataError):
        trainer.train()

    assert tracker().status == "FAILED"
    assert written(trainer.result["run"]["run_dir"])["metrics"] == {}


@pytest.mark.parametrize("signal_", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_broken_off_is_killed(kept, signal_):
    class Break(Callback):
        def on_epoch_end(self, state):
            raise signal_

    trainer, tracker = kept(ROWS, training={"epochs": 5})

    with pytest.raises(signal_):
        trainer.train([Break()])

    assert tracker().status == "KILLED" == trainer.result["status"]
    assert trainer.result["stop_reason"] == {KeyboardInterrupt: "interrupt", SystemExit: "signal"}[signal_]
    assert written(trainer.result["run"]["run_dir"]) == trainer.result


def test_a_loss_that_is_no_number_leaves_the_losses_that_led_there(kept):
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"type": "SGD", "lr": 1e30}}
    trainer, tracker = kept(
        {"type": "user_rows", "task": "regression"}, training=training, tracking={"log_every_n_steps": 1}
    )

    with pytest.raises(TrainingError, match="the loss became"):
        trainer.train()

    assert [step for step, _ in tracker().metrics["batch/loss"]] == [1, 2, 3, 4]
    assert tracker().tags["gymtrain.stop_reason"] == "nan"


LONG_RUN = """
import sys
from pathlib import Path
from gymtrain import Callback, Trainer

class Started(Callback):
    def on_epoch_end(self, state):
        Path("started").touch()

trainer = Trainer(
    dataset={"dataset": "iris"},
    model={"model": "linear", "training": {"epochs": 10_000_000}},
    tracking={"root": "runs", "trackers": ["jsonl"], "experiment": "long"},
)
trainer.train([Started()])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason", "code"), [(signal.SIGTERM, "signal", 143), (signal.SIGINT, "interrupt", -signal.SIGINT)]
)
def test_a_process_that_is_told_to_end_closes_its_run_as_killed(tmp_path, number, reason, code):
    process = subprocess.Popen([sys.executable, "-c", LONG_RUN], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "started").exists():
        time.sleep(0.05)

    process.send_signal(number)
    _, printed = process.communicate(timeout=60)

    assert process.returncode == code, printed
    (run,) = (tmp_path / "runs" / "long").iterdir()
    result = written(run)
    assert (result["status"], result["stop_reason"]) == ("KILLED", reason)
    assert result["metrics"]["train/loss"]
    assert "total" in result["elapsed"]
    last = (run / "journal.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["status"] == "KILLED"


def test_a_signal_handler_of_the_program_is_left_alone(tiny):
    def handler(number, frame):
        raise AssertionError("not called here")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        tiny(ROWS).train()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    tiny(ROWS).train()
    assert signal.getsignal(signal.SIGTERM) == before


# What is off, and what fails.


@pytest.mark.parametrize(
    ("switch", "kept_out"),
    [
        ("log_model_params", ("param model/", "param dataset/")),
        ("log_training_params", ("param training/",)),
        ("log_model_metrics", ("metric train/", "metric val/", "metric batch/", "metric best/", "metric test/")),
        ("log_system_metrics", ("metric system/",)),
    ],
)
def test_a_switch_keeps_its_part_out_and_nothing_else(kept, switch, kept_out):
    logged = []
    for on in (True, False):
        tracking = {switch: on, "log_every_n_steps": 1}
        trainer, tracker = kept(ROWS, samples=THREE_PARTS, tracking=tracking)
        trainer.train()
        logged.append({f"param {key}" for key in tracker().params} | {f"metric {key}" for key in tracker().metrics})

    assert logged[0] - logged[1] >= {name for name in logged[0] if name.startswith(kept_out)} != set()
    if switch != "log_model_metrics":
        assert logged[1] == {name for name in logged[0] if not name.startswith(kept_out)}


def test_no_loss_of_a_step_is_logged_where_none_is_wanted(kept):
    trainer, tracker = kept(ROWS, tracking={"log_every_n_steps": 0})

    trainer.train()

    assert not any(name.startswith("batch/") for name in tracker().metrics)


@pytest.mark.slow
def test_a_tracker_that_is_down_does_not_end_the_training(tiny):
    trainer = tiny(ROWS, tracking={"trackers": ["broken"]})

    with pytest.warns(TrackingWarning, match="the server is down"):
        result = trainer.train()

    assert result["status"] == "FINISHED"
    assert result["run"]["trackers"]["broken"]["status"] == "degraded"


def test_a_tracker_that_is_down_ends_the_training_where_that_is_asked_for(tiny):
    tracking = {"trackers": ["broken"], "on_error": "raise", "log_figures": False}
    trainer = tiny(ROWS, training={"epochs": 3}, tracking=tracking)

    with pytest.raises(TrainingError, match=r"tracking: .*the server is down"):
        trainer.train()

    assert trainer.result["status"] == "FAILED"


def test_what_is_only_attempted_is_warned_of_but_for_a_tracker_that_is_to_raise(tmp_path):
    experiment = Experiment(dataset={"dataset": "iris"}, model={"model": "linear"}, tracking={"root": str(tmp_path)})
    report = Report(experiment, experiment.to_dict(), "0" * 64)

    with pytest.warns(UserWarning, match="^the figure is left out: ValueError: too odd$"), report.attempt("the figure"):
        raise ValueError("too odd")
    with pytest.raises(TrackerError, match="the server is down"), report.attempt("the figure"):
        raise TrackerError("the server is down")


def test_a_tracker_that_refuses_its_arguments_is_named(tiny):
    with pytest.raises(
        SpecError, match=r"tracking\.trackers\[0\]: mlflow tracking_uri: 'file:\./mlruns' is a directory"
    ):
        tiny(ROWS, tracking={"trackers": [{"type": "mlflow", "tracking_uri": "file:./mlruns"}]})


def test_a_result_that_cannot_be_written_is_warned_about_and_returned(tiny):
    class Occupy(Callback):
        def on_fit_model_begin(self, state):
            (run,) = (Path(trainer.to_dict()["tracking"]["root"]) / "arrays").iterdir()
            (run / "result.json").mkdir()

    trainer = tiny(ROWS)

    with pytest.warns(UserWarning, match=r"the result is in trainer\.result alone: .*result\.json"):
        result = trainer.train([Occupy()])
    assert result["status"] == "FINISHED"


def test_a_metric_that_is_no_number_is_null_in_the_result(tiny):
    X, y = user_code.rows_of("regression")
    trainer = tiny(
        {"type": "arrays", "X": X, "y": np.where(np.arange(40) < 38, y, 1.0)},
        samples={"train": 38, "test": 2},
        training={"epochs": 1, "metrics": ["pearson_corr_coef"]},
        shuffle=False,
    )

    with pytest.warns(UserWarning, match="variance"):
        result = trainer.train()

    assert result["metrics"]["test/pearson_corr_coef"] is None


def test_runs_and_their_folders_have_the_names_that_were_asked_for(tiny, tmp_path):
    run = tiny(ROWS, tracking={"experiment": "Änderung", "run_name": "first try"}).train()["run"]

    assert (run["experiment"], run["name"]) == ("Änderung", "first try")
    assert Path(run["run_dir"]).is_relative_to(tmp_path / "runs")
    assert Path(run["run_dir"]).is_absolute()


# The real things.


@pytest.mark.slow
def test_mlflow_and_tensorboard_show_the_run(tiny):
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = {"epochs": 3, "batch_size": 8}
    tracking = {"trackers": ["mlflow", "tensorboard"], "tags": {"who": "me"}, "log_every_n_steps": 1}
    trainer = tiny(ROWS, samples=THREE_PARTS, training=training, tracking=tracking)

    result = trainer.train()

    run = result["run"]
    client = MlflowClient(tracking_uri=run["tracking_uri"])
    stored = client.get_run(run["run_id"])
    assert stored.info.status == "FINISHED"
    assert stored.info.experiment_id == run["experiment_id"]
    assert stored.data.params["training/batch_size"] == "8"
    assert stored.data.params["model/type"] == "linear"
    assert stored.data.tags["who"] == "me"
    assert stored.data.metrics["test/loss"] == pytest.approx(result["metrics"]["test/loss"])
    points = client.get_metric_history(run["run_id"], "val/accuracy")
    assert [(point.step, point.value) for point in points] == list(enumerate(result["metrics"]["val/accuracy"], 1))
    assert [point.step for point in client.get_metric_history(run["run_id"], "batch/loss")] == list(range(1, 10))
    contexts = {each.tags[0].value: each.dataset.digest for each in stored.inputs.dataset_inputs}
    assert set(contexts) == {"training", "validation", "test"}
    assert f"mlflow ui --backend-store-uri {run['tracking_uri']}" in run["ui"]

    events = EventAccumulator(run["tensorboard_dir"]).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(epoch, pytest.approx(loss)) for epoch, loss in enumerate(result["metrics"]["train/loss"], 1)]
    assert len(events.Scalars("batch/loss")) == 9
    assert os.path.isdir(run["tensorboard_dir"])
