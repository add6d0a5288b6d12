"""What training leaves: from raw rows to labels, through everything that lies between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.frames import Frame
from gymtrain.data.images import Images
from gymtrain.data.preprocessors import Pipeline
from gymtrain.data.rows import Rows
from gymtrain.data.schema import Features, number_of_rows, row_blocks, rows_that_are_not_finite
from gymtrain.errors import DataError, InputError, TaskError
from gymtrain.models.contract import Learner
from gymtrain.models.tasks import Task
from gymtrain.trainer.held_out import HeldOut

Array = npt.NDArray[Any]

# Bounds the memory of a prediction: what lies between the rows and the answer is made for so many rows at a time.
ROWS_AT_A_TIME = 1024
IMAGES_AT_A_TIME = 256


@dataclass
class Predictor:
    """Features, preprocessors, model and task, as they were fitted together.

    Args:
        features: What a row looks like.
        pipeline: The preprocessors.
        learner: The model.
        input_shape: The shape of one row as the model gets it.
        weights: Which weights the model has: `"best"` or `"last"`.
        examples: A few raw rows, for the self-check of a bundle.
        expected: The scores that these rows gave where the bundle was written; None for what is not out of a bundle.
        held_out: Rows that nothing was learned from; None where there are none, or not any more.
        reduced: In how few bytes its weights were written in the bundle that they are out of, as
            `gymtrain.trainer.reducing.REDUCED` names it; None for in as many as they have.
        rounded: In how few bytes they were written in bundles before that one, in this order; what was rounded away
            there is gone.
    """

    features: Features
    pipeline: Pipeline
    learner: Learner
    input_shape: tuple[int, ...]
    weights: str
    examples: Frame | Images | Array | None
    expected: Array | None = None
    held_out: HeldOut | None = None
    reduced: str | None = None
    rounded: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.learner.task

    def scores(self, X: Any, *, exact: bool = True) -> Array:
        """Return what the task decodes, for raw rows in any form.

        Raises:
            InputError: The rows do not fit the training data.
        """
        return self._in_blocks(X, lambda block: self._scores(block, exact))

    def _in_blocks(self, X: Any, answer: Callable[[Any], Array]) -> Array:
        """Return the answers for all rows, of which a block at a time lies between the rows and the answers."""
        X = self.features.known_form(X)
        rows = number_of_rows(X)
        size = IMAGES_AT_A_TIME if self.features.are_images else ROWS_AT_A_TIME * self.learner.threads
        if rows is None or rows <= size:
            return answer(X)
        # Filled block by block: a list of blocks would lie between the activations in memory and hold them there.
        answers: Array | None = None
        for start, block in zip(range(0, rows, size), row_blocks(X, size), strict=True):
            try:
                part = answer(block)
            except InputError as error:
                raise InputError(f"among rows {start} to {min(start + size, rows) - 1}: {error}") from error
            if answers is None:
                answers = np.empty((rows, *part.shape[1:]), dtype=part.dtype)
            answers[start : start + len(part)] = part
        assert answers is not None
        return answers

    def _scores(self, X: Any, exact: bool) -> Array:
        rows = self.features.check(X, missing=self.pipeline.handles_missing)
        if len(rows) == 0:
            width = len(self.task.classes) if self.task.has_probabilities else self.task.output_size
            return np.empty((0, width), dtype=np.float32)
        return self.learner.scores(self.inputs(rows), exact=exact)

    def inputs(self, rows: Rows) -> Array:
        """Return what the preprocessors make of checked rows: float32 of shape (rows, *input_shape).

        Raises:
            InputError: They cannot be made what the model takes; an image cannot be decoded.
        """
        if not self.pipeline.steps and isinstance(rows, np.ndarray) and rows.dtype == np.float32:
            return rows
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported below
            try:
                values = self.pipeline.transform(rows)
            except DataError as error:
                if not isinstance(rows, Images):
                    raise
                raise InputError(str(error)) from error
            inputs = np.ascontiguousarray(values, dtype=np.float32)
        if inputs.shape[1:] != self.input_shape:
            if isinstance(rows, Images):
                raise InputError(
                    f"the images have, or become, the shape {inputs.shape[1:]}; the model was trained on "
                    f"{self.input_shape}: bring them to the size of the training data"
                )
            raise InputError(
                f"the preprocessors made rows of shape {inputs.shape[1:]}; in training it was {self.input_shape}: what "
                f"a row becomes may not depend on the others"
            )
        bad = rows_that_are_not_finite(inputs)
        if len(bad):
            raise InputError(
                f"{len(bad)} rows hold values that the preprocessors turn into NaN or infinity, the first is row "
                f"{bad[0]}; the values are missing, or far outside of those in training"
            )
        return inputs

    def predict(self, X: Any, *, exact: bool = True) -> Array:
        """Return labels."""
        return self._in_blocks(X, lambda block: self.task.decode(self._scores(block, exact)))

    def predict_proba(self, X: Any, *, exact: bool = True) -> Array:
        """Return probabilities.

        Raises:
            TaskError: The task or the model has none.
        """
        self.require_probabilities()
        return self.scores(X, exact=exact)

    def require_probabilities(self) -> None:
        """Check that there are probabilities.

        Raises:
            TaskError: The task or the model has none.
        """
        if not self.task.has_probabilities:
            raise TaskError("predict_proba: a regression has no probabilities; use predict()")
        if not self.learner.has_probabilities:
            raise TaskError("predict_proba: this model gives classes and no probabilities; use predict()")
