from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundle_forge import take_apart
from user_code import rows_of

from gymtrain import BundleError, SaveError, Trainer, inspect

TESTS = Path(__file__).parents[1]
TASKS = ("binary", "multiclass", "multilabel", "regression", "regressions")

ESTIMATORS = {
    "binary": [{"estimator": "LogisticRegression"}, {"estimator": "SVC"}, {"estimator": "DecisionTreeClassifier"}],
    "multiclass": [{"estimator": "LogisticRegression"}, {"estimator": "HistGradientBoostingClassifier"}],
    "multilabel": [{"estimator": "KNeighborsClassifier"}, {"estimator": "RidgeClassifier"}],
    "regression": [{"estimator": "Ridge"}, {"estimator": "GradientBoostingRegressor", "n_estimators": 5}],
    "regressions": [{"estimator": "Ridge"}, {"estimator": "KNeighborsRegressor"}],
}
PREPROCESSORS: dict[str, list[Any]] = {
    "none": [],
    "standard_scaler": ["standard_scaler"],
    "min_max_scaler": ["min_max_scaler"],
    "divide": [{"type": "divide", "factor": 4.0}],
    "replace": [{"type": "replace", "from_val": None, "to_val": 0.5}],
    "kbest": [{"type": "kbest", "k": 3}],
    "pca": [{"type": "sklearn", "transformer": "PCA", "n_components": 3}],
    "of the user": ["user_clip"],
    "two": ["standard_scaler", {"type": "sklearn", "transformer": "PCA", "n_components": 2}],
    "three": ["min_max_scaler", {"type": "divide", "factor": 2.0}, "standard_scaler"],
    "tabular": ["tabular"],
    "tabular and kbest": ["tabular", {"type": "kbest", "k": 2}],
    "auto": "auto",
}
ALL_MODELS = {"none", "two"}


@dataclass
class Case:
    """One trainer, and the rows that it is asked about."""

    name: str
    dataset: dict[str, Any]
    model: dict[str, Any]
    X: Any
    trust: list[str] = field(default_factory=list)


def rows_for(preprocessors: str, task: str) -> tuple[dict[str, Any], Any]:
    """The dataset component, and rows for `predict`."""
    X, y = rows_of(task)
    if preprocessors not in ("tabular", "tabular and kbest", "auto"):
        if preprocessors == "replace":
            X[::7, 2] = np.nan
        return {"type": "arrays", "X": X, "y": y, "task": task.replace("ions", "ion")}, X[:20]
    frame = pd.DataFrame({f"x{index}": X[:, index] for index in range(3)})
    frame["city"] = np.array(["Porto", "Braga", None], dtype=object)[np.arange(len(X)) % 3]
    frame.loc[::5, "x1"] = np.nan
    columns = y if y.ndim == 2 else y[:, None]
    names = [f"y{index}" for index in range(columns.shape[1])]
    full = pd.concat([frame, pd.DataFrame(columns, columns=names)], axis=1)
    target = names if y.ndim == 2 else names[0]
    component = {"type": "dataframe", "data": full, "target": target, "task": task.replace("ions", "ion")}
    return component, frame[:20].to_dict("list")


def models_for(task: str) -> list[tuple[dict[str, Any], list[str]]]:
    forest = "RandomForestRegressor" if task.startswith("regression") else "RandomForestClassifier"
    sklearn = [{"estimator": forest, "n_estimators": 3}, *ESTIMATORS[task]]
    models = [({"type": "sklearn", **each}, []) for each in sklearn]
    models += [({"type": "linear"}, []), ({"type": "mlp", "hidden": [5], "dropout": 0.1}, [])]
    models += [({"type": "user_net"}, []), ({"type": "user_module:Untrusted", "width": 3}, ["user_module:Untrusted"])]
    models += [({"type": "user_code:Everything", "offset": 1.0}, ["user_code:Everything"])]
    models += [({"type": "user_code:Half"}, ["user_code:Half"])]
    if task in ("binary", "multiclass"):
        models += [({"type": "nearest_mean"}, []), ({"type": "user_code:OnlyArrays"}, ["user_code:OnlyArrays"])]
    if task.startswith("regression"):
        models += [({"type": "user_code:SkopsAndArrays"}, ["user_code:SkopsAndArrays"])]
    return models


def cases() -> list[Case]:
    found = []
    for task in TASKS:
        for preprocessors, steps in PREPROCESSORS.items():
            if "kbest" in preprocessors and task in ("multilabel", "regressions"):
                continue  # features are scored against one target
            models = models_for(task)
            if preprocessors not in ALL_MODELS:
                models = [each for each in models if each[0]["type"] == "linear"]
            for model, trust in models:
                component, X = rows_for(preprocessors, task)
                what = model.get("estimator", model["type"])
                dataset = {"dataset": component, "preprocessors": steps}
                found.append(Case(f"{task}, {what}, {preprocessors}", dataset, model, X, trust))
        X, y = rows_of(task)
        images = np.repeat(X, 11, axis=1)[:, :64].reshape(-1, 8, 8).astype(np.float32)
        for shape in ((8, 8), (8, 8, 1)):
            component = {"type": "arrays", "X": images.reshape(-1, *shape), "y": y, "task": task.replace("ions", "ion")}
            dataset = {"dataset": component, "data_augmentors": ["flip"], "preprocessors": ["standard_scaler"]}
            model = {"type": "cnn", "channels": [2], "hidden": [4]}
            found.append(Case(f"{task}, cnn, {len(shape)} axes", dataset, model, images[:5].reshape(-1, *shape)))
    X, y = rows_of("multiclass")
    lazy = {"dataset": {"type": "arrays", "X": X, "y": y}}
    found.append(Case("multiclass, lazy", lazy, {"type": "user_code:Lazy", "outputs": 3}, X, ["user_code:Lazy"]))
    found.append(Case("multiclass, nested", lazy, {"type": "user_code:Nested.Net"}, X, ["user_code:Nested.Net"]))
    return found


CASES = {case.name: case for case in cases()}

PROGRAM = """
import json, pickle, sys
import numpy as np
import user_code
from gymtrain import TaskError, Trainer

folder = sys.argv[1]
outcomes = {}
for index, (name, trust, rows) in enumerate(json.load(open(f"{folder}/cases.json"))):
    trainer = Trainer.load(f"{folder}/{index}.zip", trust)
    expected = np.load(f"{folder}/{index}.npz", allow_pickle=False)
    X = expected["X"] if rows is None else rows
    found = {"labels": trainer.predict(X)}
    try:
        found["probabilities"] = trainer.predict_proba(X)
    except TaskError as error:
        pass
    trainer.save(f"{folder}/{index}-again.zip")
    differing = []
    for key in ("labels", "probabilities"):
        if (key in found) != (key in expected):
            differing.append(f"{key} is there only once")
        elif key in found:
            got = found[key].astype(str) if found[key].dtype == object else found[key]
            if got.dtype != expected[key].dtype or got.tobytes() != expected[key].tobytes():
                differing.append(f"{key}: {got[:3]} {got.dtype}, not {expected[key][:3]} {expected[key].dtype}")
    outcomes[name] = differing
assert "pickle" not in trainer.predict.__module__
json.dump(outcomes, open(f"{folder}/outcomes.json", "w"))
"""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case trained and saved, with what it predicts beside it."""
    folder = tmp_path_factory.mktemp("bundles")
    listed = []
    for index, case in enumerate(CASES.values()):
        training = {"validation_split": 0.25}
        if case.model["type"] not in ("sklearn", "nearest_mean") and "Arrays" not in case.model["type"]:
            training |= {"epochs": 2, "batch_size": 10, "seed": index}
        trainer = Trainer(
            dataset={"samples": {"train": 0.9, "test": 0.1}, **case.dataset},
            model={"model": case.model, "training": training},
            tracking={"root": str(folder / "runs")},
        )
        trainer.train()
        trainer.save(folder / f"{index}.zip")
        expected = {"labels": trainer.predict(case.X)}
        if not case.name.startswith("regression") and trainer._predictor.learner.has_probabilities:
            expected["probabilities"] = trainer.predict_proba(case.X)
        frame = isinstance(case.X, dict)
        arrays = {key: each.astype(str) if each.dtype == object else each for key, each in expected.items()}
        np.savez(folder / f"{index}.npz", **arrays, **({} if frame else {"X": case.X}))
        listed.append([case.name, case.trust, _without_nan(case.X) if frame else None])
    (folder / "cases.json").write_text(json.dumps(listed))
    return folder


def _without_nan(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [None if item != item else item for item in column] for name, column in columns.items()}


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def outcomes(saved: Path) -> dict[str, list[str]]:
    """What differs, by case, in one fresh process that loads them all."""
    done = run(PROGRAM, saved)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads((saved / "outcomes.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_another_process_predicts_the_same_bits(outcomes, name):
    assert outcomes[name] == []


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(found["manifest.json"])
    del manifest["created"]
    return {**found, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_another_process_saves_again_is_the_same_to_the_byte(saved, outcomes, name):
    index = list(CASES).index(name)

    first, again = members(saved / f"{index}.zip"), members(saved / f"{index}-again.zip")

    assert [member for member in first | again if first.get(member) != again.get(member)] == []


def test_equal_trainers_give_equal_bytes_but_for_the_time(tiny, tmp_path):
    paths = [tmp_path / "first.zip", tmp_path / "second.zip", tmp_path / "third.zip"]
    X, y = rows_of("multiclass")
    for path in paths[:2]:
        trainer = tiny({"type": "arrays", "X": X, "y": y}, {"type": "mlp", "hidden": [4]}, preprocessors=["tabular"])
        trainer.train()
        trainer.save(path)
    trainer.save(paths[2])

    first, second, third = (members(path) for path in paths)

    assert second == third
    different = {name for name in first if first[name] != second[name]}
    assert different <= {"results.json", "manifest.json"}  # a run has an id and took its time
    assert first["weights.safetensors"] == second["weights.safetensors"]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("estimator", ["RandomForestClassifier", "SGDClassifier", "MLPClassifier"])
def test_an_estimator_that_draws_numbers_draws_them_from_the_seed(tiny, estimator):
    X, y = rows_of("binary")
    model = {"type": "sklearn", "estimator": estimator, "max_iter": 500}
    if estimator.startswith("Random"):
        del model["max_iter"]
    predicted = []
    for seed in (0, 0, 1):
        np.random.rand(seed + 1)
        trainer = tiny({"type": "arrays", "X": X, "y": y}, model, training={"seed": seed})
        trainer.train()
        predicted.append(trainer._predictor.learner.save()["skops"])

    assert predicted[0] == predicted[1] != predicted[2]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (["no", "yes"], "object"),
        (["ação", "nicht"], "object"),
        ([False, True], "bool"),
        ([3, 7], "int64"),
        (np.array([3, 7], dtype=np.uint8), "uint8"),
        ([-1, 0, 5], "int64"),
        (np.array(["a", "bb"], dtype="U2"), "object"),
    ],
    ids=str,
)
def test_labels_keep_their_type(tiny, tmp_path, labels, dtype):
    labels = np.asarray(labels)
    y = labels[np.arange(30) % len(labels)]
    trainer = tiny({"type": "arrays", "X": rows_of("binary", 30)[0], "y": y})
    trainer.train()

    trainer.save(tmp_path / "model.zip")
    loaded = Trainer.load(tmp_path / "model.zip")

    for each in (trainer, loaded):
        assert each.classes_.dtype.name == each.predict(trainer._predictor.examples).dtype.name == dtype
        assert each.classes_.tolist() == labels.tolist()
        assert type(each.predict(trainer._predictor.examples).tolist()[0]) is type(labels.tolist()[0])


def test_a_loaded_trainer_evaluates_and_describes_itself_as_before(iris_trainer, flowers, tmp_path):
    iris_trainer.save(tmp_path / "iris.zip")

    loaded = Trainer.load(tmp_path / "iris.zip")

    assert loaded.evaluate(*flowers) == iris_trainer.evaluate(*flowers)
    assert loaded.to_dict() == iris_trainer.to_dict()
    assert loaded.result == iris_trainer.result
    assert loaded.features == iris_trainer.features
    assert inspect(tmp_path / "iris.zip")["results"] == iris_trainer.result


def test_a_bundle_names_the_weights_that_it_holds(tiny, tmp_path):
    for split, expected in ((0.2, "best"), (0.0, "last")):
        trainer = tiny(training={"epochs": 2, "validation_split": split})
        result = trainer.train()
        trainer.save(tmp_path / "model.zip")

        assert inspect(tmp_path / "model.zip")["manifest"]["weights"] == expected
        assert (result["best"] is not None) == (expected == "best")


SCRIPT = """
import numpy as np
from torch import nn
from gymtrain import SaveError, Trainer

class Mine(nn.Module):
    def __init__(self, output_size):
        super().__init__()
        self.layer = nn.Linear(4, output_size)
    def forward(self, rows):
        return self.layer(rows)

class Loss:
    def __call__(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

trainer = Trainer(
    dataset={"dataset": "iris"}, model={"model": {"type": Mine}, "training": {"epochs": 1, "loss": {"type": Loss}}},
    tracking={"root": "runs"},
)
trainer.train()
try:
    trainer.save("model.zip")
except SaveError as error:
    print(error)
"""


@pytest.mark.slow
def test_classes_of_a_script_are_refused_when_the_trainer_is_saved_all_of_them_at_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "model.model: '__main__:Mine' is defined in the script or notebook that runs" in done.stdout
    assert "model.training.loss: '__main__:Loss'" in done.stdout
    assert "@gymtrain.register" in done.stdout
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.slow
def test_a_bundle_imports_nothing_that_is_not_trusted(tiny, tmp_path):
    trainer = tiny(model={"type": "user_module:Untrusted"})
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    program = """
import sys
from gymtrain import BundleError, Trainer
try:
    Trainer.load(sys.argv[1])
except BundleError as error:
    print(error.reason, error)
print("user_module" in sys.modules, "user_code" in sys.modules)
Trainer.load(sys.argv[1], trust=["user_module:Untrusted"])
print("user_module" in sys.modules)
"""

    done = run(program, tmp_path / "model.zip")

    assert done.returncode == 0, done.stderr
    refusal, before, after = done.stdout.rsplit("\n", 3)[:3]
    assert refusal.startswith("unknown_type")
    assert "trust=['user_module:Untrusted']" in refusal
    assert (before, after) == ("False False", "True")


@pytest.mark.slow
def test_a_registered_model_is_loaded_only_where_it_is_registered(tiny, tmp_path):
    trainer = tiny(model={"type": "user_net"})
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    program = "import sys; from gymtrain import Trainer; Trainer.load(sys.argv[1])"

    done = run(program, tmp_path / "model.zip")

    assert "BundleError" in done.stderr
    assert "'user_net' is not a registered model" in done.stderr
    assert run("import user_code; " + program, tmp_path / "model.zip").returncode == 0


def test_what_no_tensor_is_cannot_be_saved(tiny, tmp_path):
    trainer = tiny(model={"type": "user_code:WithExtraState"})
    trainer.train()

    with pytest.raises(SaveError, match=r"'_extra_state' of the state dict is no tensor; keep it in a buffer"):
        trainer.save(tmp_path / "model.zip")
    assert list(tmp_path.glob("*.zip")) == []


def test_a_state_that_is_neither_json_nor_arrays_cannot_be_saved(tiny, tmp_path):
    X, y = rows_of("binary")
    trainer = tiny({"type": "arrays", "X": X, "y": y}, {"type": "user_code:Odd", "what": "state"}, training={})
    trainer.train()

    with pytest.raises(SaveError, match=r"model: save\(\) returned something that is neither a JSON value"):
        trainer.save(tmp_path / "model.zip")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"hidden": [9]}, "weights_shape"), ({"hidden": [8, 8]}, "weights_names"), ({"type": "sklearn"}, "spec")],
)
def test_weights_that_do_not_fit_the_spec_are_refused(iris_trainer, tmp_path, change, reason):
    path = tmp_path / "iris.zip"
    iris_trainer.save(path)
    forge = take_apart(path.read_bytes())
    spec = json.loads(forge.part("spec.json").content)
    spec["model"]["model"] |= change
    forge.part("spec.json").content = json.dumps(spec).encode()
    path.write_bytes(forge.seal().pack())

    with pytest.raises(BundleError, match=r"weights\.safetensors|spec\.json") as caught:
        Trainer.load(path)
    assert caught.value.reason == reason


@pytest.mark.slow
def test_a_bundle_predicts_where_its_dataset_and_its_loss_are_not_known(tiny, tmp_path):
    trainer = tiny("user_rows", training={"epochs": 1, "loss": "user_loss"})
    trainer.train()
    trainer.save(tmp_path / "user.zip")
    code = f"""
from gymtrain import GymtrainError, Trainer
trainer = Trainer.load({str(tmp_path / "user.zip")!r})
print(trainer.predict([[0.5] * 6]).shape)
try:
    trainer.train()
except GymtrainError as error:
    print(error)
"""

    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert output.startswith("(1,)\n'user_rows' is not a registered dataset")


def test_a_bundle_predicts_where_libraries_know_other_arguments(tiny, tmp_path):
    """Another version of torch or scikit-learn wrote it."""
    for name, model, path, key in [
        ("net", "linear", ("model", "training", "optimizer"), "decoupled"),
        ("forest", {"type": "sklearn", "estimator": "GaussianNB"}, ("model", "model"), "multi_class"),
    ]:
        trainer = tiny(model=model, training={})
        trainer.train()
        trainer.save(tmp_path / f"{name}.zip")

        forge = take_apart((tmp_path / f"{name}.zip").read_bytes())
        spec = json.loads(forge.part("spec.json").content)
        component = spec
        for part in path:
            component = component[part]
        component[key] = "deprecated"
        forge.part("spec.json").content = json.dumps(spec).encode()
        (tmp_path / f"{name}.zip").write_bytes(forge.seal().pack())

        loaded = Trainer.load(tmp_path / f"{name}.zip")

        assert loaded.predict([[5.0, 3.0, 1.0, 0.2]]) == trainer.predict([[5.0, 3.0, 1.0, 0.2]])


def test_tied_weights_are_tied_again(tiny, tmp_path):
    trainer = tiny("digits", model={"type": "user_code:Tied"})
    trainer.train()
    trainer.save(tmp_path / "tied.zip")

    loaded = Trainer.load(tmp_path / "tied.zip", trust=["user_code:Tied"])

    module = loaded._predictor.learner.module
    assert module.encode.weight is module.decode.weight
