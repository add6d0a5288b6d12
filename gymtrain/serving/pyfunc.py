"""What MLflow loads where a bundle was logged as a model: `mlflow.pyfunc.load_model` and `mlflow models serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymtrain.errors import GymtrainError, InputError
from gymtrain.trainer import Trainer


class PyfuncModel:
    """Answers for a trainer, the way MLflow asks.

    Args:
        trainer: What was learned.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return labels, or probabilities.

        Args:
            rows: Raw rows: a frame of pandas with the columns of the training data, or an array of shape (rows, …).
            params: `{"proba": True}` asks for probabilities.

        Returns:
            What `Trainer.predict` returns; or a frame of pandas with a row for each row and a column for each class,
            named by its label and in the order of `Trainer.classes_`.

        Raises:
            mlflow.exceptions.MlflowException: The rows do not fit the training data, there are none, or the model has
                no probabilities. A server answers 400, with the same words.
        """
        from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

        try:
            if len(rows) == 0:
                raise InputError(f"got no rows{self._expected()}")
            if not (params or {}).get("proba"):
                return self._trainer.predict(rows)
            from pandas import DataFrame

            probabilities = self._trainer.predict_proba(rows)
            return DataFrame(probabilities, columns=[str(label) for label in self._trainer.classes_])
        except GymtrainError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error

    def _expected(self) -> str:
        features = self._trainer.features
        if features.columns is None:
            return f"; expected (rows, {', '.join(map(str, features.shape))})"
        # MLflow drops the columns that it does not know, and with the last of them the rows.
        return f", or none of the columns {', '.join(map(repr, features.columns))}"


def _load_pyfunc(path: str, config: Mapping[str, Any] | None = None) -> PyfuncModel:
    """Load a bundle; MLflow calls this by its name.

    Args:
        path: Of the bundle.
        config: `trust` are the types outside gymtrain that it may name, as for `Trainer.load`.

    Raises:
        BundleError: The file is no bundle, was changed, or names a type that is neither registered nor trusted.
    """
    return PyfuncModel(Trainer.load(path, trust=(config or {}).get("trust", ())))
