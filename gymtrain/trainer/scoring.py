"""How good a trained model is on given rows."""

from __future__ import annotations

from typing import Any

from gymtrain.errors import DataError, InputError
from gymtrain.models.targets import as_targets
from gymtrain.specs import Training
from gymtrain.trainer.fitting import evaluation_of
from gymtrain.trainer.predictor import Predictor


def evaluate(predictor: Predictor, training: Training, X: Any, y: Any) -> dict[str, float]:
    """Return the loss and the metrics on raw rows and their labels.

    Raises:
        InputError: The rows do not fit the training data, or the labels do not fit the rows.
    """
    rows = predictor.features.check(X, missing=predictor.pipeline.handles_missing)
    try:
        labels = as_targets(y)
        if len(labels) != len(rows):
            raise DataError(f"X has {len(rows)} rows and y has {len(labels)}; every row needs one label")
        if len(rows) == 0:
            raise DataError("there are no rows to evaluate on")
        targets = predictor.task.encode(labels)
    except DataError as error:
        raise InputError(f"evaluate: {error}") from error
    return evaluation_of(predictor.learner, training, "given", predictor.inputs(rows), targets)(predictor.learner)
