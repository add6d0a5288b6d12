from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

from gymtrain.registry import LIBRARIES, ForeignClass, find_foreign, foreign_names
from gymtrain.registry.libraries import NoSource

ESTIMATORS = [
    "RandomForestClassifier",
    "LogisticRegression",
    "PCA",
    "SVC",
    "HistGradientBoostingRegressor",
    # Inherited constructors, within the module and from another one.
    "MultiTaskElasticNet",
    "BernoulliRBM",
    "LassoCV",
    "QuadraticDiscriminantAnalysis",
    "SelectKBest",
    "MiniBatchNMF",
    "ExtraTreesClassifier",
    "OneHotEncoder",
    "MLPClassifier",
]


def imported(found: ForeignClass) -> Any:
    return getattr(importlib.import_module(found.module), found.name)


def signature_of(target: Any) -> dict[str, tuple[Any, ...]]:
    """Return what Python itself says about the constructor, in the form of `ForeignClass.arguments`."""
    # The metrics of torchmetrics that choose by task are made by `__new__`.
    constructor = target.__new__ if "__new__" in vars(target) else target.__init__
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return {
        each.name: () if each.default is each.empty else (each.default,)
        for each in parameters
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }


def assert_as_imported(library: str, name: str) -> None:
    found = find_foreign(library, name)
    assert found is not None
    expected = {
        key: value for key, value in signature_of(imported(found)).items() if key not in LIBRARIES[library].ours
    }
    assert list(found.arguments) == list(expected)
    for key, default in found.arguments.items():
        if default != (NoSource,):
            assert default == tuple(list(each) if isinstance(each, tuple) else each for each in expected[key]), key


@pytest.mark.parametrize(
    ("library", "name"),
    [(library, name) for library in ("optimizer", "loss", "metric", "schedule") for name in foreign_names(library)],
)
def test_the_signature_in_the_source_is_that_of_the_class(library: str, name: str) -> None:
    assert_as_imported(library, name)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_signature_of_an_estimator_is_that_of_its_class(name: str) -> None:
    assert_as_imported("estimator", name)


@pytest.mark.parametrize("name", [*ESTIMATORS, "TSNE", "KMeans", "Pipeline", "KFold", "LocalOutlierFactor"])
def test_the_methods_in_the_source_are_those_of_the_class(name: str) -> None:
    found = find_foreign("estimator", name)
    assert found is not None

    for method in ("fit", "transform", "predict", "predict_proba"):
        assert found.has_method(method) == hasattr(imported(found), method), method


def test_the_usual_names_are_offered() -> None:
    assert {"Adam", "AdamW", "SGD", "RMSprop"} <= set(foreign_names("optimizer"))
    assert {"StepLR", "OneCycleLR", "PolynomialLR", "CosineAnnealingWarmRestarts"} <= set(foreign_names("schedule"))
    assert {"CrossEntropyLoss", "BCEWithLogitsLoss", "MSELoss", "HuberLoss"} <= set(foreign_names("loss"))
    assert {"Accuracy", "F1Score", "AUROC", "R2Score", "MeanSquaredError"} <= set(foreign_names("metric"))
    assert {"RandomForestClassifier", "SVC", "PCA", "NMF"} <= set(foreign_names("estimator"))


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("optimizer", "LBFGS"),
        ("optimizer", "Optimizer"),
        ("optimizer", "SparseAdam"),
        ("schedule", "LRScheduler"),
        ("schedule", "LambdaLR"),
        ("schedule", "ReduceLROnPlateau"),
        ("schedule", "SequentialLR"),
        ("loss", "TripletMarginLoss"),
        ("metric", "BinaryAccuracy"),
        ("metric", "ConfusionMatrix"),
        ("metric", "ROC"),
        ("estimator", "BallTree"),
        ("estimator", "VALID_METRICS"),
        ("estimator", "train_test_split"),
        ("optimizer", ""),
    ],
)
def test_what_does_not_fit_is_not_offered(library: str, name: str) -> None:
    assert find_foreign(library, name) is None
    assert name not in foreign_names(library)


@pytest.mark.parametrize("name", ["RMSprop", "rmsprop", "rms_prop", "RMSPROP"])
def test_case_and_underscores_do_not_matter(name: str) -> None:
    found = find_foreign("optimizer", name)

    assert found is not None
    assert found.name == "RMSprop"


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_offered_class_is_found_and_names_are_sorted(library: str) -> None:
    names = foreign_names(library)

    assert names == sorted(set(names))
    assert all(find_foreign(library, name) is not None for name in names)


def test_reading_signatures_imports_none_of_the_libraries() -> None:
    code = """
import sys
from gymtrain.registry import LIBRARIES, find_foreign, foreign_names
for library in LIBRARIES:
    find_foreign(library, foreign_names(library)[0])
print(*({"torch", "torchmetrics", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
