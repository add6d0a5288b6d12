from __future__ import annotations

import csv
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_code
from safetensors.numpy import load as load_tensors
from sklearn.datasets import load_digits
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from gymtrain import Callback, Trainer
from gymtrain.bundle import inspect
from gymtrain.models.contract import Model
from gymtrain.trainer import pictures
from gymtrain_trackers.images import decode_png

pytestmark = pytest.mark.slow

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}
CLASSES = {"confusion_matrix", "roc", "precision_recall", "calibration"}
NUMBERS = {"predicted_actual", "residuals"}


@pytest.fixture
def drawn(kept):
    """Makes trainers that draw, and tells what was drawn: figures and files."""

    def make(*args: Any, tracking: dict[str, Any] | None = None, **kwargs: Any) -> tuple[Trainer, Any]:
        trainer, tracker = kept(*args, tracking={"log_figures": True, **(tracking or {})}, **kwargs)
        return trainer, lambda: {name for name, _ in tracker().images}

    return make


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures themselves, by name, for tests that look at what is in them; they are not rendered."""
    seen: dict[str, Any] = {}

    class Looking(pictures.Report):
        def figure(self, figure: Any, name: str, step: int = 0) -> None:
            seen[name] = figure

    monkeypatch.setattr("gymtrain.trainer.training_run.Report", Looking)
    return seen


def run_dir(trainer: Trainer) -> Path:
    return Path(trainer.result["run"]["run_dir"])


def arrays(X: Any, y: Any, **arguments: Any) -> dict[str, Any]:
    return {"type": "arrays", "X": X, "y": y, **arguments}


class Sure(Model):
    """Always gives the first class, and no probabilities."""

    def fit(self, X, y, sample_weight=None):
        pass

    def predict(self, X):
        return np.zeros(len(X), dtype=np.int64)

    def save(self):
        return {}

    def restore(self, state):
        pass


class Useless(Sure):
    """Says NaN of every other row."""

    def predict_proba(self, X):
        return np.where(np.arange(len(X))[:, None] % 2, 0.5, [[np.nan, 1.0]])


class Piped(Sure):
    """A pipeline of scikit-learn."""

    def fit(self, X, y, sample_weight=None):
        self.estimator = make_pipeline(SelectKBest(k=2), LogisticRegression()).fit(X, y)

    def predict(self, X):
        return self.estimator.predict(X)


class Drawing(nn.Module):
    """Draws random numbers also when it predicts."""

    def __init__(self, input_shape, output_size):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], output_size)

    def forward(self, rows):
        return self.layer(rows) + 0.01 * torch.randn(len(rows), 1) + 0.01 * np.random.rand()


# What is drawn.


@pytest.mark.parametrize(
    ("task", "model", "expected"),
    [
        ("binary", "linear", {"learning_curves", "feature_importance", *CLASSES}),
        ("multiclass", "mlp", {"learning_curves", *CLASSES}),
        ("multilabel", "mlp", {"learning_curves", *CLASSES} - {"confusion_matrix"}),
        ("regression", "linear", {"learning_curves", "feature_importance", *NUMBERS}),
        ("several", "mlp", {"learning_curves", *NUMBERS}),
        ("multiclass", {"type": "sklearn", "estimator": "RandomForestClassifier"}, {"feature_importance", *CLASSES}),
        ("multiclass", {"type": "sklearn", "estimator": "LinearSVC"}, {"feature_importance", "confusion_matrix"}),
        ("regression", {"type": "sklearn", "estimator": "Ridge"}, {"feature_importance", *NUMBERS}),
        ("multilabel", {"type": "sklearn", "estimator": "KNeighborsClassifier"}, CLASSES - {"confusion_matrix"}),
    ],
    ids=lambda value: value.get("estimator") if isinstance(value, dict) else value if isinstance(value, str) else "",
)
def test_each_task_has_its_figures(drawn, task, model, expected):
    training = {} if isinstance(model, dict) else {"epochs": 2}
    X, y = user_code.rows_of("regression" if task == "several" else task, 60)
    y = np.column_stack([y, -y]) if task == "several" else y
    trainer, names = drawn(arrays(X, y), model, training, samples=PARTS)

    trainer.train()

    assert names() == expected
    step = (trainer.result["best"] or {"epoch": 1})["epoch"]
    for name in expected:
        picture = decode_png((run_dir(trainer) / "figures" / f"{name}_{step:06d}.png").read_bytes())
        assert picture.ndim == 3
        assert picture.min() < 128 < picture.max() == 255  # something stands on white


def test_the_numbers_behind_the_figures_are_files_of_the_run(kept):
    trainer, tracker = kept("iris", "mlp", {"epochs": 3}, tracking={"log_figures": True}, samples=PARTS)

    result = trainer.train()

    rows = list(csv.DictReader((run_dir(trainer) / "history.csv").read_text(encoding="utf-8").splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert [float(row[name]) for row in rows] == result["metrics"][name]
    matrix = json.loads((run_dir(trainer) / "confusion_matrix.json").read_text(encoding="utf-8"))
    counts = np.array(matrix["counts"])
    assert (matrix["part"], matrix["rows"], matrix["classes"]) == ("test", 30, [0, 1, 2])
    assert counts.trace() / counts.sum() == pytest.approx(result["metrics"]["test/accuracy"])
    assert {"history.csv", "confusion_matrix.json"} <= set(tracker().assets)


@pytest.mark.parametrize(
    ("samples", "title"),
    [
        (PARTS, "30 rows of the test part"),
        ({"train": 0.8, "val": 0.2}, "30 rows of the val part"),
        ({"train": 0.99, "test": 1}, "1 rows of the test part"),
    ],
)
def test_the_figures_are_of_the_test_part_or_else_of_the_val_part(drawn, shown, samples, title):
    trainer, _ = drawn(samples=samples, shuffle=True)

    trainer.train()

    assert shown["confusion_matrix"].get_suptitle() == f"Confusion matrix\n{title}"


def test_without_another_part_there_are_only_the_figures_that_need_none(drawn):
    trainer, names = drawn(training={"epochs": 2}, samples={"train": 1.0})

    trainer.train()

    assert names() == {"learning_curves", "feature_importance"}


def test_of_many_rows_some_are_taken_evenly_spaced(drawn, shown, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_ROWS", 10)
    X, y = user_code.rows_of("regression", 60)
    trainer, _ = drawn(arrays(X, y), samples={"train": 35, "test": 25}, shuffle=False)

    trainer.train()

    figure = shown["predicted_actual"]
    assert figure.get_suptitle().endswith("\n10 of 25 rows of the test part, evenly spaced")
    rows = 35 + np.array([0, 2, 5, 7, 10, 12, 15, 17, 20, 22])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), y[rows], rtol=1e-6)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), trainer.predict(X[rows]), rtol=1e-5)


def test_the_curves_are_those_of_what_the_model_predicts(drawn, shown):
    from sklearn.metrics import roc_curve

    X, y = user_code.rows_of("binary", 60)
    trainer, _ = drawn(arrays(X, y), samples={"train": 40, "test": 20}, shuffle=False)

    trainer.train()

    wrong, found, _ = roc_curve(y[40:] == trainer.classes_[1], trainer.predict_proba(X[40:])[:, 1])
    np.testing.assert_allclose(shown["roc"].axes[0].lines[1].get_xydata(), np.column_stack([wrong, found]))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_test_part_of_one_class_has_what_can_be_drawn_of_it(drawn, rows):
    X, y = np.random.default_rng(0).random((40, 3)), np.array(["a", "b"] * 18 + ["a"] * 4, dtype=object)
    trainer, names = drawn(arrays(X, y), samples={"train": 36, "test": rows}, shuffle=False)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")
        trainer.train()

    assert names() == {"feature_importance", "confusion_matrix", "calibration"}


def test_sixty_classes_and_odd_names_can_be_drawn(drawn, recwarn):
    names = ["$\\frac{", "_hidden", "漢字", "two\nlines", *(f"class ${code}$" for code in range(56))]
    y = np.array(names * 3, dtype=object)
    X = np.random.default_rng(0).random((180, 4))
    trainer, figures = drawn(arrays(X, y), samples={"train": 120, "test": 60}, shuffle=False)

    trainer.train()

    assert figures() == {"feature_importance", *CLASSES}
    assert not [each for each in recwarn if "Glyph" in str(each.message)]


def test_the_surest_mistakes_on_images_come_first(drawn, shown):
    dataset = {"type": "digits", "images": True}
    trainer, _ = drawn(dataset, "linear", {"epochs": 1}, preprocessors=[{"type": "divide", "factor": 16.0}])

    trainer.train()

    axes = shown["mistakes"].axes
    pairs, shares = zip(*(each.get_title().split("\n") for each in axes), strict=True)
    assert len(axes) == 16
    assert all(len(set(pair.split(" → "))) == 2 for pair in pairs)
    assert [int(share[:-1]) for share in shares] == sorted((int(share[:-1]) for share in shares), reverse=True)
    image, digits = np.array(axes[0].images[0].get_array()), load_digits()
    (found,) = np.flatnonzero((np.abs(digits.images / 16 - image) < 1e-6).all(axis=(1, 2)))
    assert str(digits.target[found]) == pairs[0].split(" → ")[0]


# Features.


def bars(figure: Any) -> dict[str, float]:
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(labels, [bar.get_width() for bar in axes.patches], strict=True))


def test_features_have_the_names_that_the_preprocessors_leave_them(drawn, shown):
    generator = np.random.default_rng(0)
    colours = generator.choice(["red", "blue"], 80).astype(object)
    frame = {"size": generator.random(80), "colour": colours, "age": generator.random(80)}
    y = (frame["size"] + (colours == "red") > 0.8).astype(int)
    trainer, _ = drawn(
        {"type": "dataframe", "data": {**frame, "y": y}, "target": "y"},
        {"type": "sklearn", "estimator": "LogisticRegression"},
        {},
        preprocessors=["tabular", {"type": "kbest", "k": 3}, "standard_scaler"],
    )

    trainer.train()

    found = bars(shown["feature_importance"])
    assert {"size", "colour=blue", "colour=red"} == set(found)
    assert found["size"] > 0 > found["colour=blue"]
    assert shown["feature_importance"].axes[0].get_xlabel() == "coefficient"


@pytest.mark.parametrize(
    ("preprocessors", "expected"),
    [
        ([], ["feature 0", "feature 1"]),
        ([{"type": "sklearn", "transformer": "PCA"}], ["input 0", "input 1"]),
    ],
)
def test_features_without_names_are_counted(drawn, shown, preprocessors, expected):
    X = np.random.default_rng(0).random((40, 2))
    model = {"type": "sklearn", "estimator": "DecisionTreeRegressor"}
    trainer, _ = drawn(arrays(X, X[:, 0] - X[:, 1]), model, {}, preprocessors=preprocessors)

    trainer.train()

    assert sorted(bars(shown["feature_importance"])) == expected


def test_the_weights_of_a_linear_model_are_its_importances(drawn, shown, tmp_path):
    X, y = user_code.rows_of("multiclass")
    trainer, _ = drawn(arrays(X, y), "linear")

    trainer.train()

    trainer.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as bundle:
        weight = next(each for each in load_tensors(bundle.read("weights.safetensors")).values() if each.ndim == 2)
    means = np.abs(weight).mean(axis=0)
    for place, mean in enumerate(means):
        assert bars(shown["feature_importance"])[f"feature {place}"] == pytest.approx(mean, rel=1e-6)


def test_the_last_step_of_a_pipeline_says_which_features_count(drawn, shown):
    X = np.random.default_rng(0).random((60, 4))
    trainer, _ = drawn(arrays(X, (X[:, 1] > X[:, 3]).astype(int)), Piped, {})

    trainer.train()

    assert set(bars(shown["feature_importance"])) == {"feature 1", "feature 3"}


# What it costs, and what goes wrong.


@pytest.mark.parametrize("tracking", [{}, {"log_figures": False, "trackers": ["jsonl"]}])
def test_nothing_is_drawn_without_trackers_or_where_that_is_not_wanted(tiny, tracking):
    trainer = tiny(training={"epochs": 2}, tracking=tracking)

    trainer.train()

    assert not {"figures", "history.csv", "confusion_matrix.json"} & {path.name for path in run_dir(trainer).iterdir()}


@pytest.mark.parametrize("model", ["mlp", Drawing, {"type": "sklearn", "estimator": "RandomForestClassifier"}])
def test_figures_change_no_bit_of_what_was_learned_and_draw_no_number(drawn, tmp_path, model):
    def state() -> tuple[Any, ...]:
        return torch.rand(3).tolist(), np.random.rand(3).tolist()

    def learn(name: str, **tracking: Any) -> tuple[Any, ...]:
        torch.manual_seed(1)
        np.random.seed(1)
        training = {} if isinstance(model, dict) else {"epochs": 2}
        rows = arrays(*user_code.rows_of("multiclass"))
        trainer, _ = drawn(rows, model, training, tracking=tracking, samples=PARTS)
        metrics = trainer.train()["metrics"]
        after = state()
        trainer.save(tmp_path / name)
        members = inspect(tmp_path / name)["manifest"]["members"]
        apart = {"spec.json", "results.json", "README.md"}  # the switch itself, and times
        return metrics, after, {name: each for name, each in members.items() if name not in apart}

    assert learn("with.zip") == learn("without.zip", log_figures=False)


def test_a_model_without_probabilities_has_no_curves(drawn):
    trainer, names = drawn(model=Sure, training={})

    trainer.train()

    assert names() == {"confusion_matrix"}


def test_predictions_that_are_no_numbers_are_warned_of_and_not_drawn(drawn):
    trainer, names = drawn(arrays(*user_code.rows_of("binary")), Useless, {}, samples={"train": 30, "test": 10})

    with pytest.warns(UserWarning, match=r"drawn of predictions is left out: ValueError: .* NaN or infinity of 5 rows"):
        result = trainer.train()

    assert result["status"] == "FINISHED"
    assert names() == set()


def test_a_figure_that_fails_is_named_in_a_warning_and_the_others_are_drawn(drawn, monkeypatch):
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("no such figure")

    monkeypatch.setattr(pictures, "roc", broken)
    trainer, names = drawn(training={"epochs": 2})

    with pytest.warns(UserWarning, match="^the figure 'roc' is left out: ZeroDivisionError: no such figure$"):
        result = trainer.train()

    assert result["status"] == "FINISHED"
    assert names() == {"learning_curves", "feature_importance", *CLASSES} - {"roc"}


def test_a_place_that_cannot_be_written_is_a_warning(drawn):
    class Occupy(Callback):
        def on_evaluate_model_end(self, state):
            (folder,) = (Path(trainer.to_dict()["tracking"]["root"]) / "iris").iterdir()
            (folder / "figures").write_text("a file")
            (folder / "history.csv").mkdir()

    trainer, names = drawn()

    with pytest.warns(UserWarning, match="is left out: ") as warned:
        result = trainer.train([Occupy()])

    assert result["status"] == "FINISHED"
    assert names() == set()
    left_out = {str(each.message).partition(" is left out")[0] for each in warned}
    assert left_out >= {"the file 'history.csv'", "the figure 'roc'", "the figure 'confusion_matrix'"}


def test_ctrl_c_ends_the_drawing_and_the_training(drawn, monkeypatch):
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "confusion_matrix", interrupted)
    trainer, _ = drawn()

    with pytest.raises(KeyboardInterrupt):
        trainer.train()

    assert trainer.result["status"] == "KILLED"
    assert trainer.predict(np.zeros((1, 4))).shape == (1,)


@pytest.mark.slow
def test_figures_arrive_in_mlflow_and_tensorboard_as_they_are_on_disk(tiny, tmp_path):
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = tiny(training={"epochs": 2}, samples=PARTS, tracking={"trackers": ["mlflow", "tensorboard"]})

    run = trainer.train()["run"]

    names = {"learning_curves", "feature_importance", *CLASSES}
    files = {path.name.rpartition("_")[0]: path.read_bytes() for path in (run_dir(trainer) / "figures").iterdir()}
    assert set(files) == names
    client = MlflowClient(tracking_uri=run["tracking_uri"])
    assert {"history.csv", "confusion_matrix.json"} <= {each.path for each in client.list_artifacts(run["run_id"])}
    images = [each.path for each in client.list_artifacts(run["run_id"], "images")]
    for name in names:
        (stored,) = [path for path in images if path.startswith(f"images/{name}+step+") and path.endswith(".png")]
        local = client.download_artifacts(run["run_id"], stored, str(tmp_path))
        np.testing.assert_array_equal(decode_png(Path(local).read_bytes()), decode_png(files[name]))
    events = EventAccumulator(run["tensorboard_dir"], size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == names
    for name in names:
        (event,) = events.Images(name)
        assert event.step == trainer.result["best"]["epoch"]
        np.testing.assert_array_equal(decode_png(event.encoded_image_string), decode_png(files[name]))
