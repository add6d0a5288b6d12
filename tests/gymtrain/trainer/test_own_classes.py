from __future__ import annotations

import inspect as python
import json
import linecache
import sys
import types
from pathlib import Path

import pytest
import user_code
import user_module
from bundle_forge import take_apart
from user_code import rows_of

from gymtrain import BundleError, SaveError, SpecError, Trainer, inspect, register

TRAINING = {"epochs": 1}
X, y = rows_of("binary", 40)
ROWS = {"type": "arrays", "X": X, "y": y}


def saved(trainer: Trainer, path: Path, **options: object) -> Path:
    trainer.train()
    trainer.save(path, **options)
    return path


def renamed(path: Path, old: str, new: str) -> Path:
    """Let a bundle name another type."""
    forge = take_apart(path.read_bytes())
    spec = forge.part("spec.json").content
    path.write_bytes(forge.replace("spec.json", spec.replace(f'"{old}"'.encode(), f'"{new}"'.encode())).pack())
    return path


def test_classes_that_the_file_names_are_supplied_by_the_caller(tiny, tmp_path):
    trainer = tiny(ROWS, "user_net", preprocessors=["user_clip", "standard_scaler"])
    path = saved(trainer, tmp_path / "model.zip")
    renamed(renamed(path, "user_net", "old.place:Net"), "user_clip", "clip_it")

    loaded = Trainer.load(path, types={"old.place:Net": user_code.Net, "clip_it": user_code.Clip})

    assert loaded.predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()
    assert loaded.to_dict()["model"]["model"]["type"] == "old.place:Net"


def test_one_error_lists_all_that_is_missing_and_how_it_is_supplied(tiny, tmp_path, monkeypatch):
    steps = ["user_clip", {"type": "sklearn", "transformer": "PCA", "n_components": 2}]
    path = saved(tiny(ROWS, {"type": "user_module:Untrusted"}, preprocessors=steps), tmp_path / "model.zip")
    renamed(path, "user_clip", "their_clip")
    forge = take_apart(path.read_bytes())
    fitted = take_apart(forge.part("preprocessors/001.skops").content)
    for part in fitted.parts:
        part.content = part.content.replace(b"sklearn.decomposition._pca", b"their.decomposition")
    path.write_bytes(forge.replace("preprocessors/001.skops", zipped(fitted.parts)).pack())

    with pytest.raises(BundleError) as caught:
        Trainer.load(path)

    assert caught.value.reason == "unknown_type"
    first, *lines = str(caught.value).split("\n  ")
    assert first == f"{path}: not all that it needs is there:"
    assert [line.partition(" ")[0] for line in lines] == ["spec.json:", "spec.json:", "preprocessors/001.skops:"]
    text = str(caught.value)
    assert "dataset.preprocessors[0].type: 'their_clip' is not a registered preprocessor" in text
    assert "load the file with types={'their_clip': …}" in text
    assert "model.model.type: the model 'user_module:Untrusted' is not part of gymtrain" in text
    assert "load the file with trust=['user_module:Untrusted']" in text
    assert "pass trust=['their.decomposition.PCA']" in text


def zipped(parts: list) -> bytes:
    import io
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for part in parts:
            archive.writestr(part.name.decode(), part.content)
    return file.getvalue()


@pytest.mark.parametrize("given", [["user_net"], {"user_net": "user_code:Net"}, {1: user_code.Net}, user_code.Net])
def test_types_that_are_no_classes_by_name_are_refused(iris_trainer, tmp_path, given):
    iris_trainer.save(tmp_path / "iris.zip")

    with pytest.raises(SpecError, match=r"types: got .*; expected classes by name, such as \{'my_net': MyNet\}"):
        Trainer.load(tmp_path / "iris.zip", types=given)


def test_a_class_that_is_no_preprocessor_is_not_taken_for_one(tiny, tmp_path):
    path = saved(tiny(ROWS, preprocessors=["user_clip"]), tmp_path / "model.zip")

    with pytest.raises(BundleError, match=r"Net has no method transform\(\)"):
        Trainer.load(path, types={"user_clip": user_code.Net})


def test_a_module_that_no_import_finds_is_refused_at_save(tiny, tmp_path, monkeypatch):
    module = types.ModuleType("made_on_the_fly")
    exec(
        python.getsource(user_code.Net).replace('@register("model", "user_net")\n', ""),
        vars(user_code) | {},
        vars(module),
    )
    module.Net.__module__ = "made_on_the_fly"
    monkeypatch.setitem(sys.modules, "made_on_the_fly", module)
    trainer = tiny(ROWS, {"type": module.Net})
    trainer.train()
    monkeypatch.delitem(sys.modules, "made_on_the_fly")

    with pytest.raises(SaveError, match=r"model\.model: 'made_on_the_fly:Net': importing .* failed: .*; put the class"):
        trainer.save(tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize("kind", ["lambda", "local class", "partial"])
def test_what_has_no_name_is_refused_before_anything_runs(tiny, kind):
    class Local(user_code.Net):
        pass

    given = {"lambda": lambda input_shape, output_size: None, "local class": Local}.get(kind)

    with pytest.raises(SpecError, match=r"model\.model(\.type)?: "):
        tiny(ROWS, {"type": given if given is not None else __import__("functools").partial(user_code.Net, width=3)})


def test_the_source_of_all_classes_is_put_in_for_reading(tiny, tmp_path):
    trainer = tiny("user_rows", {"type": "user_module:Untrusted"}, {"epochs": 1, "loss": "user_loss"})

    path = saved(trainer, tmp_path / "model.zip", include_source=True)

    shown = inspect(path)
    assert shown["sources"] == {
        "user_code": Path(user_code.__file__).read_text(),
        "user_module": Path(user_module.__file__).read_text(),
    }
    assert "source/user_module.py" in shown["manifest"]["members"]


def test_there_is_no_source_of_what_is_not_the_users(tiny, tmp_path):
    path = saved(tiny(model="mlp", preprocessors=["standard_scaler"]), tmp_path / "model.zip", include_source=True)

    assert inspect(path)["sources"] == {}


def test_no_source_is_put_in_unless_it_is_asked_for(tiny, tmp_path):
    assert inspect(saved(tiny(ROWS, "user_net"), tmp_path / "model.zip"))["sources"] == {}


def test_the_source_of_a_notebook_is_that_of_the_cells(tiny, tmp_path):
    """As IPython leaves it: the module has no file, and `linecache` knows the text of each cell."""
    module = types.ModuleType("a_notebook")
    cells = [python.getsource(user_code.Net).replace("user_net", "cell_net"), CLIP]
    for number, text in enumerate(cells):
        name = f"/tmp/ipykernel_1/{number}.py"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        vars(module).update(vars(user_code) | {"__name__": "a_notebook", "__file__": None})
        del module.__file__
        exec(compile(text, name, "exec"), vars(module))
    sys.modules["a_notebook"] = module
    trainer = tiny(ROWS, "cell_net", preprocessors=["cell_clip"])

    path = saved(trainer, tmp_path / "model.zip", include_source=True)

    assert inspect(path)["sources"] == {"a_notebook": f"{CLIP}\n\n{cells[0]}"}


CLIP = """
@register("preprocessor", "cell_clip")
class Clip:
    def transform(self, X):
        return X.clip(-1, 1)
"""


def test_a_source_that_is_not_there_is_refused(tiny, tmp_path):
    name = "no_source"
    namespace = {"Net": user_code.Net, "__name__": name}
    exec("class Made(Net):\n    def extra_repr(self):\n        return ''", namespace)
    register("model", "made_by_exec")(namespace["Made"])
    trainer = tiny(ROWS, "made_by_exec")
    trainer.train()

    with pytest.raises(SaveError, match=r"include_source: the source is not there of\n  model\.model: Made\n"):
        trainer.save(tmp_path / "model.zip", include_source=True)
    assert not (tmp_path / "model.zip").exists()


def test_a_source_in_a_bundle_is_never_run(tiny, tmp_path):
    path = saved(tiny(ROWS, "user_net"), tmp_path / "model.zip", include_source=True)
    forge = take_apart(path.read_bytes())
    text = f"open({str(tmp_path / 'was_run')!r}, 'w')\nraise SystemExit(3)\n".encode()
    path.write_bytes(forge.replace("source/user_code.py", text).pack())

    Trainer.load(path)
    inspect(path)

    assert not (tmp_path / "was_run").exists()


def test_a_source_that_is_no_text_is_refused(tiny, tmp_path):
    path = saved(tiny(ROWS, "user_net"), tmp_path / "model.zip", include_source=True)
    forge = take_apart(path.read_bytes())
    path.write_bytes(forge.replace("source/user_code.py", b"\xff").pack())

    for read in (inspect, Trainer.load):
        with pytest.raises(BundleError, match=r"source/user_code\.py: .*utf-8"):
            read(path)


def with_versions(path: Path, **versions: str) -> Path:
    forge = take_apart(path.read_bytes())
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    path.write_bytes(forge.set_manifest(versions=forge.manifest()["versions"] | named).pack())
    return path


def minor_changed(version: str) -> str:
    major, minor, *rest = version.split(".")
    return ".".join([major, str(int(minor) + 1), *rest])


@pytest.mark.parametrize(
    ("steps", "versions", "told"),
    [
        ([], {"torch": "99.0"}, r"was written with torch '99\.0', here it is \d.*: it may predict otherwise, or fail"),
        ([], {"numpy": "0.1", "torch": "0.4.1+cu80"}, r"with torch '0\.4\.1\+cu80', .*; with numpy '0\.1', here it is"),
        (["pca"], {"scikit_learn": "0.1.2"}, r"with scikit-learn '0\.1\.2', here it is"),
        (["pca"], {"scikit_learn": "minor"}, r"with scikit-learn '\d+\.\d+\.\d+', here it is"),
        (["pca"], {"scikit_learn": "x" * 1000}, r"scikit-learn 'x{40}', here"),
        ([], {"scikit_learn": "0.1.2"}, None),
        ([], {"torch": "minor", "numpy": "minor", "gymtrain": "0.0.1", "skops": "0.1"}, None),
    ],
    ids=str,
)
def test_a_version_that_matters_warns_once(tiny, tmp_path, recwarn, steps, versions, told):
    pca = {"type": "sklearn", "transformer": "PCA", "n_components": 2}
    path = saved(tiny(ROWS, preprocessors=[pca for _ in steps]), tmp_path / "model.zip")
    before = inspect(path)["manifest"]["versions"]
    given = {
        name: minor_changed(before[name.replace("_", "-")]) if version == "minor" else version
        for name, version in versions.items()
    }
    with_versions(path, **given)

    if told is None:
        Trainer.load(path)
    else:
        with pytest.warns(UserWarning, match=told) as caught:
            Trainer.load(path)
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_scikit_learn_does_not_warn_too(tiny, tmp_path):
    path = saved(tiny(ROWS, {"type": "sklearn", "estimator": "LogisticRegression"}, {}), tmp_path / "model.zip")
    version = inspect(path)["manifest"]["versions"]["scikit-learn"]
    forge = take_apart(path.read_bytes())
    fitted = take_apart(forge.part("model.skops").content)
    for part in fitted.parts:
        part.content = part.content.replace(json.dumps(version)[1:-1].encode(), b"1.0.2")
    path.write_bytes(forge.replace("model.skops", zipped(fitted.parts)).pack())
    with_versions(path, scikit_learn="1.0.2")

    with pytest.warns(UserWarning, match=r"scikit-learn '1\.0\.2'") as caught:
        Trainer.load(path)

    assert len(caught) == 1
