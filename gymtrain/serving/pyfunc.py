"""What MLflow loads where a bundle was logged as a model: `mlflow.pyfunc.load_model` and `mlflow models serve`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

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
            rows: Raw rows: a frame of pandas with the columns of the training data, or an array of shape (rows, …). Of
                images an array of files, each in base64 or as bytes, or of pixels; no path is ever opened.
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
            if self._trainer.features.are_images or self._trainer.features.are_pixels:
                rows = _decoded(rows)
            if not (params or {}).get("proba"):
                return self._trainer.predict(rows)
            from pandas import DataFrame

            probabilities = self._trainer.predict_proba(rows)
            return DataFrame(probabilities, columns=[str(label) for label in self._trainer.classes_])
        except GymtrainError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error

    def _expected(self) -> str:
        features = self._trainer.features
        if features.are_images:
            return "; expected images, each the content of a file in base64"
        if features.columns is None:
            return f"; expected (rows, {', '.join(map(str, features.shape))})"
        # MLflow drops the columns that it does not know, and with the last of them the rows.
        return f", or none of the columns {', '.join(map(repr, features.columns))}"


def _decoded(rows: Any) -> Any:
    """Return images as files' bytes or pixels: what is text is no path, but the content of a file in base64.

    Raises:
        InputError: A text is no base64.
    """
    if getattr(getattr(rows, "dtype", None), "kind", "O") not in "OUST":
        return rows
    return [_image(each, row) for row, each in enumerate(rows)]


def _image(value: Any, row: int) -> Any:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            begins = value if len(value) <= 40 else f"{value[:40]}…"
            raise InputError(
                f"row {row}: the text {begins!r} is no base64; no path is opened here: send the content of the file, "
                f"base64.b64encode(Path(path).read_bytes()).decode()"
            ) from error
    try:
        # MLflow makes objects of the numbers.
        return np.asarray(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError as error:
        raise InputError(f"row {row}: the lists differ in length: {error}") from error


def _load_pyfunc(path: str, config: Mapping[str, Any] | None = None) -> PyfuncModel:
    """Load a bundle; MLflow calls this by its name.

    Args:
        path: Of the bundle.
        config: `trust` are the types outside gymtrain that it may name, as for `Trainer.load`.

    Raises:
        BundleError: The file is no bundle, was changed, or names a type that is neither registered nor trusted.
    """
    return PyfuncModel(Trainer.load(path, trust=(config or {}).get("trust", ())))
