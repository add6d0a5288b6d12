"""What people get from MLflow for a model that was logged: loaded, served, asked wrongly."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import user_code
from drawn_images import folder_of_images

from gymtrain import Trainer

MLFLOW = [{"type": "mlflow", "log_model": True}]
SERVE_SECONDS = 180


def frame() -> pd.DataFrame:
    """Whole numbers, numbers with gaps, and text; the plants are text too."""
    age = np.arange(40) % 8
    return pd.DataFrame(
        {
            "age": age,
            "height": np.where(age == 3, np.nan, age * 1.5),
            "place": np.where(age % 2 == 0, "wood", "bog"),
            "plant": np.where(age > 3, "oak", "fern"),
        }
    )


def rows() -> pd.DataFrame:
    return frame().drop(columns="plant")


def trained(root: Path, dataset: Any, model: Any, **fields: Any) -> Trainer:
    trainer = Trainer(
        dataset={"dataset": dataset, **fields},
        model={"model": model},
        tracking={"root": str(root), "experiment": "served", "log_system_metrics": False, "trackers": MLFLOW},
    )
    trainer.train()
    return trainer


def model_uri(trainer: Trainer) -> str:
    from mlflow import MlflowClient

    run = trainer.result["run"]
    (output,) = MlflowClient(run["tracking_uri"]).get_run(run["run_id"]).outputs.model_outputs
    return f"models:/{output.model_id}"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs of models")


@pytest.fixture(autouse=True, scope="module")
def _store(root: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        yield


@pytest.fixture(scope="module")
def plants(root: Path) -> Trainer:
    """A torch model of a frame; two classes that are text."""
    return trained(
        root,
        {"type": "dataframe", "data": frame(), "target": "plant"},
        {"type": "mlp", "hidden": [4]},
        preprocessors=["tabular"],
    )


@pytest.fixture(scope="module")
def digits(root: Path) -> Trainer:
    """A scikit-learn model of an array; three classes that are numbers."""
    X, y = user_code.rows_of("multiclass")
    tree = {"type": "sklearn", "estimator": "DecisionTreeClassifier", "max_depth": 3}
    return trained(root, {"type": "arrays", "X": X, "y": y}, tree)


@pytest.fixture(scope="module")
def circles(root: Path) -> Trainer:
    """A model of images of any size, from files."""
    photos = folder_of_images(root / "photos", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GYMTRAIN_DATA", str(root / "data"))
        return trained(
            root,
            {"type": "image_folder", "path": str(photos)},
            {"type": "cnn", "channels": [4]},
            preprocessors=[{"type": "image_resize", "width": 16, "height": 16}, {"type": "divide"}],
        )


def loaded(trainer: Trainer, **options: Any) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(model_uri(trainer), **options)


def test_a_frame_gets_the_labels_and_probabilities_of_the_trainer(plants):
    model = loaded(plants)

    labels = model.predict(rows())
    probabilities = model.predict(rows(), params={"proba": True})

    assert labels.tolist() == plants.predict(rows()).tolist()
    assert set(labels) <= {"fern", "oak"}
    assert list(probabilities.columns) == ["fern", "oak"]
    np.testing.assert_array_equal(probabilities.to_numpy(), plants.predict_proba(rows()))


def test_an_array_of_any_kind_of_numbers_gets_the_labels_of_the_trainer(digits):
    X, _ = user_code.rows_of("multiclass")
    model = loaded(digits)

    for dtype in ("float64", "float32"):
        assert model.predict(X.astype(dtype)).tolist() == digits.predict(X.astype(dtype)).tolist()
    assert model.predict(np.round(X).astype("int64")).tolist() == digits.predict(np.round(X)).tolist()
    assert list(model.predict(X, params={"proba": True}).columns) == [str(label) for label in digits.classes_]


def test_a_regression_has_numbers_and_no_probabilities(root):
    from mlflow.exceptions import MlflowException

    X, y = user_code.rows_of("regression")
    trainer = trained(root, {"type": "arrays", "X": X, "y": y}, "linear")
    model = loaded(trainer)

    np.testing.assert_array_equal(model.predict(X), trainer.predict(X))
    with pytest.raises(MlflowException, match="a regression has no probabilities; use predict"):
        model.predict(X, params={"proba": True})


def test_several_labels_have_a_column_each(root):
    X, y = user_code.rows_of("multilabel")
    trainer = trained(root, {"type": "arrays", "X": X, "y": y, "task": "multilabel"}, "linear")
    model = loaded(trainer)

    np.testing.assert_array_equal(model.predict(X), trainer.predict(X))
    np.testing.assert_array_equal(model.predict(X, params={"proba": True}).to_numpy(), trainer.predict_proba(X))


def test_a_model_of_images_is_served_as_a_tensor_of_any_rank(root):
    X = np.random.default_rng(0).random((12, 1, 4, 4)).astype("float32")
    trainer = trained(root, {"type": "arrays", "X": X, "y": np.arange(12) % 2}, "linear")

    model = loaded(trainer)

    assert model.predict(X).tolist() == trainer.predict(X).tolist()
    assert np.shape(model.input_example) == (5, 1, 4, 4)


def test_the_model_says_what_it_takes_what_it_needs_and_what_a_row_looks_like(plants):
    metadata = loaded(plants).metadata

    assert metadata.get_input_schema().input_names() == ["age", "height", "place"]
    assert metadata.get_params_schema().to_dict() == [
        {"name": "proba", "default": False, "shape": None, "type": "boolean"}
    ]
    assert metadata.metadata["gymtrain"]["labels"]["classes"] == ["fern", "oak"]
    example = loaded(plants).input_example
    assert list(example.columns) == ["age", "height", "place"]
    assert len(example) == 5
    assert len(plants.predict(example)) == 5
    from mlflow.pyfunc import get_model_dependencies

    needed = Path(get_model_dependencies(model_uri(plants))).read_text().splitlines()
    assert {line.partition("==")[0] for line in needed} == {
        *("gymtrain", "torch", "numpy", "scikit-learn", "skops", "mlflow")
    }
    assert all("==" in line and "+" not in line for line in needed)


def test_a_class_of_the_users_module_is_trusted_by_the_model_that_was_made_with_it(root):
    X, y = user_code.rows_of("binary")
    trainer = trained(root, {"type": "arrays", "X": X, "y": y}, {"type": "user_code:Everything"})

    assert loaded(trainer).predict(X).tolist() == trainer.predict(X).tolist()
    with pytest.raises(ValueError, match="trust"):
        loaded(trainer, model_config={"trust": []})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: rows().drop(columns="age"), "the rows have no column 'age'; expected 'age', 'height', 'place'"),
        (lambda: rows().assign(age="old"), "column 'age' holds text such as 'old'; it held numbers in training"),
        (lambda: rows().assign(place=1), "column 'place' holds numbers such as 1; it held text in training"),
        (lambda: rows().iloc[:0], "got no rows, or none of the columns 'age', 'height', 'place'"),
        (lambda: pd.DataFrame({"aeg": [1]}), "got no rows, or none of the columns 'age'"),
        (lambda: rows().assign(height=np.inf), "infinite"),
    ],
    ids=["missing column", "text for a number", "number for a text", "no rows", "misspelt column", "infinite"],
)
def test_a_wrong_frame_is_refused_in_our_words(plants, wrong, message):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message) as caught:
        loaded(plants).predict(wrong())

    assert caught.value.get_http_status_code() == 400


def test_a_wrong_array_is_refused_in_our_words(digits):
    from mlflow.exceptions import MlflowException

    model = loaded(digits)

    with pytest.raises(MlflowException, match=r"got an array of shape \(2, 5\); expected \(rows, 6\)"):
        model.predict(np.zeros((2, 5)))
    with pytest.raises(MlflowException, match=r"got no rows; expected \(rows, 6\)"):
        model.predict(np.zeros((0, 6)))


def test_files_in_base64_bytes_and_pixels_get_the_answers_of_the_trainer(circles, root):
    files = sorted((root / "photos").rglob("*.jpg"))[::4]
    model, expected = loaded(circles), circles.predict(files).tolist()
    raw = [path.read_bytes() for path in files]
    encoded = [base64.b64encode(each).decode() for each in raw]
    in_lines = [base64.encodebytes(each).decode() for each in raw]
    pixels = np.zeros((2, 20, 30, 3), np.uint8)

    for rows in (np.array(encoded), np.array(raw, object), pd.DataFrame({"image": in_lines}), pd.DataFrame({"x": raw})):
        assert model.predict(rows).tolist() == expected
    probabilities = model.predict(np.array(encoded), params={"proba": True})
    np.testing.assert_array_equal(probabilities.to_numpy(), circles.predict_proba(files))
    assert model.predict(pixels).tolist() == circles.predict(pixels).tolist()
    for body in (
        {"inputs": encoded},
        {"instances": encoded},
        {"dataframe_split": {"data": [[each] for each in encoded]}},
    ):
        assert asked(model, body) == (200, expected)
    assert asked(model, {"inputs": pixels[:, :2, :2].tolist()}) == (200, circles.predict(pixels[:, :2, :2]).tolist())
    assert (
        model.predict(model.input_example).tolist()
        == circles.predict(circles._predictor.examples.take(slice(5))).tolist()
    )


@pytest.mark.parametrize("kind", ["images", "pixels"])
def test_a_request_opens_no_file_of_the_server(circles, root, kind):
    from mlflow.exceptions import MlflowException

    model = loaded(circles)
    if kind == "pixels":
        X = np.zeros((12, 40, 48), np.uint8)
        model = loaded(trained(root, {"type": "arrays", "X": X, "y": np.arange(12) % 2}, "linear"))
    path = str(next((root / "photos" / "circle").iterdir()))
    (root / "abcd").write_bytes(Path(path).read_bytes())  # a name that is base64, too

    for wrong in (path, "http://127.0.0.1/x.jpg", "..", f"file://{path}"):
        for rows in (np.array([wrong]), np.array([wrong], object), pd.DataFrame({"image": [wrong]})):
            with pytest.raises(MlflowException, match="no path is opened here: send the content") as caught:
                model.predict(rows)
            assert caught.value.get_http_status_code() == 400
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for wrong in ("abcd", [["abcd"]], [path], {"path": path}):
            assert asked(model, {"inputs": [wrong]})[0] == 400
        for rows in (np.array([Path("abcd")], object), np.array([b"abcd"], object)):
            with pytest.raises(MlflowException):
                model.predict(rows)


def asked(model: Any, body: Any) -> tuple[int, Any]:
    """Answer a request as a server does, without one."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import invocations

    try:
        reply = invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())
    except MlflowException as error:
        return error.get_http_status_code(), str(error)
    return reply.status, json.loads(reply.response)["predictions"]


class Serving:
    """`mlflow models serve` in processes of its own."""

    def __init__(self, uri: str, directory: Path) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri, "--env-manager", "local"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        # MLflow starts uvicorn by its name.
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": programs, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._log = directory / f"serve-{port}.log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=directory, env=environment, start_new_session=True
            )
        for _ in range(SERVE_SECONDS * 5):
            try:
                with urllib.request.urlopen(f"{self.url}/ping", timeout=5):
                    return
            except OSError:
                assert self._child.poll() is None, self._log.read_text()
                time.sleep(0.2)
        self.stop()
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        os.killpg(self._child.pid, signal.SIGTERM)
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def ask(self, body: Any) -> tuple[int, Any]:
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/invocations", json.dumps(body).encode(), kind)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.load(reply)["predictions"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def served_plants(plants: Trainer, root: Path):
    serving = Serving(model_uri(plants), root)
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def served_digits(digits: Trainer, root: Path):
    serving = Serving(model_uri(digits), root)
    yield serving
    serving.stop()


@pytest.mark.slow
def test_a_served_frame_gets_the_labels_and_probabilities_of_the_trainer(plants, served_plants):
    few = rows().head(6)
    columns = [each.tolist() for each in (few[name].astype(object).where(few[name].notna(), None) for name in few)]
    split = {"columns": list(few.columns), "data": [list(row) for row in zip(*columns, strict=True)]}
    records = [dict(zip(few.columns, row, strict=True)) for row in split["data"]]
    labels = plants.predict(few).tolist()

    for body in ({"dataframe_split": split}, {"dataframe_records": records}, {"instances": records}):
        assert served_plants.ask(body) == (200, labels)
    status, probabilities = served_plants.ask({"dataframe_split": split, "params": {"proba": True}})

    assert status == 200
    assert [list(row) for row in probabilities] == [["fern", "oak"]] * 6
    np.testing.assert_allclose([list(row.values()) for row in probabilities], plants.predict_proba(few), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_records": [{"age": 1, "height": 2.0}]}, "the rows have no column 'place'"),
        (
            {"dataframe_records": [{"age": "old", "height": 2.0, "place": "bog"}]},
            "column 'age' holds text such as 'old'",
        ),
        ({"dataframe_records": [{"age": 1, "height": 2.0, "place": 7}]}, "column 'place' holds numbers such as 7"),
        ({"dataframe_records": [{"age": [1], "height": 2.0, "place": "bog"}]}, "age"),
        ({"dataframe_records": []}, "got no rows, or none of the columns 'age', 'height', 'place'"),
        ({"dataframe_records": [{"aeg": 1}]}, "got no rows, or none of the columns 'age', 'height', 'place'"),
        ({"inputs": [[1, 2.0, 3]]}, "got no rows, or none of the columns 'age', 'height', 'place'"),
    ],
)
def test_a_wrong_frame_is_answered_with_400_and_our_words(served_plants, body, message):
    status, answer = served_plants.ask(body)

    assert status == 400
    assert message in answer


@pytest.mark.slow
def test_a_served_array_gets_the_labels_and_probabilities_of_the_trainer(digits, served_digits):
    X, _ = user_code.rows_of("multiclass")

    assert served_digits.ask({"inputs": X.tolist()}) == (200, digits.predict(X).tolist())
    assert served_digits.ask({"instances": X.tolist()}) == (200, digits.predict(X).tolist())
    status, probabilities = served_digits.ask({"inputs": X.tolist(), "params": {"proba": True}})

    assert status == 200
    assert [list(row) for row in probabilities] == [[str(label) for label in digits.classes_]] * len(X)
    np.testing.assert_allclose([list(row.values()) for row in probabilities], digits.predict_proba(X), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [[1, 2]]}, "got an array of shape (1, 2); expected (rows, 6)"),
        ({"inputs": [1, 2, 3, 4, 5, 6]}, "one row is X.reshape(1, -1)"),
        ({"inputs": [["a", 2, 3, 4, 5, 6]]}, "got the text 'a' at (0, 0) where a number belongs"),
        ({"inputs": [[1, 2, 3, 4, 5, 6], [1]]}, "expected (rows, 6)"),
        ({"inputs": [[None, 2, 3, 4, 5, 6]]}, "missing values"),
        # MLflow says so itself, and does not ask the model.
        ({"inputs": []}, "suggests a numpy array input"),
    ],
)
def test_a_wrong_array_is_answered_with_400_and_our_words(served_digits, body, message):
    status, answer = served_digits.ask(body)

    assert status == 400
    assert message in answer
