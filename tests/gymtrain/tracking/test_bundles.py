"""The bundle that a run keeps, and the way back out of MLflow."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import user_code

import gymtrain
from gymtrain import BundleError, Callback, Trainer
from gymtrain.data.preprocessors import Preprocessor
from gymtrain_trackers import read_journal

JSONL = {"trackers": [{"type": "jsonl"}], "log_system_metrics": False}
X, Y = user_code.rows_of("binary")
ROWS = {"type": "arrays", "X": X, "y": Y}


def tags_of(result: dict) -> dict:
    tags: dict = {}
    for entry in read_journal(Path(result["run"]["run_dir"]) / "journal.jsonl"):
        tags |= entry["tags"] if entry["verb"] == "log_tags" else {}
    return tags


def kept_by(result: dict) -> Path:
    return Path(result["run"]["run_dir"]) / "model.zip"


def test_a_run_keeps_what_save_would_write(tiny, tmp_path):
    trainer = tiny(ROWS, tracking=JSONL, training={"epochs": 2, "validation_split": 0.2})

    result = trainer.train()
    trainer.save(tmp_path / "saved.zip")

    kept, saved = gymtrain.inspect(kept_by(result)), gymtrain.inspect(tmp_path / "saved.zip")
    assert kept["results"] == saved["results"] == result
    assert kept["spec"] == saved["spec"]
    assert kept["manifest"]["weights"] == "best"
    np.testing.assert_array_equal(Trainer.load(kept_by(result)).predict_proba(X), trainer.predict_proba(X))


def test_the_run_names_its_bundle_by_the_digest_of_the_file(tiny):
    result = tiny(ROWS, tracking={**JSONL, "run_name": "50 % wide = best?"}).train()

    assert tags_of(result)["gymtrain.bundle"] == hashlib.sha256(kept_by(result).read_bytes()).hexdigest()
    lines = map(json.loads, (kept_by(result).parent / "metrics.jsonl").read_text().splitlines())
    names = [line["name"] for line in lines if line["kind"] == "asset"]
    assert [name for name in names if name.endswith(".zip")] == ["model/50___wide___best_.zip"]


@pytest.mark.parametrize(
    "tracking",
    [{}, {"trackers": [{"type": "history"}]}, {**JSONL, "log_bundle": False}],
    ids=["no trackers", "one that ends with the process", "told otherwise"],
)
def test_no_bundle_is_written_where_nobody_wants_one(tiny, tracking):
    result = tiny(ROWS, tracking=tracking).train()

    assert not kept_by(result).exists()
    assert "gymtrain.bundle" not in tags_of(result)


def test_a_run_that_fails_keeps_none(tiny):
    class Raising(Callback):
        def on_train_end(self, state):
            raise ValueError("too late")

    trainer = tiny(ROWS, tracking=JSONL)

    with pytest.raises(gymtrain.CallbackError):
        trainer.train([Raising()])

    assert not kept_by(trainer.result).exists()


def test_trying_a_training_keeps_none(tiny):
    result = tiny(ROWS, tracking=JSONL).train(fast_dev_run=True)

    assert not kept_by(result).exists()


SCRIPT = """
import json, sys, warnings
warnings.simplefilter("error")
from torch import nn
from gymtrain import Trainer

class Mine(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)

tracking = {"root": sys.argv[1], "trackers": [{"type": "jsonl"}]}
result = Trainer({"dataset": {"type": "iris"}}, {"model": {"type": Mine}}, tracking).train()
print(json.dumps([result["status"], result["run"]["run_dir"]]))
"""


@pytest.mark.slow
def test_a_model_that_cannot_be_saved_is_told_in_a_tag_alone(tmp_path):
    told = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    status, directory = json.loads(told.stdout)

    assert status == "FINISHED"
    assert not (Path(directory) / "model.zip").exists()
    tags = tags_of({"run": {"run_dir": directory}})
    assert tags["gymtrain.bundle"].startswith("not saved: this trainer could not be loaded by another process")
    assert "'__main__:Mine'" in tags["gymtrain.bundle"]


class Torn(Preprocessor):
    """Fails when it is saved."""

    def transform(self, X):
        return X

    def save(self):
        raise OSError("the tape is torn")


# Out of MLflow.


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a place")


@pytest.fixture(scope="module")
def trainer(place: Path) -> Trainer:
    trainer = Trainer(
        dataset={"dataset": ROWS},
        model={"model": "linear"},
        tracking={
            "root": str(place / "runs"),
            "run_name": "größe 8",
            "trackers": [{"type": "mlflow", "log_model": True, "tracking_uri": f"sqlite:///{place}/runs/mlflow.db"}],
        },
    )
    trainer.train()
    return trainer


@pytest.fixture(autouse=True)
def _in_the_place(place, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(place)


@pytest.fixture
def client(place):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place}/runs/mlflow.db")


def run_id(trainer: Trainer) -> str:
    return trainer.result["run"]["run_id"]


def same(one: Trainer, other: Trainer) -> bool:
    return one.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


def test_a_run_gives_its_bundle_back(trainer):
    assert same(Trainer.load(f"runs:/{run_id(trainer)}"), trainer)
    assert same(Trainer.load(f"runs:/{run_id(trainer)}/model/größe_8.zip"), trainer)


def test_the_environment_or_the_caller_says_which_store(trainer, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BundleError, match=r"there is no database .*runs/mlflow.db.*the store is the one of tracking_uri"
    ):
        Trainer.load(f"runs:/{run_id(trainer)}")
    assert list(tmp_path.iterdir()) == []

    loaded = Trainer.load(f"runs:/{run_id(trainer)}", tracking_uri=trainer.result["run"]["tracking_uri"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/runs/mlflow.db")

    assert same(loaded, trainer)
    assert same(Trainer.load(f"runs:/{run_id(trainer)}"), trainer)


def test_a_logged_model_and_a_registered_one_give_the_same(trainer, client, monkeypatch):
    import mlflow

    (output,) = client.get_run(run_id(trainer)).outputs.model_outputs
    client.create_registered_model("plants")
    with monkeypatch.context() as patch:
        # Here MLflow looks into the store of the process, whatever its client was given.
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        mlflow.set_tracking_uri(client.tracking_uri)
        client.create_model_version("plants", source=f"models:/{output.model_id}", model_id=output.model_id)
        mlflow.set_tracking_uri(None)
    client.set_registered_model_alias("plants", "champion", "1")

    for address in (output.model_id, "plants/1", "plants@champion", "plants/latest"):
        assert same(Trainer.load(f"models:/{address}"), trainer)


def test_nothing_is_left_of_what_was_downloaded(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    loaded = Trainer.load(f"runs:/{run_id(trainer)}")

    assert list(tmp_path.iterdir()) == []
    assert same(loaded, trainer)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("runs:/0123456789abcdef0123456789abcdef", "Run with id=0123456789abcdef0123456789abcdef not found"),
        ("runs:/{run}/model/other.zip", "No such artifact: 'other.zip'"),
        ("models:/m-0123", "Logged model with ID 'm-0123' not found"),
        ("models:/nobody/1", "Registered Model with name=nobody not found"),
        ("models:/nobody@champion", "Registered Model with name=nobody not found"),
        ("models:/nobody/latest", "there is no registered model 'nobody'"),
        ("models:/nobody", "names no file; expected runs:/RUN_ID, "),
        ("runs:/", "names no file; expected runs:/RUN_ID, "),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_and_where(trainer, address, message):
    with pytest.raises(BundleError, match=message) as caught:
        Trainer.load(address.format(run=run_id(trainer)))

    assert caught.value.reason == "not_fetched"


def test_a_run_without_a_bundle_says_why(tiny, client, place):
    store = f"sqlite:///{place}/runs/mlflow.db"
    tracking = {"trackers": [{"type": "mlflow", "tracking_uri": store}]}

    with pytest.warns(UserWarning, match="the run keeps no bundle: the tape is torn"):
        trainer = tiny(ROWS, preprocessors=[{"type": Torn}], tracking=tracking)
        result = trainer.train()

    assert result["status"] == "FINISHED"
    with pytest.raises(BundleError, match=r"the run has no bundle \(gymtrain.bundle: not saved: the tape is torn\)"):
        Trainer.load(f"runs:/{run_id(trainer)}")


def test_a_file_in_a_run_that_is_no_bundle_is_refused_like_any_other(trainer, client, tmp_path):
    (tmp_path / "notes.zip").write_text("no zip at all")
    client.log_artifact(run_id(trainer), str(tmp_path / "notes.zip"))

    with pytest.raises(BundleError) as caught:
        Trainer.load(f"runs:/{run_id(trainer)}/notes.zip")

    assert caught.value.reason == "not_a_bundle"


def test_loading_from_mlflow_changes_nothing_in_the_process(trainer):
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.active_run()

    Trainer.load(f"runs:/{run_id(trainer)}")

    assert (mlflow.get_tracking_uri(), mlflow.active_run()) == before


@pytest.mark.parametrize(
    ("address", "tracking_uri", "words"),
    [
        ("runs:/0123/model", 5, r"tracking_uri: got 5; expected text such as"),
        ("runs:/0123/../other", None, r"'runs:/0123/\.\./other' leaves the artifacts of its run"),
    ],
)
def test_what_cannot_be_an_address_in_mlflow_is_refused_before_anything_is_asked(address, tracking_uri, words):
    with pytest.raises(BundleError, match=words):
        Trainer.load(address, tracking_uri=tracking_uri)


def test_a_folder_of_a_run_is_refused_before_it_is_downloaded(trainer):
    with pytest.raises(BundleError, match="'figures' is a folder of the run; name a bundle in it"):
        Trainer.load(f"runs:/{run_id(trainer)}/figures")


def test_a_store_that_is_no_database_is_an_error_of_ours(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database at all" * 100)

    with pytest.raises(
        BundleError, match=r"(?s)file is not a database.*the store is the one of tracking_uri"
    ) as caught:
        Trainer.load("runs:/0123456789abcdef0123456789abcdef", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")

    assert caught.value.reason == "not_fetched"


def kept_training(tiny, tmp_path, epochs):
    return tiny(
        ROWS,
        training={"epochs": epochs, "checkpoint": {}},
        tracking={**JSONL, "root": str(tmp_path), "log_figures": False},
    )


def test_a_resume_that_finds_nothing_left_to_train_leaves_the_bundle_as_it_is(tiny, tmp_path):
    first = kept_training(tiny, tmp_path, 2).train()
    before = kept_by(first).read_bytes()

    again = kept_training(tiny, tmp_path, 2).train(resume="auto")

    assert kept_by(again) == kept_by(first)
    assert kept_by(again).read_bytes() == before
    assert tags_of(again)["gymtrain.bundle"] == hashlib.sha256(before).hexdigest()


def test_a_run_that_died_before_it_kept_its_bundle_does_not_keep_an_older_one(tiny, tmp_path):
    first = kept_training(tiny, tmp_path, 2).train()
    older = kept_by(first).read_bytes()
    kept_training(tiny, tmp_path, 4).train(resume="auto")
    kept_by(first).write_bytes(older)  # as if it had been killed after its last checkpoint

    trainer = kept_training(tiny, tmp_path, 4)
    result = trainer.train(resume="auto")

    assert result["stop_reason"] == "epochs"
    assert gymtrain.inspect(kept_by(result))["results"]["metrics"] == result["metrics"]
    assert len(result["metrics"]["train/loss"]) == 4
    assert same(Trainer.load(kept_by(result)), trainer)
    assert tags_of(result)["gymtrain.bundle"] == hashlib.sha256(kept_by(result).read_bytes()).hexdigest()


def test_a_model_that_cannot_be_described_costs_the_run_nothing_else(trainer, place, monkeypatch):
    import gymtrain.trainer.keeping as keeping

    def refuse(*_):
        raise RuntimeError("cannot say")

    monkeypatch.setattr(keeping, "_tensor", refuse)  # of what the user's own `predict` gave
    again = Trainer.from_dict(trainer.to_dict() | {"dataset": {"dataset": ROWS}})

    with pytest.warns(UserWarning, match="the bundle in the trackers is left out: RuntimeError: cannot say"):
        result = again.train()

    assert result["status"] == "FINISHED"
