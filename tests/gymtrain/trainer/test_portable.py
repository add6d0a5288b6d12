from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_forge import take_apart
from typer.testing import CliRunner

from gymtrain import BundleError, MissingDependencyError, NotTrainedError, SaveError, Trainer, inspect
from gymtrain.bundle import open_bundle
from gymtrain.cli import app

FOLDER = Path(__file__).parents[2]
ROWS = np.random.default_rng(0).uniform(0, 8, (300, 4)).astype(np.float32)


def trained(root: Path, module: str = "Net", dataset: str = "iris") -> Trainer:
    trainer = Trainer(
        dataset={"dataset": dataset, "preprocessors": ["standard_scaler"]},
        model={"model": {"type": f"user_portable:{module}"}, "training": {"epochs": 2}},
        tracking={"root": str(root), "trackers": [], "log_figures": False},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return trained(tmp_path_factory.mktemp("iris"))


@pytest.fixture(scope="module")
def portable(iris: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "model.zip"
    iris.save(path, portable=True)
    return path


def without_the_class(path: Path) -> Trainer:
    with pytest.warns(UserWarning, match=r"predicts through model\.onnx, in onnxruntime, and cannot train: .*trust"):
        return Trainer.load(path)


@pytest.mark.slow
def test_a_process_that_has_no_such_class_predicts_the_same(iris: Trainer, portable: Path, tmp_path: Path):
    program = f"""
import json, os, sys, warnings
import numpy as np
from gymtrain import Trainer
warnings.simplefilter("ignore")
trainer = Trainer.load({str(portable)!r})
rows = np.array(json.load(sys.stdin), np.float32)
found = trainer.predict_proba(rows)
blocks = [
    np.concatenate([trainer.predict_proba(rows[at : at + size]) for at in range(0, 300, size)])
    for size in (1, 7, 32, 299)
]
child = os.fork()
if child == 0:
    os._exit(0 if (trainer.predict_proba(rows) == found).all() else 1)
changed = [int((each != found).sum()) for each in blocks]
labels = trainer.predict(rows).tolist()
status = os.waitpid(child, 0)[1]
print(json.dumps([found.tolist(), changed, status, trainer.verify(), labels, "user_portable" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(ROWS.tolist()), capture_output=True, text=True, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    scores, changed, status, verified, labels, is_imported = json.loads(done.stdout)
    np.testing.assert_allclose(scores, iris.predict_proba(ROWS), rtol=1e-4, atol=1e-5)
    assert labels == iris.predict(ROWS).tolist()
    assert (changed, status, is_imported) == ([0, 0, 0, 0], 0, False)
    assert verified["verdict"] in {"same bits", "within tolerance"}


def test_a_process_that_has_the_class_uses_it(iris: Trainer, portable: Path):
    loaded = Trainer.load(portable, trust=["user_portable:Net"])

    np.testing.assert_array_equal(loaded.predict_proba(ROWS), iris.predict_proba(ROWS))


def test_the_bundle_says_how_near_its_answers_are(portable: Path):
    told = inspect(portable)["storage"]["portable"]

    assert told.keys() == {"atol", "rtol", "difference"}
    assert 0 <= told["difference"] < 1e-4
    shown = CliRunner().invoke(app, ["inspect", str(portable)], env={"COLUMNS": "200"}).stdout
    assert re.search(
        r"^stored +2 tied tensors once, also as ONNX, whose scores differ by up to \S+$", shown, re.MULTILINE
    )


def test_the_same_model_has_the_same_bytes_in_onnx(iris: Trainer, portable: Path, tmp_path: Path):
    iris.save(tmp_path / "again.zip", portable=True)

    with open_bundle(portable) as one, open_bundle(tmp_path / "again.zip") as other:
        assert one.onnx() == other.onnx()


def test_what_is_exported_has_the_weights_in_fewer_bytes(iris: Trainer, tmp_path: Path):
    iris.save(tmp_path / "small.zip", portable=True, dtype="int8")

    small = Trainer.load(tmp_path / "small.zip", trust=["user_portable:Net"])
    found = without_the_class(tmp_path / "small.zip").predict_proba(ROWS)

    assert inspect(tmp_path / "small.zip")["storage"].keys() >= {"portable", "reduced", "tied"}
    np.testing.assert_allclose(found, small.predict_proba(ROWS), rtol=1e-4, atol=1e-5)
    assert np.abs(found - iris.predict_proba(ROWS)).max() > 1e-4


def test_a_regression_without_its_class_gives_its_numbers(tmp_path: Path):
    trainer = trained(tmp_path, dataset="diabetes")
    rows = np.random.default_rng(0).normal(size=(9, 10)) / 10

    trainer.save(tmp_path / "model.zip", portable=True)

    found = without_the_class(tmp_path / "model.zip").predict(rows)
    np.testing.assert_allclose(found, trainer.predict(rows), rtol=1e-4, atol=1e-5)


def test_what_has_no_class_says_so_where_it_is_needed(portable: Path, tmp_path: Path):
    loaded = without_the_class(portable)

    for use in (loaded.train, lambda: loaded.save(tmp_path / "copy.zip")):
        with pytest.raises(Exception, match=r"user_portable:Net|without the class of its model; copy its file"):
            use()
    np.testing.assert_array_equal(loaded.predict(ROWS), without_the_class(portable).predict(ROWS))
    assert not (tmp_path / "copy.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"portable": "no"}, r"^portable: got 'no'; expected True or False$"),
        ({"include_source": 1}, r"^include_source: got 1; expected True or False$"),
        ({"dtype": []}, r"^dtype: got \[\]; expected one of 'bf16'"),
    ],
)
def test_an_argument_of_another_kind_is_refused(arguments: dict[str, Any], message: str, iris: Trainer, tmp_path: Path):
    with pytest.raises(SaveError, match=message):
        iris.save(tmp_path / "model.zip", **arguments)
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "Branching",
            r"^portable: Branching cannot be exported to ONNX: \w+: Could not guard on data-dependent .*; save without",
        ),
        ("Forgetful", r"^portable: in ONNX the model answers otherwise: 8 rows differ by up to 0\.\d+, where 1e-05"),
    ],
)
def test_what_is_not_the_same_in_onnx_is_not_saved(
    module: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    trainer = trained(tmp_path, module)
    capfd.readouterr()

    with pytest.raises(SaveError, match=message):
        trainer.save(tmp_path / "model.zip", portable=True)
    assert not (tmp_path / "model.zip").exists()
    assert capfd.readouterr() == ("", "")


def test_what_is_no_torch_module_is_not_exported(tmp_path: Path):
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={"model": {"type": "sklearn", "estimator": "LogisticRegression"}},
        tracking={"root": str(tmp_path), "trackers": []},
    )
    trainer.train()

    with pytest.raises(SaveError, match=r"^portable: 'sklearn' is no torch module; save without portable$"):
        trainer.save(tmp_path / "model.zip", portable=True)


def test_an_extra_that_is_not_installed_is_named(iris: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    with pytest.raises(MissingDependencyError, match=r"onnxscript is not installed.*pip install 'gymtrain\[onnx\]'"):
        iris.save(tmp_path / "model.zip", portable=True)


def test_a_bundle_is_not_called_broken_where_onnxruntime_is_not_installed(
    iris: Trainer, portable: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(MissingDependencyError, match=r"^onnxruntime is not.*pip install 'gymtrain\[onnxruntime\]'"):
        Trainer.load(portable)
    with_class = Trainer.load(portable, trust=["user_portable:Net"])
    np.testing.assert_array_equal(with_class.predict(ROWS), iris.predict(ROWS))


@pytest.mark.parametrize("verify", ["eager", "lazy"])
def test_a_damaged_graph_is_refused_before_it_answers(verify: Any, portable: Path, tmp_path: Path):
    content = bytearray(portable.read_bytes())
    with open_bundle(portable) as bundle:
        where = content.index(bundle.onnx())
    content[where + 600] ^= 1
    (tmp_path / "damaged.zip").write_bytes(content)

    with pytest.raises(BundleError, match=r"model\.onnx") as raised:
        Trainer.load(tmp_path / "damaged.zip", verify=verify)
    assert raised.value.reason == "corrupt"


def test_a_bundle_that_brings_something_else_for_a_graph_is_refused(portable: Path, tmp_path: Path):
    forge = take_apart(portable.read_bytes())
    (tmp_path / "forged.zip").write_bytes(forge.replace("model.onnx", b"\x08\x0a").pack())

    with pytest.raises(BundleError, match=r"model\.onnx: it holds no graph") as raised:
        Trainer.load(tmp_path / "forged.zip")
    assert raised.value.reason == "onnx"


def test_a_graph_without_weights_beside_it_is_refused(portable: Path, tmp_path: Path):
    forge = take_apart(portable.read_bytes())
    (tmp_path / "forged.zip").write_bytes(forge.remove("weights.safetensors").pack())

    with pytest.raises(BundleError, match=r"weights\.safetensors") as raised:
        Trainer.load(tmp_path / "forged.zip")
    assert raised.value.reason == "member_missing"


def test_nothing_is_exported_before_something_is_learned(tmp_path: Path):
    trainer = Trainer(dataset={"dataset": "iris"}, model={"model": "linear"})

    with pytest.raises(NotTrainedError, match=r"^save: "):
        trainer.save(tmp_path / "model.zip", portable=True)
