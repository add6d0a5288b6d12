from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import feature_selection, preprocessing

from gymtrain.data.fitted import SklearnTransformer
from gymtrain.data.frames import Frame
from gymtrain.data.preprocessors import (
    Divide,
    KBest,
    MinMaxScaler,
    Pipeline,
    Preprocessor,
    Replace,
    StandardScaler,
)
from gymtrain.data.tabular import Tabular
from gymtrain.errors import DataError

random = np.random.default_rng(0)
X = random.normal(3.0, 5.0, (50, 4))
Y = random.integers(0, 3, 50)
MAKERS: dict[str, Any] = {
    "standard_scaler": StandardScaler,
    "min_max_scaler": lambda: MinMaxScaler([-1.0, 2.0]),
    "divide": lambda: Divide(2.0),
    "replace": lambda: Replace(0.0, 1.0),
    "kbest": lambda: KBest(k=2),
    "tabular": Tabular,
    "sklearn": lambda: SklearnTransformer("PCA", n_components=2),
}
WITH_GAPS = {"standard_scaler", "min_max_scaler", "divide", "replace", "tabular"}


def fitted(name: str, rows: Any = X, y: Any = Y) -> Any:
    step = MAKERS[name]()
    step.fit(rows, y)
    return step


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (StandardScaler, preprocessing.StandardScaler),
        (MinMaxScaler, preprocessing.MinMaxScaler),
        (lambda: MinMaxScaler([-1.0, 2.0]), lambda: preprocessing.MinMaxScaler((-1, 2))),
        (lambda: KBest(k=2), lambda: feature_selection.SelectKBest(k=2)),
        (
            lambda: SklearnTransformer("PCA", n_components=2),
            lambda: __import__("sklearn.decomposition").decomposition.PCA(2),
        ),
        (
            lambda: SklearnTransformer("PolynomialFeatures", degree=2),
            lambda: preprocessing.PolynomialFeatures(2),
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_are_those_of_scikit_learn(ours: Any, theirs: Any, dtype: Any) -> None:
    rows, new = X[:30].astype(dtype), X[30:].astype(dtype)
    step, reference = ours(), theirs()
    step.fit(rows, Y[:30])

    result = step.transform(new)

    np.testing.assert_allclose(result, reference.fit(rows, Y[:30]).transform(new), rtol=1e-5, atol=1e-6)
    assert result.dtype == dtype


@pytest.mark.parametrize("name", MAKERS)
def test_what_was_learned_comes_back_to_the_bit(name: str) -> None:
    step, again = fitted(name), MAKERS[name]()

    again.restore(step.save())

    np.testing.assert_array_equal(again.transform(X), step.transform(X))


@pytest.mark.parametrize("name", MAKERS)
def test_rows_are_transformed_each_for_itself_and_left_as_they_are(name: str) -> None:
    step, before = fitted(name), X.copy()

    whole = step.transform(X)

    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(np.concatenate([step.transform(X[:7]), step.transform(X[7:])]), whole, rtol=1e-6)
    if name != "sklearn":
        assert step.transform(X[:0]).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("name", ["standard_scaler", "min_max_scaler", "divide", "replace"])
def test_images_keep_their_shape(name: str) -> None:
    images = random.uniform(0, 255, (20, 4, 5, 3)).astype(np.float32)
    step = fitted(name, images, Y[:20])
    flat = fitted(name, images.reshape(20, -1), Y[:20])

    assert step.transform(images).shape == images.shape
    np.testing.assert_array_equal(step.transform(images).reshape(20, -1), flat.transform(images.reshape(20, -1)))


@pytest.mark.parametrize("name", ["kbest", "tabular", "sklearn"])
def test_images_are_flattened_by_what_works_on_features(name: str) -> None:
    images = random.uniform(0, 255, (20, 4, 5)).astype(np.float32)

    assert fitted(name, images, Y[:20]).transform(images).ndim == 2


def test_a_constant_feature_becomes_zero() -> None:
    constant = np.full((10, 1), 7.3)

    assert not fitted("standard_scaler", constant, Y[:10]).transform(constant).any()
    np.testing.assert_array_equal(
        fitted("min_max_scaler", constant, Y[:10]).transform(constant), np.full((10, 1), -1.0)
    )


@pytest.mark.parametrize("name", ["standard_scaler", "min_max_scaler", "divide"])
def test_missing_values_do_not_count_and_stay_missing(name: str) -> None:
    gaps = X.copy()
    gaps[3, 1] = np.nan
    step, without = fitted(name, gaps), fitted(name, np.delete(gaps, 3, axis=0), np.delete(Y, 3))

    result = step.transform(gaps)

    assert np.isnan(result).sum() == 1
    np.testing.assert_allclose(result[:3, 1], without.transform(gaps[:3])[:, 1])


@pytest.mark.parametrize("name", ["standard_scaler", "min_max_scaler"])
def test_a_feature_without_any_value_stays_missing_without_a_warning(name: str) -> None:
    gaps = X.copy()
    gaps[:, 1] = np.nan

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fitted(name, gaps).transform(gaps)

    assert np.isnan(result).sum() == len(X)


def test_a_value_is_replaced_by_another_and_missing_ones_by_a_number() -> None:
    rows = np.array([[0.1, np.nan, -1.0]], np.float32)

    np.testing.assert_array_equal(Replace(0.1, 5.0).transform(rows), np.array([[5.0, np.nan, -1.0]], np.float32))
    np.testing.assert_array_equal(Replace(None, 5.0).transform(rows), np.array([[0.1, 5.0, -1.0]], np.float32))
    assert Replace(None, 5.0).transform(rows).dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Divide(0.0), "^factor is 0; expected another number to divide by$"),
        (lambda: MinMaxScaler([1.0, 1.0]), r"^feature_range is \[1\.0, 1\.0\]; expected the lower bound first"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_features_that_tell_most_are_kept_in_their_order() -> None:
    y = Y.astype(np.int64)
    rows = np.column_stack([random.normal(size=50), y + 0.1 * random.normal(size=50), np.zeros(50), y * 2.0])
    step = KBest(k=2)
    step.fit(rows, y)

    np.testing.assert_array_equal(step.transform(rows), rows[:, [1, 3]])


def test_features_are_scored_against_numbers_too() -> None:
    target = X[:, [2]].astype(np.float32)
    step = KBest(k=1)
    step.fit(X, target)

    np.testing.assert_array_equal(step.transform(X), X[:, [2]])


@pytest.mark.parametrize(
    ("step", "rows", "y", "message"),
    [
        (KBest(k=5), X, Y, "^kbest: k is 5, and there are 4 features; keep fewer$"),
        (
            KBest(k=1),
            X,
            np.zeros((50, 2), np.float32),
            "^kbest: a feature is scored against one target, and there are 2$",
        ),
        (
            KBest(k=1, score="chi2"),
            X,
            Y,
            "^kbest: the score 'chi2' needs features of at least 0; use 'f_classif', or sc",
        ),
        (
            KBest(k=1, score="chi2"),
            np.abs(X),
            X[:, :1].astype(np.float32),
            "^kbest: the score 'chi2' compares classes, and the targets are numbers; use 'auto'$",
        ),
        (
            KBest(k=1, score="f_classif"),
            X,
            X[:, :1].astype(np.float32),
            "^kbest: the score 'f_classif' compares classes",
        ),
    ],
)
def test_features_that_cannot_be_scored_are_refused(step: KBest, rows: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        step.fit(rows, y)


def pipeline(*steps: Any) -> Pipeline:
    return Pipeline([(type(step).__name__.lower(), step) for step in steps])


def test_each_step_is_fitted_on_what_those_before_it_make_of_the_rows() -> None:
    steps = pipeline(Divide(2.0), StandardScaler(), KBest(k=2))
    steps.fit(X, Y)

    first = StandardScaler()
    first.fit(X / 2.0, Y)
    second = KBest(k=2)
    second.fit(first.transform(X / 2.0), Y)
    np.testing.assert_array_equal(steps.transform(X), second.transform(first.transform(X / 2.0)))


def test_without_steps_rows_stay_as_they_are_and_a_frame_becomes_a_matrix() -> None:
    assert pipeline().transform(X) is X
    np.testing.assert_array_equal(pipeline().transform(Frame.of({"a": [1, 2], "b": [3, 4]})), [[1, 3], [2, 4]])


@pytest.mark.parametrize("chunk_size", [1, 7, 50, 100])
@pytest.mark.parametrize("rows", [X, Frame.of({"a": X[:, 0], "b": ["u", "v"] * 25})], ids=["array", "frame"])
def test_chunks_give_what_all_rows_at_once_give(chunk_size: int, rows: Any) -> None:
    steps = pipeline(Tabular(), StandardScaler())
    steps.fit(rows, Y)

    np.testing.assert_array_equal(steps.transform(rows, chunk_size), steps.transform(rows))


@pytest.mark.parametrize(
    ("steps", "handles"),
    [
        ([], False),
        ([StandardScaler()], False),
        ([KBest()], False),
        ([Tabular()], True),
        ([Replace(None, 0.0)], True),
        ([Replace(-1.0, 0.0)], False),
        ([Replace(-1.0, 0.0), Replace(None, 0.0)], True),
        ([StandardScaler(), Divide(), Replace(None, 0.0), KBest()], True),
        ([StandardScaler(), KBest(), Replace(None, 0.0)], False),
        ([SklearnTransformer("SimpleImputer")], True),
        ([SklearnTransformer("PCA")], False),
        ([MinMaxScaler(), SklearnTransformer("KNNImputer")], True),
    ],
)
def test_missing_values_may_come_in_where_a_step_fills_them(steps: list[Any], handles: bool) -> None:
    assert pipeline(*steps).handles_missing is handles


class Bare:
    """The least that a preprocessor of a user's needs."""

    def __init__(self, result: Any = None, error: BaseException | None = None) -> None:
        self.result, self.error = result, error

    def transform(self, rows: Any) -> Any:
        if self.error is not None:
            raise self.error
        return rows if self.result is None else self.result


def test_a_preprocessor_needs_no_more_than_transform() -> None:
    steps = pipeline(Bare(), StandardScaler())
    steps.fit(X, Y)

    assert steps.transform(X).shape == X.shape
    assert not steps.handles_missing


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([[1, 2]], np.float64),
        (torch.ones(1, 2), np.float32),
        (np.ones((1, 2), bool), np.float32),
        (np.ones((1, 2), np.uint8), np.float32),
        (np.ones((1, 2), np.int64), np.float64),
        (np.ones((1, 2), np.float16), np.float16),
    ],
)
def test_what_a_preprocessor_returns_becomes_floating_point(result: Any, expected: Any) -> None:
    steps = pipeline(Bare(result), Divide(0.5))
    steps.fit(np.zeros((1, 2)), Y[:1])

    transformed = steps.transform(np.zeros((1, 2)))

    assert transformed.dtype == expected
    assert (transformed == 2 * np.asarray(result, dtype=float)).all()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Bare(np.zeros((3, 2))), "50 rows went in and 3 came out; a preprocessor keeps every row$"),
        (
            Bare(np.zeros(50)),
            r"transform\(\) returned an array of float64 of shape \(50,\); expected numbers of shape \(50, …\)$",
        ),
        (Bare(np.full((50, 1), "a")), r"transform\(\) returned an array of <U1 of shape \(50, 1\); expected numbers"),
        (Bare(object()), r"transform\(\) returned an array of object of shape \(\)"),
        (Bare([[1], [1, 2]]), "ValueError: setting an array element"),
        (Bare(error=KeyError("age")), "KeyError: 'age'$"),
        (Bare(error=RuntimeError("mat1 and mat2")), "RuntimeError: mat1 and mat2$"),
        (Bare(error=DataError("too dark")), "too dark$"),
        (Preprocessor(), r"NotImplementedError: Preprocessor has no transform\(\)$"),
    ],
)
def test_a_preprocessor_that_fails_is_named_with_its_place(step: Any, message: str) -> None:
    steps = pipeline(StandardScaler(), step, StandardScaler())

    with pytest.raises(DataError, match=rf"^dataset\.preprocessors\[1\] \(\w+\): .*{message}") as caught:
        steps.fit(X, Y)

    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_preprocessor_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error), match=r"^$"):
        pipeline(Bare(error=error)).transform(X)


def test_text_before_tabular_is_refused_with_the_way_out() -> None:
    frame = Frame.of({"a": [1.0, 2.0], "city": ["u", "v"]})

    with pytest.raises(
        DataError, match=r"^dataset\.preprocessors\[0\] \(standardscaler\): columns 'city' hold text where .* 'tabular'"
    ):
        pipeline(StandardScaler(), Tabular()).fit(frame, Y[:2])


def test_scikit_learns_own_refusal_is_passed_on_with_its_place() -> None:
    with pytest.raises(DataError, match=r"^dataset\.preprocessors\[0\] \(sklearntransformer\): .*n_components=9"):
        pipeline(SklearnTransformer("PCA", n_components=9)).fit(X, Y)
