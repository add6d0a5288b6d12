"""The example that reads bundles from the page on the format alone, against the reader of gymtrain."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bundle_forge import Forge, take_apart
from trained_bundles import FROZEN

from gymtrain import inspect
from gymtrain.bundle import open_bundle, to_numpy

EXAMPLE = Path(__file__).parents[3] / "examples" / "read_bundle.py"
BUNDLES = sorted(FROZEN.glob("*.zip"))


@pytest.fixture(scope="module")
def example() -> ModuleType:
    reference = importlib.util.spec_from_file_location("read_bundle", EXAMPLE)
    module = importlib.util.module_from_spec(reference)
    reference.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", BUNDLES, ids=[path.stem for path in BUNDLES])
def test_it_reads_what_gymtrain_reads(example: ModuleType, path: Path):
    members = example.read_bundle(path)

    shown = inspect(path)
    parts = {name: members[f"{name}.json"] for name in ("manifest", "spec", "schema", "results")}
    assert parts == {name: shown[name] for name in parts}
    assert members["README.md"].decode() == shown["readme"]
    with open_bundle(path) as bundle:
        for name, tensors in {
            "weights.safetensors": bundle.weights() or {},
            "selfcheck.safetensors": bundle.selfcheck(),
            **{
                f"preprocessors/{index:03d}.safetensors": state.tensors
                for index, state in enumerate(bundle.preprocessors())
            },
        }.items():
            arrays = members.get(name, {})
            assert arrays.keys() == tensors.keys()
            for key, tensor in tensors.items():
                np.testing.assert_array_equal(arrays[key], to_numpy(tensor), strict=True)


def test_it_refuses_what_the_manifest_does_not_say(example: ModuleType, forge: Forge, good: bytes, tmp_path: Path):
    forge.part("spec.json").content = b"{}"
    (tmp_path / "changed.zip").write_bytes(forge.pack())
    (tmp_path / "newer.zip").write_bytes(take_apart(good).set_manifest(format_version=2).pack())
    (tmp_path / "more.zip").write_bytes(take_apart(good).add("x.py").pack())

    for name, message in {
        "changed": "spec.json is not what the manifest says",
        "newer": "not a gymtrain-bundle of format 1",
        "more": "the members are not those that the manifest lists",
    }.items():
        with pytest.raises(ValueError, match=message):
            example.read_bundle(tmp_path / f"{name}.zip")


def test_it_needs_nothing_but_the_standard_library_and_numpy():
    nodes = list(ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}

    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_it_runs_as_a_program(tmp_path: Path):
    command = [sys.executable, EXAMPLE, FROZEN / "format-1-network.zip", "--npz", tmp_path / "weights.npz"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "weights.safetensors: 0.weight float32 (8, 4)" in done.stdout
    assert np.load(tmp_path / "weights.npz")["0.weight"].shape == (8, 4)
