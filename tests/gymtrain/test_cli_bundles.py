from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import make_contents
from typer.testing import CliRunner, Result

from gymtrain import Trainer
from gymtrain.bundle import write
from gymtrain.cli import app

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e[bold]"
OBEYED = {"\x1b", "\x07", "\x9b", "\u202e"}


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def trained(folder: Path, *, seed: int = 0, **training: Any) -> Trainer:
    trainer = Trainer(
        dataset={
            "dataset": {"type": "iris"},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": ["standard_scaler"],
        },
        model={"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 2, "seed": seed, **training}},
        tracking={"root": str(folder / "runs")},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Trainer:
    return trained(folder, checkpoint={})


@pytest.fixture(scope="module")
def bundle(trainer: Trainer, folder: Path) -> Path:
    trainer.save(folder / "iris.zip")
    return folder / "iris.zip"


@pytest.fixture(scope="module")
def checkpoint(trainer: Trainer) -> Path:
    assert trainer.result is not None
    return max(Path(trainer.result["run"]["checkpoint_dir"]).glob("*.zip"))


@pytest.fixture(scope="module")
def hostile(bundle: Path, folder: Path) -> Path:
    """A bundle that is verified, and whose texts are made to be obeyed by a terminal or read as markup."""
    import gymtrain

    content = gymtrain.inspect(bundle)
    spec = content["spec"] | {"model": {"model": {"type": HOSTILE}, "training": {"loss": HOSTILE}}}
    results = content["results"] | {
        "metrics": {f"train/{HOSTILE}": [1.0], f"val/{HOSTILE}": HOSTILE},
        "best": None,
        "hardware_info": {"platform": HOSTILE, "libraries": {HOSTILE: HOSTILE}},
        "data": {"train": {"rows": 1, "sha256": HOSTILE}, HOSTILE: {"rows": 1, "sha256": HOSTILE}},
    }
    contents = make_contents(readme=f"# {HOSTILE}\n{HOSTILE}", versions={HOSTILE: HOSTILE})
    path = folder / "hostile.zip"
    write(path, replace(contents, spec=spec, schema=content["schema"], results=results, created=HOSTILE))
    return path


def test_inspect_shows_the_data_the_machine_the_versions_and_the_model_card(bundle: Path, trainer: Trainer) -> None:
    result = run("inspect", bundle)

    assert result.exit_code == 0, result.output
    assert trainer.result is not None
    for expected in (
        "a trained model",
        f"90 rows, SHA-256 {trainer.result['data']['train']['sha256']}",
        trainer.spec_sha256,
        trainer.result["hardware_info"]["platform"],
        "torch 2.",
        "# mlp on iris",
        "- preprocessors: standard_scaler",
        "- epochs: 2",
    ):
        assert expected in result.stdout


def test_inspect_says_of_a_checkpoint_that_it_is_one(checkpoint: Path, trainer: Trainer) -> None:
    result = run("inspect", checkpoint)

    assert result.exit_code == 0, result.output
    assert trainer.result is not None
    assert "a checkpoint" in result.stdout
    assert trainer.result["data"]["val"]["sha256"] in result.stdout


def test_inspect_works_where_torch_and_all_that_is_heavy_cannot_be_imported(bundle: Path, checkpoint: Path) -> None:
    code = f"""
import sys
heavy = "torch torchmetrics mlflow sklearn skops pandas pyarrow matplotlib tensorboard cryptography"
sys.modules |= dict.fromkeys(heavy.split())
from gymtrain.cli import app
import gymtrain
for path in ({str(bundle)!r}, {str(checkpoint)!r}):
    app(["inspect", path], standalone_mode=False)
    app(["inspect", path, "--json"], standalone_mode=False)
    assert gymtrain.inspect(path)["results"]["data"]["train"]["rows"] == 90
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# mlp on iris") == 4


def test_what_a_hostile_bundle_says_is_shown_and_not_obeyed(hostile: Path) -> None:
    for arguments in (["inspect", hostile], ["inspect", hostile, "--json"]):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert not OBEYED & set(result.output)
        assert "[bold]" in result.stdout


def test_the_data_of_a_bundle_are_those_that_its_run_was_told_of(bundle: Path, trainer: Trainer) -> None:
    content = json.loads(run("inspect", bundle, "--json").stdout)

    assert trainer.result is not None
    assert content["results"]["data"] == trainer.result["data"]
    assert {part: rows["rows"] for part, rows in content["results"]["data"].items()} == {
        "train": 90,
        "val": 30,
        "test": 30,
    }
    assert sum(content["results"]["data"]["train"]["classes"].values()) == 90
