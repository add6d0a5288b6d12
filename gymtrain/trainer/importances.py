"""How much each feature counts, of the models that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from gymtrain.data.tensors import as_numpy
from gymtrain.models.contract import Array, Learner, LibraryLearner
from gymtrain.models.torch_learner import TorchLearner


class Importances(NamedTuple):
    """What the features of a model are called, how much each counts, and what that number is."""

    values: Array
    names: list[str]
    what: str


def importances(learner: Learner, feature_names: Callable[[], list[str] | None]) -> Importances | None:
    """Return how much each feature counts: importances and coefficients of scikit-learn, the weights of `linear`.

    Args:
        learner: A model that has learned.
        feature_names: Says what its features are called; None where they have no names. Asked only if it matters: the
            rows of a network may be images, of many pixels.

    Returns:
        None where the model does not say.
    """
    if isinstance(learner, TorchLearner):
        weight = _linear_weight(learner.module)
        return None if weight is None else _named(weight, feature_names(), "weight")
    assert isinstance(learner, LibraryLearner)
    estimator = getattr(learner.model, "estimator", learner.model)
    estimator = getattr(estimator, "best_estimator_", estimator)
    names = feature_names()
    if hasattr(estimator, "steps"):  # a Pipeline of scikit-learn, whose last step sees what the others made
        names, estimator = _names_within(estimator[:-1], names), estimator[-1]
    for attribute, what in (("feature_importances_", "importance"), ("coef_", "coefficient")):
        values = getattr(estimator, attribute, None)
        if values is not None:
            return _named(values, names, what)
    return None


def _linear_weight(module: nn.Module) -> Array | None:
    """Return the weights of a module that is one linear layer, and what flattens rows for it."""
    layers = [layer for layer in module.modules() if not isinstance(layer, nn.Sequential | nn.Flatten)]
    return as_numpy(layers[0].weight) if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None


def _names_within(steps: Any, names: list[str] | None) -> list[str] | None:
    try:
        return [str(name) for name in steps.get_feature_names_out(names)]
    except (AttributeError, ValueError):  # a step that does not say what it makes
        return None


def _named(values: Any, names: list[str] | None, what: str) -> Importances | None:
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
    if values.ndim == 2:
        # One for each output: how far the feature moves any of them. With a single one the sign says where to.
        what = what if len(values) == 1 else f"mean size of the {what}s over the outputs"
        values = values[0] if len(values) == 1 else np.abs(values).mean(axis=0)
    if values.ndim != 1 or not np.isfinite(values).all():
        return None
    if names is None or len(names) != len(values):
        names = [f"input {position}" for position in range(len(values))]
    return Importances(values, names, what)
