"""Any estimator of scikit-learn as a model."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.fitted import build_estimator, dump, load, resolve_estimator
from gymtrain.errors import SaveError, TrainingError
from gymtrain.models.contract import Model, State
from gymtrain.models.tasks import Task

Array = npt.NDArray[Any]


class SklearnModel(Model):
    """Any classifier or regressor of scikit-learn; rows of images are flattened.

    Args:
        estimator: The name of its class, such as `"RandomForestClassifier"`.
        arguments: The arguments of that class, under their own names.
    """

    def __init__(self, estimator: str, **arguments: Any) -> None:
        self._name, self._arguments = estimator, arguments

    @cached_property
    def estimator(self) -> Any:
        """The estimator. Made when it is fitted: a restored one is not asked for the arguments that it once took."""
        return build_estimator(self._name, self._arguments)

    def __getattr__(self, name: str) -> Any:
        # Whether there are probabilities depends on the estimator and on its arguments.
        if name == "predict_proba" and hasattr(self.estimator, "predict_proba"):
            return self._predict_proba
        raise AttributeError(name)

    @classmethod
    def resolve_arguments(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Check the arguments against those of the class in scikit-learn."""
        return resolve_estimator("estimator", given)

    def check_task(self, task: Task) -> None:
        """Refuse an estimator of another kind: a regressor's numbers are no classes, although they look like some.

        Raises:
            TrainingError: It is no classifier where there are classes, or no regressor where there are none.
        """
        from sklearn.base import is_classifier, is_regressor

        wanted, is_one = ("classifier", is_classifier) if task.has_probabilities else ("regressor", is_regressor)
        if not is_one(self.estimator):
            name = type(self.estimator).__name__
            raise TrainingError(f"model.model.estimator: {name} is no {wanted}, which a {task.name} task needs")

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> None:
        """Fit the estimator.

        Raises:
            TrainingError: It cannot take the data or its arguments; scikit-learn's own message follows.
        """
        if getattr(self.estimator, "random_state", self) is None:
            # Of its own, because it keeps what it draws from: a number out of the generator that training has seeded.
            self.estimator.set_params(random_state=np.random.randint(2**31))
        targets = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        try:
            self.estimator.fit(_flat(X), targets, **weights)
        except (ValueError, TypeError) as error:
            raise TrainingError(f"model.model: {type(self.estimator).__name__}: {error}") from error

    def predict(self, X: Array) -> Array:
        """Return predicted targets."""
        predicted: Array = self.estimator.predict(_flat(X))
        return predicted

    def _predict_proba(self, X: Array) -> Array:
        """Return probabilities (rows, classes); for several labels, that of each label."""
        result = self.estimator.predict_proba(_flat(X))
        if isinstance(result, list):
            # For several labels scikit-learn gives a pair of columns for each, and a single one for a label that is
            # the same in all rows.
            return np.column_stack(
                [_of_ones(each, classes) for each, classes in zip(result, self.estimator.classes_, strict=True)]
            )
        probabilities: Array = result
        return probabilities

    def save(self) -> State:
        """Return the estimator as bytes of skops.

        Raises:
            SaveError: skops cannot write this estimator.
        """
        try:
            return {"skops": dump(self.estimator)}
        except (NotImplementedError, TypeError) as error:
            raise SaveError(
                f"model.model: {type(self.estimator).__name__} cannot be saved without pickle: {error}"
            ) from error

    def restore(self, state: State) -> None:
        """Take back the estimator."""
        self.estimator = load(state["skops"], state.get("trust", ()))


def _flat(X: Array) -> Array:
    return X.reshape(len(X), -1)


def _of_ones(probabilities: Array, classes: Array) -> Array:
    if probabilities.shape[1] == 2:
        column: Array = probabilities[:, 1]
        return column
    return np.full(len(probabilities), float(classes[0]))
