from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_forge import make_contents
from huggingface_hub import ModelCard
from safetensors.numpy import load_file
from web_server import Answer, WebServer, content

from gymtrain import BundleError, NotTrainedError, SaveError, Trainer
from gymtrain.bundle import write
from gymtrain.trainer.hub import export_to_hub_folder

Tiny = Callable[..., Trainer]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trained = Trainer(
        dataset={
            "dataset": {"type": "iris"},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": ["standard_scaler"],
        },
        model={"model": {"type": "mlp", "hidden": [4]}, "training": {"epochs": 2, "metrics": ["accuracy"]}},
        tracking={"root": str(tmp_path_factory.mktemp("hub")), "log_figures": False, "trackers": []},
    )
    trained.train()
    return trained


@pytest.fixture(scope="module")
def folder(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub") / "iris"
    trainer.export_to_hub_folder(place)
    return place


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_what_a_repository_is_made_of(folder: Path):
    assert files_in(folder) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "model.zip",
        "preprocessors/000.json",
        "preprocessors/000.safetensors",
        "results.json",
        "schema.json",
    }
    assert list(folder.parent.iterdir()) == [folder]


def test_each_file_is_what_its_readers_expect(folder: Path, trainer: Trainer):
    X = np.random.default_rng(0).normal(3, size=(5, 4))
    weights = load_file(folder / "model.safetensors")

    assert (Trainer.load(folder / "model.zip").predict_proba(X) == trainer.predict_proba(X)).all()
    assert Trainer.from_file(folder / "config.json").spec_sha256 == trainer.spec_sha256
    assert {name: array.shape for name, array in weights.items()}["0.weight"] == (4, 4)
    assert json.loads((folder / "results.json").read_text()) == trainer.result


def test_the_card_says_what_the_hub_shows_and_searches(folder: Path, trainer: Trainer):
    card = ModelCard.load(folder / "README.md")

    assert trainer.result is not None
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert (card.data.library_name, card.data.pipeline_tag) == ("gymtrain", "tabular-classification")
    assert card.data.tags == ["gymtrain", "mlp", "multiclass"]
    assert results["accuracy"] == trainer.result["metrics"]["test/accuracy"]
    assert {(result.dataset_type, result.dataset_split) for result in card.data.eval_results} == {("iris", "test")}
    assert card.content.count("# mlp on iris") == 1


@pytest.mark.parametrize(
    ("shape", "labels", "result", "task", "expected"),
    [
        ([8, 8, 3], "multiclass", {"metrics": {"val/loss": [0.5]}}, "image-classification", None),
        ([8, 8], "binary", {}, "image-classification", None),
        ([8, 8], "regression", {}, "tabular-regression", None),
        (
            [4],
            "multilabel",
            {"best": {"metric": "val/f1", "value": 0.5, "epoch": 1}},
            "tabular-classification",
            ("f1", 0.5, "validation"),
        ),
        (
            [4],
            "regression",
            {"metrics": {"test/mse": 2.0, "test/r2": None}},
            "tabular-regression",
            ("mse", 2.0, "test"),
        ),
    ],
)
def test_the_card_has_the_nearest_task_and_the_metrics_that_there_are(
    shape: list[int], labels: str, result: dict[str, Any], task: str, expected: Any, tmp_path: Path
):
    contents = make_contents(
        spec={"dataset": {"dataset": {"type": "a: 'b' #"}}, "model": {"model": {"type": "my.module:Net"}}},
        schema={"features": {"columns": None, "shape": shape}, "labels": {"task": labels}},
        results=result,
    )

    export_to_hub_folder(tmp_path / "folder", lambda path: write(path, contents))

    data = ModelCard.load(tmp_path / "folder" / "README.md").data
    found = [(each.metric_type, each.metric_value, each.dataset_split) for each in data.eval_results or []]
    assert (data.pipeline_tag, found) == (task, [expected] if expected else [])
    assert data.tags == sorted(["gymtrain", labels, "my.module:Net"])


def test_a_bundle_that_says_nothing_of_itself_leaves_no_folder(tmp_path: Path):
    with pytest.raises(BundleError, match=r"folder: the members do not fit together: KeyError") as caught:
        export_to_hub_folder(tmp_path / "folder", lambda path: write(path, make_contents(spec={})))

    assert caught.value.reason == "inconsistent"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_empty_is_filled_and_another_one_is_left_alone(trainer: Trainer, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")

    trainer.export_to_hub_folder(tmp_path / "empty")

    assert "model.zip" in files_in(tmp_path / "empty")
    for place in ("full", "full/mine.txt"):
        with pytest.raises(FileExistsError, match="There is something there already"):
            trainer.export_to_hub_folder(tmp_path / place)
    with pytest.raises(FileNotFoundError, match="No such directory; create it first"):
        trainer.export_to_hub_folder(tmp_path / "missing" / "folder")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_what_cannot_be_exported_is_refused(tiny: Tiny, trainer: Trainer, tmp_path: Path):
    with pytest.raises(NotTrainedError, match="export_to_hub_folder: this trainer has not learned anything yet"):
        tiny().export_to_hub_folder(tmp_path / "folder")
    with pytest.raises(SaveError, match="expected the path of a file"):
        trainer.export_to_hub_folder(None)  # type: ignore[arg-type]


def as_json(value: Any) -> Answer:
    return content(json.dumps(value).encode())


@pytest.mark.slow
def test_a_bundle_is_read_from_the_hub(folder: Path, tmp_path: Path):
    bundle = (folder / "model.zip").read_bytes()
    files = [{"type": "file", "path": "model.zip", "size": len(bundle), "oid": "a" * 40}]
    code = "import sys, gymtrain; print(gymtrain.inspect(sys.argv[1])['schema']['labels']['task'])"
    with WebServer().running() as hub:
        hub.answers = {
            "/api/models/org/iris": as_json({"id": "org/iris", "sha": "b" * 40, "siblings": []}),
            "/api/models/org/iris/tree/main": as_json(files),
            "/org/iris/resolve/main/model.zip": content(bundle),
        }
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        done, refused = [
            subprocess.run(
                [sys.executable, "-c", code, f"hf://org/iris/{name}"], capture_output=True, text=True, env=environment
            )
            for name in ("model.zip", "missing.zip")
        ]

    assert (done.returncode, done.stdout) == (0, "multiclass\n"), done.stderr
    assert "BundleError: hf://org/iris/missing.zip: cannot be read: FileNotFoundError" in refused.stderr
