"""Every argument of the three specs, wrong in turn."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gymtrain import Dataset, Model, SpecError, Tracking
from gymtrain.specs import Experiment

NAN, INF = float("nan"), float("inf")
INTEGER = "expected an integer"
TRUTH = "expected true or false"


class NoMethods:
    """A class that is neither a dataset nor a preprocessor."""


def faults_of(**sections: Any) -> dict[str, str]:
    """Return the faults of an experiment by path; what is not given is right."""
    right = {"dataset": {"dataset": "iris"}, "model": {"model": "mlp"}}
    try:
        Experiment(**{**right, **sections})
    except SpecError as error:
        faults = error.faults
    else:
        return {}
    assert len({fault.path for fault in faults}) == len(faults)
    return dict(faults)


def assert_one_fault(found: dict[str, str], path: str, message: str) -> None:
    assert list(found) == [path]
    assert re.search(message, found[path]), found[path]


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({}, "dataset.dataset", "^missing; expected a name or a dict with a 'type'$"),
        (None, "dataset", "^got None; expected a dict$"),
        ("iris", "dataset", "^got 'iris'; expected a dict$"),
        ([], "dataset", r"^got \[\]; expected a dict$"),
        ({3: 4, "dataset": "iris"}, "dataset.3", "^unknown key; a key is a text$"),
        ({"dataset": "iris", "sead": 1}, "dataset.sead", r"^unknown key; did you mean 'seed'\?$"),
        ({"dataset": "iris", "zzz": 1}, "dataset.zzz", "^unknown key; known: chunk_size, data_augmentors, dataset, "),
        ({"dataset": None}, "dataset.dataset", r"^got None; expected a name or a dict such as \{'type': 'digits'\}$"),
        ({"dataset": 3}, "dataset.dataset", "^got 3; expected a name or a dict such as "),
        ({"dataset": {}}, "dataset.dataset.type", r"^missing; name the dataset, for example \{'type': 'digits'\}$"),
        ({"dataset": {"type": 3}}, "dataset.dataset.type", "^got 3; expected a name such as 'digits', or a class$"),
        ({"dataset": {"type": None}}, "dataset.dataset.type", "^got None; expected a name"),
        ({"dataset": {"type": "irsi"}}, "dataset.dataset.type", r"^'irsi' is not .* did you mean 'iris'\?; known: "),
        (
            {"dataset": {"type": NoMethods}},
            "dataset.dataset.type",
            r"NoMethods has no method load\(\); a dataset needs",
        ),
        ({"dataset": {"type": dict}}, "dataset.dataset.type", r"^dict has no method load"),
        ({"dataset": {"type": "iris", "images": 1}}, "dataset.dataset.images", "^unknown key; it takes no arguments$"),
        ({"dataset": {"type": "digits", "images": 1}}, "dataset.dataset.images", f"^got 1; {TRUTH}$"),
        ({"dataset": {"type": "digits", 3: 1}}, "dataset.dataset.3", "^the key is no text; JSON has no other keys$"),
        (
            {"dataset": {"type": "csv", "path": 3, "target": "y"}},
            "dataset.dataset.path",
            "^got 3; expected text that is",
        ),
        (
            {"dataset": {"type": "csv", "path": "", "target": "y"}},
            "dataset.dataset.path",
            "^got ''; expected text that",
        ),
        (
            {"dataset": {"type": "csv", "path": "x"}},
            "dataset.dataset.target",
            "^missing; expected text that is not empty or",
        ),
        ({"dataset": {"type": "csv", "path": "x", "target": []}}, "dataset.dataset.target", "at least 1 of them$"),
        ({"dataset": {"type": "csv", "path": "x", "target": [1]}}, "dataset.dataset.target", "or a list of texts"),
        (
            {"dataset": {"type": "parquet", "path": "x", "target": "y", "task": "classes"}},
            "dataset.dataset.task",
            "^got 'classes'; expected 'binary', 'multiclass', 'multilabel' or 'regression', or null$",
        ),
        ({"dataset": {"type": "arrays", "X": [[1]]}}, "dataset.dataset.y", "^missing; it has no default$"),
        (
            {"dataset": {"type": "arrays", "X": object(), "y": [1]}},
            "dataset.dataset.X",
            "^got <object object at .*; expected a value that JSON can hold, an array or a frame$",
        ),
        ({"dataset": "iris", "shuffle": 1}, "dataset.shuffle", f"^got 1; {TRUTH}$"),
        ({"dataset": "iris", "shuffle": None}, "dataset.shuffle", f"^got None; {TRUTH}$"),
        ({"dataset": "iris", "one_hot": "no"}, "dataset.one_hot", f"^got 'no'; {TRUTH}$"),
        ({"dataset": "iris", "seed": -1}, "dataset.seed", f"^got -1; {INTEGER} from 0 to 9223372036854775807$"),
        ({"dataset": "iris", "seed": 2**63}, "dataset.seed", f"^got 9223372036854775808; {INTEGER} from 0 to"),
        ({"dataset": "iris", "seed": 1.0}, "dataset.seed", f"^got 1.0; {INTEGER}"),
        ({"dataset": "iris", "seed": True}, "dataset.seed", f"^got True; {INTEGER}"),
        ({"dataset": "iris", "seed": "0"}, "dataset.seed", f"^got '0'; {INTEGER}"),
        ({"dataset": "iris", "chunk_size": 0}, "dataset.chunk_size", f"^got 0; {INTEGER} of at least 1, or null$"),
        ({"dataset": "iris", "chunk_size": 1.5}, "dataset.chunk_size", f"^got 1.5; {INTEGER} of at least 1, or null$"),
    ],
)
def test_a_wrong_dataset_spec_is_one_fault(given: Any, path: str, message: str) -> None:
    assert_one_fault(faults_of(dataset=given), path, message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ("x", "", "^got 'x'; expected a dict$"),
        ([0.8, 0.2], "", r"^got \[0.8, 0.2\]; expected a dict$"),
        ({3: 4}, ".3", "^unknown key; a key is a text$"),
        ({"trian": 0.8}, ".trian", r"^unknown key; did you mean 'train'\?$"),
        ({"train": "0.8"}, ".train", "^got '0.8'; expected a fraction such as 0.2, or a number of rows such as 500$"),
        ({"train": True}, ".train", "^got True; expected a fraction"),
        ({"train": [0.8]}, ".train", r"^got \[0.8\]; expected a fraction"),
        ({"train": -1}, ".train", "^got -1; expected a number of rows of at least 0$"),
        ({"train": 1.5}, ".train", "^got 1.5; expected a fraction from 0.0 to 1.0, or a whole number of rows$"),
        ({"train": 100.0}, ".train", "^got 100.0; expected a fraction"),
        ({"val": NAN}, ".val", "^got nan; expected a fraction"),
        ({"test": INF}, ".test", "^got inf; expected a fraction"),
        ({"test": -0.1}, ".test", "^got -0.1; expected a fraction"),
        ({"train": 0}, "", "^the train part is empty, and there is nothing to learn from; give it rows$"),
        ({"train": 0.0, "test": 0.5}, "", "^the train part is empty"),
        ({"test": 1.0}, "", "^the train part is empty"),
        ({"val": 0.5, "test": 0.5}, "", "^the train part is empty"),
        (
            {"train": 0.8, "test": 0.4},
            "",
            r"^train \+ test is 1.2, more than the whole dataset; give fractions that sum to at most 1.0$",
        ),
        ({"train": 0.8, "val": 0.2, "test": 0.1}, "", r"^train \+ val \+ test is 1.1, more than"),
        ({"val": 0.5}, "", r"^train \+ val is 1.3, more than"),
        ({"val": None}, "", "^val and test are null, and one part alone can take what is left; give the others$"),
        ({"train": None, "val": None, "test": 0.1}, "", "^train and val are null"),
        ({"stratify": 1}, ".stratify", f"^got 1; {TRUTH}$"),
        ({"group_by": 3}, ".group_by", "^got 3; expected text that is not empty, or null$"),
        ({"group_by": ""}, ".group_by", "^got ''; expected text that is not empty, or null$"),
        ({"stratify": True, "group_by": "patient"}, "", "^stratify and group_by cannot both hold: "),
    ],
)
def test_wrong_samples_are_one_fault(given: Any, path: str, message: str) -> None:
    assert_one_fault(faults_of(dataset={"dataset": "iris", "samples": given}), f"dataset.samples{path}", message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ("standard_scaler", "", "^got 'standard_scaler'; expected a list of preprocessors$"),
        ({"type": "divide"}, "", r"^got \{'type': 'divide'\}; expected a list of preprocessors$"),
        (None, "", "^got None; expected a list of preprocessors$"),
        ([3], "[0]", r"^got 3; expected a name or a dict such as \{'type': 'standard_scaler'\}$"),
        (["divide", "standard_scalr"], "[1].type", r"did you mean 'standard_scaler'\?"),
        ([{"type": NoMethods}], "[0].type", r"NoMethods has no method transform\(\); a preprocessor needs it$"),
        ([{"type": "divide", "factor": 0}], "[0]", "^factor is 0; expected another number to divide by$"),
        ([{"type": "divide", "factor": "2"}], "[0].factor", "^got '2'; expected a number$"),
        ([{"type": "divide", "factor": NAN}], "[0].factor", "^got nan; expected a finite number$"),
        ([{"type": "divide", "fctor": 1}], "[0].fctor", r"^unknown key; did you mean 'factor'\?$"),
        ([{"type": "replace", "to_val": 1}], "[0].from_val", "^missing; expected a number, or null$"),
        (
            [{"type": "replace", "from_val": "?", "to_val": 1}],
            "[0].from_val",
            r"^got '\?'; expected a number, or null$",
        ),
        ([{"type": "kbest", "k": 0}], "[0].k", f"^got 0; {INTEGER} of at least 1$"),
        ([{"type": "kbest", "score": "x"}], "[0].score", "^got 'x'; expected 'auto', 'f_classif', 'chi2' or "),
        (
            [{"type": "min_max_scaler", "feature_range": [1, 0]}],
            "[0]",
            r"^feature_range is \[1.0, 0.0\]; expected the ",
        ),
        (
            [{"type": "min_max_scaler", "feature_range": [1]}],
            "[0].feature_range",
            r"^got \[1\]; expected a list of numbers, exactly 2 of them$",
        ),
        (
            [{"type": "min_max_scaler", "feature_range": [0, "1"]}],
            "[0].feature_range[1]",
            "^got '1'; expected a number$",
        ),
        ([{"type": "tabular", "impute": "mode"}], "[0].impute", "^got 'mode'; expected 'median', 'mean' or 'most_freq"),
        ([{"type": "tabular", "scale": "max"}], "[0].scale", "^got 'max'; expected 'standard' or 'min_max', or null$"),
        ([{"type": "tabular", "encode": "hash"}], "[0].encode", "^got 'hash'; expected 'one_hot' or 'ordinal'$"),
        ([{"type": "tabular", "max_categories": 0}], "[0].max_categories", f"^got 0; {INTEGER} of at least 1$"),
        ([{"type": "sklearn"}], "[0].transformer", "^got None; expected a class of scikit-learn such as 'PCA'$"),
        (
            [{"type": "sklearn", "transformer": "PCQ"}],
            "[0].transformer",
            r"no public class 'PCQ'; did you mean 'PCA'\?$",
        ),
        ([{"type": "sklearn", "transformer": "SVC"}], "[0].transformer", r"^SVC of scikit-learn has no transform\(\)"),
        (
            [{"type": "sklearn", "transformer": "PCA", "n_component": 2}],
            "[0].n_component",
            r"^unknown key; did you mean 'n_components'\?$",
        ),
    ],
)
def test_a_wrong_preprocessor_is_one_fault(given: Any, path: str, message: str) -> None:
    found = faults_of(dataset={"dataset": "iris", "preprocessors": given})
    assert_one_fault(found, f"dataset.preprocessors{path}", message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        (None, "", "^got None; expected a list of augmentors$"),
        (["flop"], "[0].type", r"^'flop' is not a registered augmentor; did you mean 'flip'\?"),
        ([{"type": "flip", "probability": 2}], "[0].probability", "^got 2; expected a number from 0 to 1$"),
        (
            [{"type": "flip", "top_bottom_left_right": "up"}],
            "[0].top_bottom_left_right",
            "^got 'up'; expected 'LEFT_RIGHT', 'TOP_BOTTOM' or ",
        ),
        (
            [{"type": "rotate_range", "max_left_rotation": 200}],
            "[0].max_left_rotation",
            "^got 200; expected a number from 0 to 180",
        ),
        ([{"type": "random_color", "min_factor": 2.0}], "[0]", "^min_factor must not be greater than max_factor"),
        ([{"type": NoMethods}], "[0].type", r"NoMethods has no method augment\(\)"),
    ],
)
def test_a_wrong_augmentor_is_one_fault(given: Any, path: str, message: str) -> None:
    found = faults_of(dataset={"dataset": "iris", "data_augmentors": given})
    assert_one_fault(found, f"dataset.data_augmentors{path}", message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({}, "model.model", "^missing; expected a name or a dict"),
        (None, "model", "^got None; expected a dict$"),
        ({"model": None}, "model.model", r"^got None; expected a name or a dict such as \{'type': 'mlp'\}$"),
        ({"model": "mpl"}, "model.model.type", r"^'mpl' is not a registered model; did you mean 'mlp'\?"),
        ({"model": int}, "model.model.type", "^the arguments of <class 'int'> cannot be told: no signature found"),
        ({"model": lambda: None}, "model.model.type", "<lambda> is not found by its name in a later process; move it"),
        ({"model": functools.partial(NoMethods)}, "model.model.type", "^got functools.partial.*; expected a name"),
        ({"model": {"type": "mlp", "hiden": [1]}}, "model.model.hiden", r"^unknown key; did you mean 'hidden'\?$"),
        (
            {"model": {"type": "mlp", "hidden": 64}},
            "model.model.hidden",
            "^got 64; expected a list of integers from 1 to",
        ),
        ({"model": {"type": "mlp", "hidden": ["64"]}}, "model.model.hidden[0]", f"^got '64'; {INTEGER} from 1 to"),
        (
            {"model": {"type": "mlp", "hidden": [8, 0]}},
            "model.model.hidden[1]",
            f"^got 0; {INTEGER} from 1 to 1000000$",
        ),
        ({"model": {"type": "mlp", "hidden": [8.0]}}, "model.model.hidden[0]", f"^got 8.0; {INTEGER}"),
        (
            {"model": {"type": "mlp", "hidden": np.array([8])}},
            "model.model.hidden",
            r"^got ndarray of shape \(1,\); exp",
        ),
        (
            {"model": {"type": "mlp", "dropout": 1.0}},
            "model.model.dropout",
            "^got 1.0; expected a number of at least 0 and",
        ),
        (
            {"model": {"type": "mlp", "activation": "rel"}},
            "model.model.activation",
            "^got 'rel'; expected 'relu', 'gelu'",
        ),
        ({"model": {"type": "cnn", "kernel_size": 0}}, "model.model.kernel_size", f"^got 0; {INTEGER} from 1 to 31$"),
        ({"model": {"type": "sklearn"}}, "model.model.estimator", "^got None; .* such as 'RandomForestClassifier'$"),
        (
            {"model": {"type": "sklearn", "estimator": "PCA"}},
            "model.model.estimator",
            r"^PCA of scikit-learn has no predict",
        ),
        (
            {"model": {"type": "sklearn", "estimator": "RandomForestClasifier"}},
            "model.model.estimator",
            r"no public class 'RandomForestClasifier'; did you mean 'RandomForestClassifier'\?$",
        ),
        (
            {"model": {"type": "sklearn", "estimator": "SVC", "C": NAN}},
            "model.model.C",
            "^got nan; expected a finite number$",
        ),
        (
            {"model": {"type": "sklearn", "estimator": "SVC", "class_weight": {0: 1.0}}},
            "model.model.class_weight.0",
            "^the key is no text; JSON has no other keys$",
        ),
        ({"model": {"type": "os.path:join"}}, "model.model.a", "^missing; it has no default$"),
        ({"model": {"type": "no_such:Net"}}, "model.model.type", "^'no_such:Net': importing 'no_such' failed: "),
    ],
)
def test_a_wrong_model_is_one_fault(given: Any, path: str, message: str) -> None:
    assert_one_fault(faults_of(model=given), path, message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"epochs": 0}, "epochs", f"^got 0; {INTEGER} of at least 1, or null$"),
        ({"epochs": "3"}, "epochs", f"^got '3'; {INTEGER} of at least 1, or null$"),
        ({"epochs": 1.0}, "epochs", f"^got 1.0; {INTEGER}"),
        ({"epochs": True}, "epochs", f"^got True; {INTEGER}"),
        ({"max_steps": -1}, "max_steps", f"^got -1; {INTEGER} of at least 1, or null$"),
        ({"batch_size": 0}, "batch_size", f"^got 0; {INTEGER} of at least 1$"),
        ({"batch_size": None}, "batch_size", f"^got None; {INTEGER} of at least 1$"),
        ({"batch_sise": 1}, "batch_sise", r"^unknown key; did you mean 'batch_size'\?$"),
        ({3: 1}, "3", "^unknown key; a key is a text$"),
        ({"optimizer": 3}, "optimizer", r"^got 3; expected a name or a dict such as \{'type': 'Adam'\}$"),
        ({"optimizer": "Adm"}, "optimizer.type", r"^'Adm' is not a known optimizer; did you mean 'Adam'\?$"),
        ({"optimizer": "zzz"}, "optimizer.type", "^'zzz' is not a known optimizer; known: ASGD, "),
        ({"optimizer": {"type": "SGD", "lr": "x"}}, "optimizer.lr", "^got 'x'; expected a number$"),
        ({"optimizer": {"type": "SGD", "lr": NAN}}, "optimizer.lr", "^got nan; expected a finite number$"),
        (
            {"optimizer": {"type": "SGD", "momentm": 1}},
            "optimizer.momentm",
            r"^unknown key; did you mean 'momentum'\?$",
        ),
        ({"optimizer": {"type": "SGD", "params": []}}, "optimizer.params", "^unknown key; SGD takes dampening, "),
        ({"loss": None}, "loss", r"^got None; expected a name or a dict such as \{'type': 'CrossEntropyLoss'\}$"),
        ({"loss": "cross_entrop"}, "loss.type", r"did you mean 'CrossEntropyLoss'\?$"),
        ({"loss": "a.b:c"}, "loss.type", "^'a.b:c': importing 'a.b' failed"),
        ({"metrics": "accuracy"}, "metrics", r"^got 'accuracy'; expected a list such as \['accuracy', 'f1_score'\]$"),
        ({"metrics": ["acuracy"]}, "metrics[0].type", r"did you mean 'Accuracy'\?$"),
        ({"metrics": [None]}, "metrics[0]", "^got None; expected a name such as 'accuracy', or "),
        ({"metrics": [{}]}, "metrics[0].type", "^missing; name the metric"),
        ({"metrics": [{"type": 3}]}, "metrics[0].type", "^got 3; expected a name such as 'accuracy'"),
        (
            {"metrics": [{"type": "accuracy", "name": "a/b"}]},
            "metrics[0].name",
            "^got 'a/b'; expected a word without '/'$",
        ),
        ({"metrics": [{"type": "accuracy", "name": 3}]}, "metrics[0].name", "^got 3; expected a word without '/'$"),
        (
            {"metrics": ["accuracy", "accuracy"]},
            "metrics",
            "^two values would be logged as 'accuracy'; give each metric",
        ),
        ({"metrics": [{"type": "accuracy", "name": "loss"}]}, "metrics", "^two values would be logged as 'loss'"),
        ({"validation_split": 1.0}, "validation_split", "^got 1.0; expected a number of at least 0 and below 1$"),
        ({"validation_split": NAN}, "validation_split", "^got nan; expected a finite number$"),
        ({"validation_split": "x"}, "validation_split", "^got 'x'; expected a number of at least 0 and below 1$"),
        ({"class_weight": "even"}, "class_weight", "^got 'even'; expected 'balanced', or a dict of weights by class$"),
        ({"class_weight": {}}, "class_weight", r"^got \{\}; expected 'balanced'"),
        ({"class_weight": [1, 2]}, "class_weight", r"^got \[1, 2\]; expected 'balanced'"),
        ({"class_weight": {"a": 0}}, "class_weight.a", "^got 0; expected a number above 0$"),
        ({"class_weight": {0: INF}}, "class_weight.0", "^got inf; expected a number above 0$"),
        ({"class_weight": {0: 1, "0": 2}}, "class_weight.0", "^stands twice, as text and as another type$"),
        ({"monitor": "loss"}, "monitor", "^got 'loss'; expected 'auto', null, or a metric such as 'val/loss'"),
        ({"monitor": 3}, "monitor", "^got 3; expected text, or null$"),
        (
            {"device": "gpu"},
            "device",
            "^got 'gpu'; expected 'auto', 'cpu', 'cuda', 'mps' or a device such as 'cuda:1'$",
        ),
        ({"device": "cuda:x"}, "device", "^got 'cuda:x'; expected 'auto'"),
        ({"device": "cpu:"}, "device", "^got 'cpu:'; expected 'auto'"),
        ({"device": 0}, "device", "^got 0; expected text$"),
        ({"seed": -1}, "seed", f"^got -1; {INTEGER} from 0 to"),
    ],
)
def test_a_wrong_training_argument_is_one_fault(given: Any, path: str, message: str) -> None:
    found = faults_of(model={"model": "mlp", "training": given})
    assert_one_fault(found, f"model.training.{path}", message)


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        (None, "tracking", "^got None; expected a dict$"),
        ("mlflow", "tracking", "^got 'mlflow'; expected a dict$"),
        ({"rot": 1}, "tracking.rot", r"^unknown key; did you mean 'root'\?$"),
        ({"root": ""}, "tracking.root", "^got ''; expected text that is not empty$"),
        ({"root": 3}, "tracking.root", "^got 3; expected text that is not empty$"),
        (
            {"experiment": "a/b"},
            "tracking.experiment",
            "^got 'a/b'; expected a name without slashes that does not begin",
        ),
        ({"experiment": "a\\b"}, "tracking.experiment", "expected a name without slashes"),
        ({"experiment": ".."}, "tracking.experiment", "^got '..'; expected a name without slashes that does not begin"),
        ({"experiment": "  "}, "tracking.experiment", "expected a name"),
        ({"experiment": "MLflow.db"}, "tracking.experiment", "^got 'MLflow.db', which trackers have under the root"),
        ({"experiment": "tensorboard"}, "tracking.experiment", "already; expected another name$"),
        ({"experiment": 3}, "tracking.experiment", "^got 3; expected a name"),
        ({"run_name": ""}, "tracking.run_name", "^got ''; expected a name"),
        ({"run_name": "a\nb"}, "tracking.run_name", "expected a name without line breaks and control characters$"),
        ({"run_name": "\ud800"}, "tracking.run_name", "expected a name without line breaks and control characters$"),
        ({"run_name": "é" * 101}, "tracking.run_name", "^got a name of 202 bytes; expected at most 200$"),
        ({"tags": ["a"]}, "tracking.tags", r"^got \['a'\]; expected a dict of texts$"),
        ({"tags": {"a": None}}, "tracking.tags.a", "^got None; expected text$"),
        ({"tags": {"a": [1]}}, "tracking.tags.a", r"^got \[1\]; expected text$"),
        ({"log_model_params": "x"}, "tracking.log_model_params", f"^got 'x'; {TRUTH}$"),
        ({"log_model_metrics": 1}, "tracking.log_model_metrics", f"^got 1; {TRUTH}$"),
        ({"log_training_params": 1}, "tracking.log_training_params", f"^got 1; {TRUTH}$"),
        ({"log_system_metrics": None}, "tracking.log_system_metrics", f"^got None; {TRUTH}$"),
        ({"log_figures": 1}, "tracking.log_figures", f"^got 1; {TRUTH}$"),
        ({"log_every_n_steps": -1}, "tracking.log_every_n_steps", f"^got -1; {INTEGER} of at least 0$"),
        ({"trackers": {"type": "mlflow"}}, "tracking.trackers", "expected a list of trackers$"),
        ({"trackers": ["mlflw"]}, "tracking.trackers[0].type", r"did you mean 'mlflow'\?"),
        (
            {"trackers": [{"type": "mlflow", "tracking_url": "x"}]},
            "tracking.trackers[0].tracking_url",
            r"^unknown key; did you mean 'tracking_uri'\?$",
        ),
        ({"on_error": "ignore"}, "tracking.on_error", "^got 'ignore'; expected 'warn' or 'raise'$"),
    ],
)
def test_a_wrong_tracking_spec_is_one_fault(given: Any, path: str, message: str) -> None:
    assert_one_fault(faults_of(tracking=given), path, message)


def test_all_faults_of_the_three_specs_are_told_at_once_in_their_order() -> None:
    found = faults_of(
        dataset={"dataset": {"type": "irs"}, "samples": {"train": 1.2, "vall": 1}, "sead": 1},
        model={"model": {"type": "mlp", "hiden": 1, "dropout": 2}, "training": {"epochs": 0, "optimizer": "Adm"}},
        tracking={"trackers": ["mlflow", {"type": "x"}], "rot": 1},
        modle={},
    )

    assert list(found) == [
        "dataset.dataset.type",
        "dataset.samples.train",
        "dataset.samples.vall",
        "dataset.sead",
        "model.model.dropout",
        "model.model.hiden",
        "model.training.epochs",
        "model.training.optimizer.type",
        "tracking.trackers[1].type",
        "tracking.rot",
        "modle",
    ]


def test_two_ways_to_ask_for_validation_rows_are_one_too_many() -> None:
    found = faults_of(
        dataset={"dataset": "iris", "samples": {"val": 0.1}},
        model={"model": "mlp", "training": {"validation_split": 0.1}},
    )

    assert_one_fault(found, "model.training.validation_split", "^asks for validation rows, as dataset.samples.val does")


def test_a_spec_in_the_place_of_another_is_named() -> None:
    found = faults_of(dataset=Model(model="mlp"), model=Tracking())

    assert found == {
        "dataset": "got a Model; expected a dict or a gymtrain.Dataset",
        "model": "got a Tracking; expected a dict or a gymtrain.Model",
    }


@pytest.mark.parametrize(
    ("section", "given", "path"),
    [
        (Dataset, {"dataset": "iris", "seed": -1}, "dataset.seed"),
        (Model, {"model": "mlp", "training": {"epochs": 0}}, "model.training.epochs"),
        (Tracking, {"root": ""}, "tracking.root"),
    ],
)
def test_a_spec_object_names_the_same_place_as_the_dict(section: Any, given: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError, match="1 problem in the spec") as caught:
        section(**given)

    assert [fault.path for fault in caught.value.faults] == [path]


def test_a_value_that_would_fill_the_screen_is_cut() -> None:
    found = faults_of(dataset={"dataset": "iris", "seed": "x" * 1000})

    assert len(found["dataset.seed"]) < 200


def test_a_class_inside_a_function_needs_a_registered_name() -> None:
    class Local:
        def transform(self, X: Any) -> Any:
            return X

    found = faults_of(dataset={"dataset": "iris", "preprocessors": [{"type": Local}]})

    assert_one_fault(
        found,
        "dataset.preprocessors[0].type",
        r"Local is not found by its name .* @gymtrain.register\('preprocessor', ",
    )


def test_a_file_may_import_only_what_is_trusted() -> None:
    given = {"dataset": "iris", "preprocessors": [{"type": "fractions:Fraction"}]}

    with Experiment.reading_a_file(trust=["fractions:Other"]):
        assert_one_fault(
            faults_of(dataset=given), "dataset.preprocessors[0].type", "a file may not decide what is imported"
        )
    assert_one_fault(faults_of(dataset=given), "dataset.preprocessors[0].type", r"Fraction has no method transform\(\)")


def test_the_path_of_a_file_that_is_not_there_is_no_fault_of_the_spec() -> None:
    assert faults_of(dataset={"dataset": {"type": "csv", "path": Path("nowhere.csv"), "target": "y"}}) == {}
