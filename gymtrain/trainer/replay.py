"""Whether a model gives here what it gave where its bundle was written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from gymtrain.errors import BundleError, InputError
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.trainer.predictor import Array, Predictor

SAME_BITS, WITHIN_TOLERANCE, DIFFERENT = "same bits", "within tolerance", "different"


def replay(predictor: Predictor) -> dict[str, Any]:
    """Predict the rows that a bundle holds again, and compare with the outputs beside them.

    Args:
        predictor: Out of a bundle.

    Returns:
        What `Trainer.verify` returns.

    Raises:
        InputError: It is not out of a bundle, or the bundle holds no rows.
        BundleError: `inconsistent`: The rows or the outputs do not fit the model.
    """
    rows, expected = predictor.examples, predictor.expected
    if rows is None or len(rows) == 0 or expected is None:
        raise InputError(
            "verify: there are no outputs to compare with; a trainer has them that Trainer.load read from a bundle "
            "with rows of its training data"
        )
    try:
        scores = predictor.scores(rows)
    except InputError as error:
        raise BundleError(f"selfcheck.safetensors: the rows do not fit: {error}", reason="inconsistent") from error
    if scores.shape != expected.shape or expected.dtype.kind != "f":
        raise BundleError(
            f"selfcheck.safetensors: scores of type {expected.dtype} and shape {expected.shape}; this model gives "
            f"{scores.dtype} and {scores.shape}",
            reason="inconsistent",
        )
    tolerance = _tolerance(predictor)
    differences = np.abs(scores.astype(np.float64) - expected.astype(np.float64))
    largest = float(differences.max(initial=0.0))
    if scores.dtype == expected.dtype and scores.tobytes() == expected.tobytes():
        verdict, largest = SAME_BITS, 0.0  # NaN, too, is what it was
    elif bool((differences <= tolerance * _scale(predictor, expected)).all()):
        verdict = WITHIN_TOLERANCE
    else:
        verdict = DIFFERENT
    labels, before = predictor.task.decode(scores), predictor.task.decode(expected)
    changed = (
        None if predictor.task.name == "regression" else int((labels != before).reshape(len(rows), -1).any(1).sum())
    )
    return {
        "verdict": verdict,
        "rows": len(rows),
        "largest_difference": largest if math.isfinite(largest) else None,
        "tolerance": tolerance,
        "changed_labels": changed,
    }


def _tolerance(predictor: Predictor) -> float:
    """Return the square root of the precision of the model's numbers: half of their digits have to agree.

    The other half is what summing in another order may change, as processors, threads and versions of libraries do: one
    digit for a sum of a hundred numbers, and some more for every layer.
    """
    learner = predictor.learner
    dtype = learner.dtype if isinstance(learner, TorchLearner) else torch.float32  # which all models are given
    return math.sqrt(torch.finfo(dtype).eps)


def _scale(predictor: Predictor, expected: Array) -> Array | float:
    """Return what the tolerance is a part of: 1 for probabilities, the largest number of each output else."""
    return 1.0 if predictor.task.has_probabilities else np.abs(expected).max(axis=0)
