"""What is installed where gymtrain is, and nothing else: bundles are loaded there, and shown without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from trained_bundles import FROZEN, answers, make

from gymtrain import Trainer, inspect

# Modules that other distributions bring are not found, as if they were not installed.
HIDE = """
import json, sys

class Hidden:
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden(set(json.loads(sys.argv.pop(1)))))
"""
LOAD = f"""{HIDE}
from pathlib import Path
from trained_bundles import answers
from gymtrain import Trainer

folder = Path(sys.argv[1])
print(json.dumps({{path.stem: answers(Trainer.load(path), path.stem) for path in folder.glob("*.zip")}}))
"""
INSPECT = f"""{HIDE}
import gymtrain
from gymtrain.cli import main

assert gymtrain.inspect(sys.argv[2])["manifest"]["format_version"] == 1
assert not {{"torch", "sklearn", "skops"}} & sys.modules.keys()
main()
"""


def runtime_distributions() -> set[str]:
    """The names of what `pip install gymtrain` installs."""
    found: set[str] = set()
    todo = ["gymtrain"]
    while todo:
        name = canonical(todo.pop())
        if name in found:
            continue
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        requirements = [Requirement(text) for text in texts]
        todo += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hidden(*more: str) -> str:
    runtime = runtime_distributions() - set(more)
    modules = metadata.packages_distributions()
    names = {name for name, owners in modules.items() if not {canonical(owner) for owner in owners} & runtime}
    return json.dumps(sorted(names - {"gymtrain", "gymtrain_trackers", "pip", "setuptools"}))


def run(program: str, *arguments: object, cwd: Path) -> str:
    code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n{program}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_bundle_answers_the_same_where_only_the_runtime_dependencies_are(tmp_path: Path):
    names = json.loads(hidden())
    assert {"pytest", "hypothesis", "safetensors", "polars", "kornia", "wandb", "comet_ml"} <= set(names)
    paths = make(tmp_path)
    expected = {name: answers(Trainer.load(path), name) for name, path in paths.items()}

    told = json.loads(run(LOAD, hidden(), tmp_path, cwd=tmp_path))

    assert told == json.loads(json.dumps(expected))


def test_a_bundle_is_shown_where_there_is_no_torch(tmp_path: Path):
    path = FROZEN / "format-1-estimator.zip"

    told = run(INSPECT, hidden("torch", "torchmetrics", "scikit-learn", "skops"), "inspect", path, cwd=tmp_path)

    assert inspect(path)["manifest"]["created"] in told
