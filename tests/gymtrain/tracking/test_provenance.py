"""What a run says of where it came from."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from gymtrain.tracking.provenance import checkout as told
from gymtrain.tracking.provenance import requirements


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--initial-branch", "trials")
    (tmp_path / "train.py").write_text("epochs = 1\n")
    git("add", "train.py")
    git("commit", "--message", "Begin")
    return tmp_path


def test_a_checkout_is_named_by_commit_and_branch(checkout: Path) -> None:
    (checkout / "untracked.txt").write_text("changes nothing that was run from the commit")

    assert told() == {
        "git_commit": git("rev-parse", "HEAD"),
        "git_branch": "trials",
        "git_dirty": "false",
    }


def test_a_changed_file_is_told_of(checkout: Path) -> None:
    (checkout / "train.py").write_text("epochs = 2\n")

    assert told()["git_dirty"] == "true"


def test_there_are_no_tags_without_a_commit_a_checkout_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert told() == {}

    git("init")
    assert told() == {}

    monkeypatch.setenv("PATH", str(tmp_path))
    assert told() == {}


def test_the_requirements_can_be_installed_and_have_what_is_imported() -> None:
    found = {each.name: str(each.specifier) for each in map(Requirement, requirements().splitlines())}

    assert found["torch"] == f"=={version('torch')}"
    assert found["pytest"] == f"=={version('pytest')}"


def test_a_run_holds_what_it_was_made_from(tiny: Any, checkout: Path) -> None:
    tracking = {"root": str(checkout / "runs"), "trackers": [{"type": "jsonl"}], "log_figures": False}
    result = tiny(tracking=tracking).train()

    directory = Path(result["run"]["run_dir"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    tags = {key: value for line in lines if line["kind"] == "tags" for key, value in line["tags"].items()}
    metrics = {line["key"]: line["value"] for line in lines if line["kind"] == "metric"}
    assets = {line["name"] for line in lines if line["kind"] == "asset"}
    assert tags["gymtrain.git_commit"] == result["run"]["checkout"]["git_commit"] == git("rev-parse", "HEAD")
    assert tags["gymtrain.device"] == "cpu"
    assert float(tags["gymtrain.memory_gb"]) > 0
    assert metrics["final/epoch"] == len(result["metrics"]["train/loss"])
    assert metrics["model/inference_ms_mean"] > 0
    assert assets >= {"spec.json", "hardware.json", "requirements.txt"}
    assert json.loads((directory / "hardware.json").read_text())["python"] == result["hardware_info"]["python"]
