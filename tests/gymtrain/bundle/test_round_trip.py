from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from bundle_forge import Forge, make_contents, read_all

from gymtrain.bundle import State, Tensor, from_numpy, inspect, open_bundle, to_numpy, write
from gymtrain.errors import SaveError


def test_everything_that_is_written_is_read_back(tmp_path: Path):
    contents = make_contents(model_state={"trees": [1, 2]}, model_skops=bytes(1000), storage={"tied": {}})
    path = tmp_path / "model.zip"

    write(path, contents)
    read = read_all(path)

    for name in (
        "spec",
        "schema",
        "results",
        "readme",
        "weights",
        "storage",
        "model_skops",
        "model_state",
        "selfcheck",
    ):
        assert read[name] == getattr(contents, name), name
    assert read["preprocessors"] == list(contents.preprocessors)
    assert read["manifest"]["weights"] == "best"
    assert read["manifest"]["versions"] == {"gymtrain": "0.1.0"}


def test_parts_that_a_model_does_not_have_are_none(tmp_path: Path):
    write(tmp_path / "model.zip", make_contents(weights=None, model_state={"constant": 1}, preprocessors=()))

    with open_bundle(tmp_path / "model.zip") as bundle:
        assert bundle.weights() is None
        assert bundle.storage() is None
        assert bundle.model_skops() is None
        assert bundle.model_state() == {"constant": 1}
        assert bundle.preprocessors() == []


def test_inspect_returns_all_but_tensors(tmp_path: Path):
    sources = {"mine": "class Net: ...\n", "mine.other": "# ü\n"}
    contents = make_contents(storage={"tied": {}}, sources=sources)
    write(tmp_path / "model.zip", contents)

    shown = inspect(tmp_path / "model.zip")

    assert shown.keys() == {"manifest", "spec", "schema", "results", "readme", "storage", "sources", "signature"}
    assert shown["storage"] == {"tied": {}}
    assert shown["sources"] == sources
    assert shown["schema"] == contents.schema
    assert shown["readme"] == contents.readme


def test_equal_contents_give_equal_bytes_whatever_the_clock_the_order_and_the_umask(tmp_path: Path):
    contents = make_contents()
    assert contents.weights is not None
    turned = make_contents(
        weights=dict(reversed(contents.weights.items())), schema=dict(reversed(contents.schema.items()))
    )

    write(tmp_path / "first.zip", contents)
    write(tmp_path / "second.zip", turned)

    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_only_the_manifest_differs_between_two_times_of_creation(tmp_path: Path):
    write(tmp_path / "first.zip", make_contents())
    write(tmp_path / "second.zip", make_contents(created="2028-01-01T00:00:00+00:00"))

    with zipfile.ZipFile(tmp_path / "first.zip") as first, zipfile.ZipFile(tmp_path / "second.zip") as second:
        differing = [name for name in first.namelist() if first.read(name) != second.read(name)]
    assert differing == ["manifest.json"]


def test_tensors_begin_at_multiples_of_64_in_the_file(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)

    with open_bundle(tmp_path / "good.zip") as bundle:
        matrices = [bundle.weights() or {}, bundle.selfcheck(), *[state.tensors for state in bundle.preprocessors()]]
        for name, tensor in ((name, tensor) for tensors in matrices for name, tensor in tensors.items()):
            array = np.frombuffer(tensor.data, np.uint8)
            alignment = 64 if array.size % 64 == 0 else array.size & -array.size
            assert array.ctypes.data % alignment == 0, name


def test_any_unzip_and_any_safetensors_reader_read_a_bundle(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)

    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "manifest.json"
        arrays = safetensors.numpy.load(archive.read("selfcheck.safetensors"))

    np.testing.assert_array_equal(arrays["y"], [[0.5, 0.5], [1, 0]])


def test_writing_to_a_tensor_changes_memory_and_never_the_file(good: bytes, tmp_path: Path):
    path = tmp_path / "good.zip"
    path.write_bytes(good)

    with open_bundle(path) as bundle:
        array = to_numpy((bundle.weights() or {})["layer.weight"])
    array[:] = 0

    assert not array.any()
    assert path.read_bytes() == good


def test_tensors_outlive_the_bundle_and_a_file_that_is_written_anew(good: bytes, tmp_path: Path):
    path = tmp_path / "good.zip"
    path.write_bytes(good)
    bundle = open_bundle(path)
    tensors = bundle.weights() or {}
    before = to_numpy(tensors["layer.weight"]).copy()

    bundle.close()
    write(path, make_contents(weights={}))

    np.testing.assert_array_equal(to_numpy(tensors["layer.weight"]), before)
    with pytest.raises(ValueError, match="the bundle is closed"):
        bundle.weights()


def test_a_zip64_bundle_is_read_like_any_other(forge: Forge, good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    (tmp_path / "wide.zip").write_bytes(forge.seal().pack(zip64=True))

    wide, plain = read_all(tmp_path / "wide.zip"), read_all(tmp_path / "good.zip")

    assert wide.pop("manifest")["members"] == plain.pop("manifest")["members"]
    assert wide == plain


def test_content_that_deflates_like_a_bomb_is_stored(tmp_path: Path):
    contents = make_contents(model_skops=bytes(1 << 20), results={"zeros": [0] * 10_000})

    write(tmp_path / "model.zip", contents)

    assert read_all(tmp_path / "model.zip")["model_skops"] == bytes(1 << 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"which_weights": "newest"}, "which_weights is 'newest'; expected one of 'best', 'last'"),
        ({"weights": None}, "a bundle without a model"),
        ({"sources": {"süß": ""}}, "the source of 'süß' has no place in a bundle"),
        ({"sources": {"a" * 81: ""}}, "has no place in a bundle: expected at most 80 ASCII characters"),
        ({"sources": {"Net": "", "net": ""}}, "of the modules 'Net', 'net' two differ by case only"),
        ({"sources": {f"m{index}": "" for index in range(33)}}, "sources of 33 modules; a bundle holds at most 32"),
        ({"sources": {"large": "#" * (1 << 20 | 1)}}, "source/large.py: 1048577 bytes, more than the 1048576"),
        ({"preprocessors": [State({})] * 65}, "65 preprocessors; a bundle holds at most 64"),
        ({"results": {"metrics": {"val/loss": [1.0, float("nan")]}}}, r"results.json: metrics.val/loss\[1\] is nan"),
        ({"spec": {"seed": np.int64(1)}}, "spec.json: seed is a int64"),
        ({"spec": {1: "one"}}, "spec.json: the top level: the key 1 is a int"),
        ({"spec": {"name": "\ud800"}}, "spec.json: name is .* half of a surrogate pair"),
        ({"spec": {"a": "x" * (1 << 20)}}, "spec.json: 104.* bytes, more than the 1048576"),
        ({"schema": {"classes": [0] * 500_001}}, "schema.json: about 500.* values, more than the 500000"),
        ({"model_state": {"seed": 1 << 400}}, "model.json: seed is an integer of 401 bits"),
        ({"readme": "x" * (1 << 21)}, "README.md: 2097152 bytes, more than"),
        ({"weights": {"w": Tensor("F32", (3,), bytes(8))}}, r"weights.safetensors: tensor 'w': 8 bytes are not F32"),
        ({"weights": {"w": Tensor("F31", (3,), bytes(8))}}, "tensor 'w' is 'F31'; expected one of"),
        ({"weights": {"__metadata__": from_numpy(np.zeros(1))}}, "cannot be saved under the name '__metadata__'"),
    ],
)
def test_contents_that_could_not_be_read_back_are_not_written(changes: dict[str, object], message: str, tmp_path: Path):
    with pytest.raises(SaveError, match=message):
        write(tmp_path / "model.zip", make_contents(**changes))
    assert list(tmp_path.iterdir()) == []


def test_the_room_loads_neither_torch_nor_anything_that_unpickles():
    script = (
        "import sys, gymtrain.bundle; print(sorted({'torch', 'skops', 'sklearn', 'safetensors'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
