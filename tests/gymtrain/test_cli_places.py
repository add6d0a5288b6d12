from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result
from web_server import WebServer, content

from gymtrain import BundleError, Trainer
from gymtrain.cli import app

pytestmark = pytest.mark.usefixtures("downloads")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bundle(iris_trainer: Trainer) -> bytes:
    buffer = io.BytesIO()
    iris_trainer.save(buffer)
    return buffer.getvalue()


@pytest.fixture
def store(bundle: bytes) -> Iterator[str]:
    """The address of the bundle in a store."""
    with fsspec.open("memory://models/iris.zip", "wb") as file:
        file.write(bundle)
    yield "memory://models/iris.zip"
    fsspec.filesystem("memory").rm("/models", recursive=True)


def test_a_trainer_is_the_same_from_every_place(iris_trainer: Trainer, bundle: bytes, store: str, tmp_path: Path):
    X = np.random.default_rng(0).normal(3, size=(5, 4))
    expected = iris_trainer.predict_proba(X)
    (tmp_path / "iris.zip").write_bytes(bundle)
    with open(tmp_path / "iris.zip", "rb") as file:
        for place in (bundle, bytearray(bundle), io.BytesIO(bundle), file, store, (tmp_path / "iris.zip").as_uri()):
            loaded = Trainer.load(place, sha256=hashlib.sha256(bundle).hexdigest())

            assert (loaded.predict_proba(X) == expected).all()
        assert not file.closed


def test_what_is_wrong_in_memory_is_told_without_showing_it(bundle: bytes):
    with pytest.raises(BundleError, match=rf"^<bytes of {len(bundle) - 1}>") as caught:
        Trainer.load(bundle[:-1])
    assert len(str(caught.value)) < 200
    with pytest.raises(BundleError, match=r"^<bytes of \d+>: has SHA-256"):
        Trainer.load(bundle, sha256="0" * 64)


def test_commands_take_addresses(store: str, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b,c,d\n5.1,3.5,1.4,0.2\n")

    shown = run("inspect", store, "--json")
    predicted = run("predict", store, tmp_path / "rows.csv")
    measured = run("estimate", store, "--repetitions", 1, "--json")

    assert json.loads(shown.stdout)["schema"]["labels"]["task"] == "multiclass"
    assert predicted.stdout.splitlines()[0] == "prediction"
    assert json.loads(measured.stdout)["parameters"]["total"] > 0


@pytest.mark.slow
def test_commands_take_addresses_of_mlflow(widths: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{widths / 'mlflow.db'}")
    result = json.loads(next(widths.glob("widths/*/result.json")).read_text())
    run_id = result["run"]["run_id"]

    shown = run("inspect", f"runs:/{run_id}")
    assert "multiclass" in shown.stdout, shown.stderr
    own = result["run"]["run_dir"].rpartition("-")[2]
    assert run("inspect", f"runs:/{own}").stdout.splitlines()[1:] == shown.stdout.splitlines()[1:]
    refused = run("inspect", f"runs:/{'0' * 32}")
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_commands_compare_the_digest(bundle: bytes, store: str, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b,c,d\n5.1,3.5,1.4,0.2\n")
    digest = hashlib.sha256(bundle).hexdigest()

    for command in (["inspect", store], ["predict", store, tmp_path / "rows.csv"], ["estimate", store]):
        refused = run(*command, "--sha256", "0" * 64)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"iris.zip: has SHA-256 {digest}, expected {'0' * 64}" in refused.stderr
    assert run("inspect", store, "--sha256", digest).exit_code == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("memory://models/missing.zip", "memory://models/missing.zip: cannot be read: FileNotFoundError"),
        ("http://example.org/x.zip", "anybody on the way could change what http brings"),
        ("ftp://example.org/x.zip", "nor an address that is opened"),
        ("file:///missing.zip", "File '/missing.zip' does not exist"),
        ("/missing.zip", "File '/missing.zip' does not exist"),
        ("/", "File '/' is a directory"),
    ],
)
def test_a_place_that_cannot_be_read_is_an_error_in_a_line(place: str, message: str):
    refused = run("inspect", place)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert message in refused.stderr


def test_a_bundle_is_exported_for_the_hub(store: str, bundle: bytes, tmp_path: Path):
    done = run("export", store, "--hub", tmp_path / "iris")
    again = run("export", store, "--hub", tmp_path / "iris")

    assert "is ready; upload it with: hf upload ORGANIZATION/NAME" in done.stdout
    assert (tmp_path / "iris" / "model.zip").read_bytes() == bundle
    assert (again.exit_code, again.stdout) == (2, "")
    assert "There is something there already; name a folder that is new or empty" in again.stderr


def test_a_name_on_a_server_leads_nowhere_else(bundle: bytes):
    with WebServer().running() as server:
        server.answers = dict.fromkeys(["/models/..", "/a/%2e%2e%2fx.zip", f"/{'x' * 300}", "/"], content(bundle))

        for path in server.answers:
            assert "bundle.zip, " in run("inspect", f"{server.url}{path}").stdout


def test_a_training_is_saved_to_an_address(tmp_path: Path):
    spec = tmp_path / "spec.json"
    experiment = {
        "dataset": {"dataset": {"type": "iris"}},
        "model": {"model": {"type": "linear"}, "training": {"epochs": 1}},
        "tracking": {"root": str(tmp_path / "runs"), "log_figures": False},
    }
    spec.write_text(json.dumps(experiment))

    trained = run("train", spec, "--save", "memory://models/trained.zip")

    assert trained.exit_code == 0, trained.stderr
    assert "memory://models/trained.zip" in trained.stdout
    assert Trainer.load("memory://models/trained.zip").classes_.tolist() == [0, 1, 2]


def test_an_address_that_cannot_be_written_to_is_refused_before_the_training(tmp_path: Path):
    (tmp_path / "spec.json").write_text(json.dumps({"dataset": {}, "model": {}}))

    refused = run("train", tmp_path / "spec.json", "--save", "https://example.org/x.zip")

    assert refused.exit_code == 2
    assert "nothing is written to web servers" in refused.stderr
