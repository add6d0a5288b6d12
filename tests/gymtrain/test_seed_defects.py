"""What went wrong in the trainer that this one follows, each of it shown not to be ours."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import user_code

import gymtrain
from gymtrain import Callback, DataError, SpecError, Trainer
from gymtrain.registry import KINDS, find, known_names
from gymtrain.training.callbacks import STAGES

X, Y = user_code.rows_of("multiclass")
ROWS = {"type": "arrays", "X": X, "y": Y}


# Trainer.


def test_the_trainer_has_the_methods_that_were_promised():
    assert list(inspect.signature(Trainer).parameters) == ["dataset", "model", "tracking"]
    for name in ("from_dict", "to_dict", "load", "save", "train", "predict", "predict_proba"):
        assert callable(getattr(Trainer, name))


def test_a_training_returns_what_it_took_what_came_out_and_what_it_ran_on(tiny):
    result = tiny(ROWS).train()

    assert list(result["elapsed"]) == [*STAGES, "total"]
    assert result["elapsed"]["total"] >= sum(result["elapsed"][stage] for stage in STAGES)
    assert result["metrics"]["train/loss"]
    hardware = result["hardware_info"]
    assert hardware["platform"]
    assert hardware["cpu"]["brand"]
    assert hardware["cpu"]["cores"] >= 1
    assert isinstance(hardware["gpu"], list)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"dataset": {**ROWS, "y": Y[:3]}}, "load_data"),
        ({"preprocessors": ["user_code:Failing"]}, "fit_preprocessors"),
        ({"data_augmentors": ["flip"]}, "augment_data"),
        ({"model": "cnn"}, "fit_model"),
    ],
)
def test_a_training_that_fails_has_its_times_and_its_machine_all_the_same(tiny, changes, failed):
    trainer = tiny(**{"dataset": ROWS, **changes})

    with pytest.raises(DataError):
        trainer.train()

    assert list(trainer.result["elapsed"]) == [*STAGES[: STAGES.index(failed) + 1], "total"]
    assert trainer.result["hardware_info"]["platform"]
    assert trainer.result["status"] == "FAILED"
    assert trainer.result["stop_reason"] == "error"


# Callbacks.


class Pairs(Callback):
    """Counts beginnings and ends."""

    def __init__(self):
        self.called = []


for _hook in (*(f"on_{stage}_{when}" for stage in STAGES for when in ("begin", "end")), "on_train_begin"):
    setattr(Pairs, _hook, lambda self, state, hook=_hook: self.called.append(hook))
Pairs.on_train_end = lambda self, state: self.called.append(("on_train_end", "total" in state.elapsed))
Pairs.on_exception = lambda self, state: self.called.append(("on_exception", type(state.exception).__name__))


def test_the_end_of_a_training_is_called_with_the_total_time(tiny):
    pairs = Pairs()

    tiny(ROWS).train([pairs])

    assert pairs.called[0] == "on_train_begin"
    assert pairs.called[-1] == ("on_train_end", True)
    assert pairs.called[1:-1] == [f"on_{stage}_{when}" for stage in STAGES for when in ("begin", "end")]


def test_a_stage_that_fails_ends_too_and_so_does_the_training(tiny):
    pairs = Pairs()

    with pytest.raises(DataError):
        tiny(ROWS, preprocessors=["user_code:Failing"]).train([pairs])

    assert pairs.called[-4:] == [
        "on_fit_preprocessors_begin",
        "on_fit_preprocessors_end",
        ("on_exception", "DataError"),
        ("on_train_end", True),
    ]


# Trackers.


@pytest.mark.parametrize(("model", "status"), [("linear", "FINISHED"), ("cnn", "FAILED")])
def test_trackers_are_ended_in_every_ending(kept, model, status):
    trainer, tracker = kept(ROWS, model)

    try:
        trainer.train()
    except DataError:
        assert status == "FAILED"

    assert tracker().status == status == trainer.result["status"]


def test_a_second_training_has_a_run_of_its_own(kept):
    trainer, tracker = kept(ROWS)

    first = trainer.train()
    epochs = tracker().metrics["train/loss"]
    second = trainer.train()

    assert first["run"]["run_id"] != second["run"]["run_id"]
    assert first["run"]["run_dir"] != second["run"]["run_dir"]
    assert tracker().metrics["train/loss"] == epochs  # neither twice nor in the run before
    assert first["metrics"] == second["metrics"]


@pytest.mark.slow
def test_an_experiment_may_be_there_already_and_steps_are_kept(tiny, tmp_path):
    from mlflow import MlflowClient

    trainers = [tiny(ROWS, training={"epochs": 3}, tracking={"trackers": ["mlflow"]}) for _ in range(2)]
    runs = [trainer.train()["run"] for trainer in trainers]

    assert runs[0]["experiment_id"] == runs[1]["experiment_id"]
    assert runs[0]["tracking_uri"] == f"sqlite:///{tmp_path}/runs/mlflow.db"
    client = MlflowClient(tracking_uri=runs[0]["tracking_uri"])
    for run in runs:
        stored = client.get_run(run["run_id"])
        assert stored.info.status == "FINISHED"
        assert stored.info.run_name == run["name"]
        assert [point.step for point in client.get_metric_history(run["run_id"], "train/loss")] == [1, 2, 3]


def test_a_tracker_of_ones_own_is_found_by_its_name(kept):
    trainer, tracker = kept(ROWS, tracking={"tags": {"who": "me"}})

    trainer.train()

    assert tracker().tags["who"] == "me"
    assert trainer.result["run"]["trackers"]["kept_history"]["status"] == "ok"


@pytest.mark.slow
def test_tensorboard_has_the_params_and_the_tags(tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = tiny(ROWS, tracking={"trackers": ["tensorboard"], "tags": {"who": "me"}}).train()

    events = EventAccumulator(result["run"]["tensorboard_dir"]).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1]
    text = str(events.summary_metadata) + str(events.Tags())
    assert "hparams" in text


def test_the_switches_of_the_tracking_spec_are_all_there():
    fields = Trainer(dataset={"dataset": "iris"}, model={"model": "linear"}).to_dict()["tracking"]

    assert {"tags", "log_model_params", "log_model_metrics", "log_training_params", "trackers"} <= set(fields)


# Data.


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [
        ({"test": 7}, (33, 0, 7)),
        ({"train": 30}, (30, 0, 10)),
        ({"train": 20, "val": 5, "test": 10}, (20, 5, 10)),
        ({"train": 20, "test": 0.25}, (20, 0, 10)),
        ({"train": 0.5, "test": 0.5}, (20, 0, 20)),
    ],
)
def test_samples_may_be_numbers_of_rows(kept, samples, sizes):
    trainer, tracker = kept(ROWS, samples=samples)

    trainer.train()

    rows = {each.context: each.profile["rows"] for each in tracker().inputs}
    assert tuple(rows.get(context, 0) for context in ("training", "validation", "test")) == sizes


def test_validation_rows_are_drawn_and_not_the_last_ones(kept):
    y = np.array(["a"] * 20 + ["b"] * 20)
    trainer, tracker = kept({**ROWS, "y": y}, training={"epochs": 1, "validation_split": 0.5}, samples={"train": 1.0})

    trainer.train()

    validation = next(each for each in tracker().inputs if each.context == "validation")
    assert set(validation.profile["classes"].values()).isdisjoint({0, 20})


@pytest.mark.parametrize(
    "steps",
    [
        ["standard_scaler", "min_max_scaler"],
        ["standard_scaler", {"type": "sklearn", "transformer": "PCA", "n_components": 3}],
        [
            {"type": "kbest", "k": 4},
            {"type": "sklearn", "transformer": "QuantileTransformer", "n_quantiles": 9},
            "tabular",
        ],
    ],
    ids=["two", "with PCA", "three"],
)
def test_several_preprocessors_are_restored(tiny, tmp_path, steps):
    trainer = tiny(ROWS, preprocessors=steps)
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    loaded = Trainer.load(tmp_path / "model.zip")

    assert loaded.predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()


def test_preprocessors_are_fitted_on_the_train_part_before_any_augmentation(tiny):
    images = np.arange(40 * 16, dtype=np.float32).reshape(40, 4, 4)
    data = {"type": "arrays", "X": images, "y": Y}
    user_code.Noise.seen.clear()
    trainer = tiny(
        data,
        samples={"train": 10, "test": 30},
        shuffle=False,
        preprocessors=["user_code:Recording"],
        data_augmentors=["user_code:Noise"],
    )

    trainer.train()

    assert user_code.Recording.seen.tolist() == images[:10].tolist()
    assert user_code.Noise.seen


def test_every_augmentor_that_is_named_is_there():
    for kind in KINDS:
        for name in known_names(kind):
            assert callable(find(kind, name))


def draws(tiny, batch_size, epochs=2, seed=0):
    images = np.random.default_rng(0).random((12, 4, 4)).astype(np.float32)
    data = {"type": "arrays", "X": images, "y": np.arange(12) % 2}
    user_code.Noise.seen.clear()
    tiny(
        data,
        training={"epochs": epochs, "batch_size": batch_size},
        samples={"train": 1.0},
        data_augmentors=["user_code:Noise"],
        shuffle=False,
        seed=seed,
    ).train()
    return torch.cat(user_code.Noise.seen).reshape(epochs, -1)[:, -12:]


def test_augmentation_is_drawn_for_each_sample_and_each_epoch_from_the_seed(tiny):
    first = draws(tiny, batch_size=12)
    np.random.seed(3), torch.manual_seed(3)
    again, in_batches, other = draws(tiny, batch_size=12), draws(tiny, batch_size=5), draws(tiny, 12, seed=1)

    assert len(set(first.flatten().tolist())) == first.numel()  # no sample like another, no epoch like another
    assert torch.equal(first, again)
    assert torch.equal(first, in_batches)
    assert not torch.equal(first, other)


# Models.


def test_loading_does_not_write(tiny, tmp_path):
    trainer = tiny(ROWS, {"type": "sklearn", "estimator": "RandomForestClassifier", "n_estimators": 3}, training={})
    trainer.train()
    path = tmp_path / "model.zip"
    trainer.save(path)
    path.chmod(0o400)
    before = hashlib.sha256(path.read_bytes()).hexdigest(), os.stat(path).st_mtime_ns

    for _ in range(2):
        loaded = Trainer.load(path)

    assert loaded.predict(X).tolist() == trainer.predict(X).tolist()
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), os.stat(path).st_mtime_ns) == before
    assert sorted(tmp_path.glob("*")) == [path, tmp_path / "runs"]


def test_the_mean_squared_error_of_an_estimator_is_that(tiny):
    X, y = user_code.rows_of("regression")
    model = {"type": "sklearn", "estimator": "Ridge", "alpha": 100.0}
    trainer = tiny({"type": "arrays", "X": X, "y": y}, model, training={"metrics": ["mse", "r2"]})
    trainer.train()

    values = trainer.evaluate(X, y)

    assert values["mse"] == pytest.approx(((trainer.predict(X) - y) ** 2).mean(), rel=1e-5)
    assert values["mse"] != pytest.approx(values["r2"])


def test_the_specs_of_the_caller_are_not_changed(tiny, tmp_path):
    dataset = {"dataset": {"type": "iris"}, "preprocessors": [{"type": "standard_scaler"}], "samples": {"test": 0.2}}
    model = {
        "model": {"type": "mlp", "hidden": [4]},
        "training": {"epochs": 1, "optimizer": {"type": "Adam"}, "metrics": [{"type": "f1", "name": "f"}, "accuracy"]},
    }
    tracking = {"root": str(tmp_path), "trackers": [{"type": "jsonl"}], "tags": {"a": "b"}}
    before = copy.deepcopy((dataset, model, tracking))

    trainer = Trainer(dataset, model, tracking)
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    trainer.to_dict()["model"]["training"]["optimizer"]["type"] = "changed"

    assert (dataset, model, tracking) == before
    assert trainer.to_dict()["model"]["training"]["optimizer"]["type"] == "Adam"


# The zip.


def test_a_bundle_holds_no_pickle_and_loading_extracts_nothing(tiny, tmp_path, monkeypatch):
    trainer = tiny(ROWS, {"type": "sklearn", "estimator": "LogisticRegression"}, training={}, preprocessors=["tabular"])
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    Trainer.load("model.zip")

    assert sorted(tmp_path.rglob("*")) == before
    with zipfile.ZipFile("model.zip") as archive:
        for name in archive.namelist():
            assert not name.endswith((".pkl", ".pickle", ".dill", ".pt"))
            assert archive.read(name)[:1] != b"\x80"  # what a pickle begins with


def test_a_bundle_needs_no_data_to_predict(tiny, tmp_path):
    trainer = tiny(ROWS)
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    loaded = Trainer.load(tmp_path / "model.zip")

    assert loaded.to_dict()["dataset"]["dataset"]["X"]["fingerprint"]["shape"] == [40, 6]
    assert loaded.predict(X).tolist() == trainer.predict(X).tolist()
    assert type(loaded) is Trainer


# The machine, the imports.


def test_importing_and_checking_a_spec_loads_neither_torch_nor_mlflow():
    program = """
import sys
import gymtrain
gymtrain.Trainer(
    dataset={"dataset": "iris"},
    model={"model": {"type": "sklearn", "estimator": "Ridge"}, "training": {"metrics": ["r2"]}},
    tracking={"trackers": ["mlflow", "tensorboard"]},
)
print(sorted({"torch", "mlflow", "sklearn", "tensorboard", "pandas"} & set(sys.modules)))
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout == "[]\n", done.stderr


def test_a_hook_or_key_that_is_misspelt_does_not_pass_silently():
    with pytest.raises(SpecError, match="did you mean 'data_augmentors'"):
        gymtrain.Dataset(dataset="iris", data_augmentor=[])
