from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator

from gymtrain.data.fitted import TRUSTED, SklearnTransformer, build_estimator, dump, load, resolve_estimator
from gymtrain.errors import BundleError, SaveError, SpecError

random = np.random.default_rng(0)
X = random.normal(size=(40, 6)).astype(np.float32)
CLASSES = (X[:, 0] > 0).astype(np.int64)
NUMBERS = 2.0 * X[:, 0] + 1.0

# For each type that is trusted: an estimator that is made of it.
NEEDED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "numpy.dtype": ("SimpleImputer", {}, CLASSES),
    "numpy.mean": ("FeatureAgglomeration", {}, CLASSES),
    "scipy._lib.array_api_compat.numpy._aliases.asarray": ("SplineTransformer", {}, CLASSES),
    "scipy.interpolate._bsplines.BSpline": ("SplineTransformer", {}, CLASSES),
    "sklearn._loss.loss.HalfTweedieLoss": ("TweedieRegressor", {"power": 1.5, "link": "log"}, np.abs(NUMBERS)),
    "sklearn._loss.loss.HalfTweedieLossIdentity": ("TweedieRegressor", {}, NUMBERS),
    "sklearn.calibration._CalibratedClassifier": ("CalibratedClassifierCV", {}, CLASSES),
    "sklearn.calibration._SigmoidCalibration": ("CalibratedClassifierCV", {}, CLASSES),
    "sklearn.calibration._TemperatureScaling": ("CalibratedClassifierCV", {"method": "temperature"}, CLASSES),
    "sklearn.cluster._bisect_k_means._BisectingTree": ("BisectingKMeans", {"n_clusters": 3}, CLASSES),
    "sklearn.cluster._kmeans._kmeans_single_elkan": ("BisectingKMeans", {"algorithm": "elkan"}, CLASSES),
    "sklearn.cluster._kmeans._kmeans_single_lloyd": ("BisectingKMeans", {}, CLASSES),
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": ("HistGradientBoostingClassifier", {}, CLASSES),
    "sklearn.feature_selection._univariate_selection.f_classif": ("SelectKBest", {"k": 2}, CLASSES),
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace": ("GaussianProcessClassifier", {}, CLASSES),
    "sklearn.gaussian_process.kernels.ConstantKernel": ("GaussianProcessRegressor", {}, NUMBERS),
    "sklearn.gaussian_process.kernels.Product": ("GaussianProcessRegressor", {}, NUMBERS),
    "sklearn.gaussian_process.kernels.RBF": ("GaussianProcessRegressor", {}, NUMBERS),
    "sklearn.neighbors._ball_tree.BallTree": ("KNeighborsClassifier", {"algorithm": "ball_tree"}, CLASSES),
    "sklearn.neighbors._kd_tree.KDTree": ("KNeighborsClassifier", {"algorithm": "kd_tree"}, CLASSES),
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": ("MLPClassifier", {"max_iter": 2}, CLASSES),
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": (
        "MLPRegressor",
        {"max_iter": 2, "solver": "sgd"},
        NUMBERS,
    ),
    "sklearn.tree._tree.Tree": ("RandomForestClassifier", {"n_estimators": 3}, CLASSES),
    **{
        f"sklearn.metrics._dist_metrics.{name}Distance64": (
            "KNeighborsClassifier",
            {"metric": name.lower(), "algorithm": "ball_tree", **({"p": 3} if name == "Minkowski" else {})},
            CLASSES,
        )
        for name in ("BrayCurtis", "Canberra", "Chebyshev", "Euclidean", "Hamming", "Manhattan", "Minkowski")
    },
}
EVERYDAY = [
    ("LogisticRegression", {}, CLASSES),
    ("SVC", {"probability": True}, CLASSES),
    ("GradientBoostingClassifier", {"n_estimators": 3}, CLASSES),
    ("HistGradientBoostingRegressor", {"max_iter": 3}, NUMBERS),
    ("GaussianNB", {}, CLASSES),
    ("Ridge", {}, NUMBERS),
    ("SGDClassifier", {}, CLASSES),
    ("PCA", {"n_components": 2}, CLASSES),
    ("QuantileTransformer", {"n_quantiles": 10}, CLASSES),
    ("KNNImputer", {}, CLASSES),
    ("OneHotEncoder", {"handle_unknown": "ignore"}, CLASSES),
]


def fit(name: str, arguments: dict[str, Any], y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_estimator(name, arguments).fit(X, y)


def answers(estimator: Any) -> Any:
    for method in ("predict_proba", "predict", "transform"):
        if hasattr(estimator, method):
            result = getattr(estimator, method)(X)
            return result.toarray() if hasattr(result, "toarray") else result
    raise AssertionError(estimator)


def test_every_trusted_type_has_an_estimator_that_needs_it() -> None:
    assert set(NEEDED) == TRUSTED


@pytest.mark.parametrize("trusted", NEEDED)
def test_a_trusted_type_is_needed_to_read_a_fitted_estimator(trusted: str) -> None:
    estimator = fit(*NEEDED[trusted])
    data = dump(estimator)

    assert trusted in skops.io.get_untrusted_types(data=data)
    np.testing.assert_array_equal(answers(load(data)), answers(estimator))


@pytest.mark.parametrize(("name", "arguments", "y"), EVERYDAY)
def test_a_fitted_estimator_answers_the_same_after_it_was_written(name: str, arguments: Any, y: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = fit(name, arguments, y)

        np.testing.assert_array_equal(answers(load(dump(estimator))), answers(estimator))


@pytest.mark.parametrize(("name", "arguments", "y"), [*EVERYDAY, ("PoissonRegressor", {}, np.abs(NUMBERS))])
def test_what_was_read_is_written_as_the_same_bytes(name: str, arguments: Any, y: Any) -> None:
    data = dump(fit(name, arguments, y))

    assert dump(load(data)) == data


@pytest.mark.parametrize("name", ["KNeighborsRegressor", "RadiusNeighborsRegressor"])
def test_what_was_asked_of_an_estimator_does_not_change_its_bytes(name: str) -> None:
    estimator = build_estimator(name, {}).fit(X, np.column_stack([NUMBERS, NUMBERS]))
    before = dump(estimator)

    estimator.predict(X)

    assert dump(estimator) == before


@pytest.mark.slow
def test_the_same_estimator_gives_the_same_bytes_in_every_process() -> None:
    code = """
import sys, hashlib, numpy as np
from sklearn.ensemble import RandomForestClassifier
from gymtrain.data.fitted import dump, load
X = np.random.default_rng(0).normal(size=(40, 6)); y = (X[:, 0] > 0).astype(int)
forest = RandomForestClassifier(3, random_state=0, class_weight={0: 1.0, 1: 2.0}).fit(X, y)
data = dump(forest)
assert dump(load(data)) == data and dump(forest) == data
print(hashlib.sha256(data).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }

    assert len(digests) == 1


class Outsider(BaseEstimator):
    """A type that nobody vouches for."""

    def fit(self, X: Any, y: Any) -> Outsider:
        self.number_ = 3
        return self


def untrusted_bytes() -> bytes:
    return bytes(skops.io.dumps(Outsider().fit(X, CLASSES)))


def test_a_type_that_nobody_vouches_for_is_not_written() -> None:
    with pytest.raises(
        SaveError, match=r"^Outsider holds .*Outsider, which cannot be loaded without running code that the"
    ):
        dump(Outsider().fit(X, CLASSES))


def test_an_estimator_that_skops_cannot_write_is_named() -> None:
    with pytest.raises(SaveError, match=r"^Birch cannot be saved without pickle: "):
        dump(fit("Birch", {}, CLASSES))


def test_a_type_that_nobody_vouches_for_is_not_read() -> None:
    with pytest.raises(
        BundleError, match=r"^a fitted scikit-learn object holds .*Outsider; if you trust the file"
    ) as caught:
        load(untrusted_bytes())

    assert caught.value.reason == "unknown_type"


def test_a_type_that_the_caller_trusts_is_read() -> None:
    (name,) = skops.io.get_untrusted_types(data=untrusted_bytes())

    assert load(untrusted_bytes(), trust=[name]).number_ == 3


def without_schema(data: bytes) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"{}" if name == "schema.json" else old.read(name))
    return target.getvalue()


def compressed(data: bytes) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return target.getvalue()


def test_bytes_that_would_grow_in_memory_are_refused() -> None:
    data = compressed(dump(fit("Ridge", {}, NUMBERS)))

    with pytest.raises(BundleError, match=r"cannot be read: its members are compressed; expected them stored$"):
        load(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not a zip",
        lambda data: data[: len(data) // 2],
        lambda data: data[:60] + bytes(60) + data[120:],
        without_schema,
    ],
    ids=["empty", "text", "half", "zeros", "no schema"],
)
def test_damaged_bytes_are_refused(damage: Callable[[bytes], bytes]) -> None:
    data = dump(fit("RandomForestClassifier", {"n_estimators": 3}, CLASSES))

    with pytest.raises(BundleError, match=r"^a fitted scikit-learn object cannot be read: ") as caught:
        load(damage(data))

    assert caught.value.reason == "skops"


def test_the_defaults_of_the_class_are_written_out() -> None:
    resolved = resolve_estimator("transformer", {"transformer": "pca", "n_components": 2})

    assert resolved["transformer"] == "PCA"
    assert resolved["n_components"] == 2
    assert resolved["whiten"] is False


@pytest.mark.parametrize(
    ("key", "given", "path", "message"),
    [
        ("transformer", {}, "transformer", "^got None; expected a class of scikit-learn such as 'PCA'$"),
        (
            "estimator",
            {"estimator": 3},
            "estimator",
            "^got 3; expected a class of scikit-learn such as 'RandomForestCla",
        ),
        (
            "estimator",
            {"estimator": "Rigde"},
            "estimator",
            r"^scikit-learn has no public class 'Rigde'; did you mean 'Ridge'",
        ),
        (
            "estimator",
            {"estimator": "PCA"},
            "estimator",
            r"^PCA of scikit-learn has no predict\(\); name a class that has",
        ),
        ("transformer", {"transformer": "TSNE"}, "transformer", r"^TSNE of scikit-learn has no transform\(\)"),
        ("estimator", {"estimator": "Ridge", "alhpa": 1}, "alhpa", r"^unknown key; did you mean 'alpha'\?$"),
        ("estimator", {"estimator": "VotingClassifier"}, "estimators", "^missing; VotingClassifier needs it$"),
    ],
)
def test_a_class_or_an_argument_that_scikit_learn_has_not_is_refused(
    key: str, given: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(SpecError, match="problem") as caught:
        resolve_estimator(key, given)

    (fault,) = caught.value.faults
    assert fault.path == path
    with pytest.raises(ValueError, match=message):
        raise ValueError(fault.message)


def test_a_transformer_takes_types_that_the_caller_trusts() -> None:
    (name,) = skops.io.get_untrusted_types(data=untrusted_bytes())
    step = SklearnTransformer("PCA")

    step.restore({"skops": untrusted_bytes(), "trust": [name]})

    assert step.fitted.number_ == 3
    with pytest.raises(BundleError, match="if you trust the file"):
        step.restore({"skops": untrusted_bytes()})


def test_sparse_results_are_made_dense() -> None:
    rows = np.array([[0.0], [1.0], [1.0]])
    step = SklearnTransformer("OneHotEncoder")
    step.fit(rows, CLASSES[:3])

    np.testing.assert_array_equal(step.transform(rows), [[1, 0], [0, 1], [0, 1]])
