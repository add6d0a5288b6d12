"""The contract of a model: what training and prediction ask of it, whatever library it comes from."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.padding import padded
from gymtrain.errors import Fault, SpecError, TaskError
from gymtrain.models.tasks import Task

Array = npt.NDArray[Any]
State = dict[str, Any]


class Model(ABC):
    """Base for models of libraries other than torch (a torch model is just an `nn.Module`).

    A subclass takes its arguments in the constructor; `predict_proba` is optional, as is `sample_weight`. Features come
    as a float array of shape (rows, …), as the preprocessors made them; targets as int64 codes of shape (rows,) for
    classes, as float32 of shape (rows, outputs) otherwise.

    Example:
        >>> class Mean(Model):
        ...     def fit(self, X, y, sample_weight=None):
        ...         self.mean = y.mean(axis=0)
        ...
        ...     def predict(self, X):
        ...         return np.tile(self.mean, (len(X), 1))
        ...
        ...     def save(self):
        ...         return {"mean": self.mean}
        ...
        ...     def restore(self, state):
        ...         self.mean = state["mean"]
        >>> model = Mean()
        >>> model.fit(np.zeros((2, 1)), np.array([[1.0], [3.0]]))
        >>> model.predict(np.zeros((1, 1)))
        array([[2.]])
    """

    @abstractmethod
    def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> None:
        """Learn from the train part."""

    @abstractmethod
    def predict(self, X: Array) -> Array:
        """Return predicted targets, in the form that `fit` was given them."""

    @abstractmethod
    def save(self) -> State:
        """Return what was learned: JSON values, numpy arrays, and under `"skops"` bytes made by skops."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Take back what `save` returned."""


class Learner(ABC):
    """A model and its task: what the trainer deals with."""

    task: Task

    @property
    @abstractmethod
    def has_probabilities(self) -> bool:
        """Whether `scores` are probabilities."""

    @property
    def threads(self) -> int:
        """How many blocks of rows are computed at once."""
        return 1

    @abstractmethod
    def scores(self, X: Array, *, exact: bool = True) -> Array:
        """Return what the task decodes: probabilities (rows, classes), or numbers (rows, outputs).

        Args:
            X: Rows as the preprocessors made them, shape (rows, …), at least one.
            exact: Whether the bits of a row are to be the same whatever is computed beside it.
        """

    @abstractmethod
    def save(self) -> State:
        """Return what was learned."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Take back what `save` returned."""


class LibraryLearner(Learner):
    """A model of a library other than torch, which fits all by itself."""

    def __init__(self, model: Any, task: Task) -> None:
        self.model, self.task = model, task

    @property
    def has_probabilities(self) -> bool:
        """Whether the task has classes and the model says how probable they are."""
        return self.task.has_probabilities and hasattr(self.model, "predict_proba")

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None, class_weight: Array | None = None) -> None:
        """Fit the model.

        Args:
            X: Rows, (rows, …).
            y: Targets; codes (rows,) where classes are weighed.
            sample_weight: How much each row counts, float32 (rows,); None for all alike.
            class_weight: How much the rows of each class count, float32 in the order of the classes; multiplied with
                `sample_weight`.

        Raises:
            SpecError: Rows are weighed, and its `fit` takes no weights.
        """
        by_class = None if class_weight is None else class_weight[y]
        given = {"dataset.dataset.sample_weight": sample_weight, "model.training.class_weight": by_class}
        weights = {path: each for path, each in given.items() if each is not None}
        if not weights:
            self.model.fit(X, y)
        elif "sample_weight" in inspect.signature(self.model.fit).parameters:
            self.model.fit(X, y, sample_weight=math.prod(weights.values()))
        else:
            message = f"{type(self.model).__name__}.fit takes no sample_weight; leave"
            raise SpecError([Fault(path, f"{message} {path.rpartition('.')[2]} out") for path in weights])

    def scores(self, X: Array, *, exact: bool = True) -> Array:
        """Return probabilities, or ones for the predicted classes where the model has none; float32.

        Raises:
            TaskError: What the model predicts is not what the task is about.
        """
        return self._scores(padded(X))[: len(X)] if exact else self._scores(X)

    def _scores(self, X: Array) -> Array:
        if self.has_probabilities:
            scores = np.asarray(self.model.predict_proba(X))
        else:
            scores = np.asarray(self.model.predict(X))
            if self.task.has_probabilities and scores.ndim == 1:
                scores = self._one_hot(scores)
            elif scores.ndim == 1:
                scores = scores[:, None]
        width = len(self.task.classes) if self.task.has_probabilities else self.task.output_size
        if scores.shape != (len(X), width):
            raise TaskError(
                f"{type(self.model).__name__} predicted an array of shape {scores.shape} for {len(X)} rows; a "
                f"{self.task.name} task needs ({len(X)}, {width})"
            )
        return scores.astype(np.float32, copy=False)

    def _one_hot(self, codes: Array) -> Array:
        size = len(self.task.classes)
        one_hot: Array = codes[:, None] == np.arange(size)
        if not one_hot.any(axis=1).all():
            odd = codes[~one_hot.any(axis=1)][0]
            raise TaskError(
                f"{type(self.model).__name__} predicted {odd!r}; a {self.task.name} task needs the codes that fit was "
                f"given, 0 to {size - 1}"
            )
        return one_hot

    def save(self) -> State:
        """Return what the model learned."""
        state: State = self.model.save()
        return state

    def restore(self, state: State) -> None:
        """Give the model what it had learned."""
        self.model.restore(state)
