"""A model as ONNX, and how near its answers are to those of torch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gymtrain.errors import SaveError
from gymtrain.models.onnx_learner import OnnxLearner, to_onnx
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.trainer.predictor import Array, Predictor

# Two libraries that add up in another order differ by some units in the last of seven digits, and by more the deeper a
# model is; what is wrong in an export differs by far more than this.
ATOL: Final = 1e-5
RTOL: Final = 1e-4
BATCHES: Final = (1, 7, 32)


def exported(learner: TorchLearner, predictor: Predictor) -> tuple[bytes, dict[str, Any]]:
    """Return a module as ONNX, and what is written down of it.

    It is compared with the module on the rows of the self-check, and on batches of 1, 7 and 32 random rows like these.

    Args:
        learner: With the module, on the CPU.
        predictor: With its preprocessors.

    Returns:
        The file; `atol` and `rtol`, within which the scores agree, and the largest `difference` that was found.

    Raises:
        SaveError: The module cannot be exported, or what was exported answers otherwise.
        MissingDependencyError: A package for it is not installed.
    """
    data = to_onnx(learner, predictor.input_shape)
    other = OnnxLearner(data, predictor.task)
    largest = 0.0
    for rows in _batches(predictor):
        try:
            one, two = learner.scores(rows), other.scores(rows)
        except ValueError as error:
            raise SaveError(f"portable: {error}; save without portable") from error
        difference = np.abs(one - two)
        largest = max(largest, float(difference.max()))
        if not (difference <= ATOL + RTOL * np.abs(one)).all():
            raise SaveError(
                f"portable: in ONNX the model answers otherwise: {len(rows)} rows differ by up to "
                f"{float(difference.max()):.3g}, where {ATOL} and {RTOL} of the score are borne; save without portable"
            )
    return data, {"atol": ATOL, "rtol": RTOL, "difference": largest}


def _batches(predictor: Predictor) -> list[Array]:
    generator = np.random.default_rng(0)
    examples = predictor.examples
    rows = np.zeros((1, *predictor.input_shape), np.float32)
    known = []
    if examples is not None and len(examples):
        checked = predictor.features.check(examples, missing=predictor.pipeline.handles_missing)
        rows = predictor.inputs(checked)
        known = [rows]
    noise = rows.std(axis=0) + np.float32(0.1)
    chosen = [rows[generator.integers(len(rows), size=size)] for size in BATCHES]
    drawn = [each + noise * generator.standard_normal(each.shape, dtype=np.float32) for each in chosen]
    return [*known, *drawn]
