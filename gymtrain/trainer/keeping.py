"""The bundle of a run: written when the training has ended, and what it takes to call the model in it."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gymtrain.bundle import inspect
from gymtrain.data.frames import Frame
from gymtrain.data.images import Images
from gymtrain.data.rows import taken
from gymtrain.errors import BundleError, SaveError
from gymtrain.hardware import library_versions
from gymtrain.specs import Experiment
from gymtrain.tracking import Report
from gymtrain.trainer.predictor import Array, Predictor
from gymtrain.trainer.saving import LIBRARIES, save

EXAMPLE_ROWS = 5
# Bounds the line of the journal that the example lies in, where a row is an image.
EXAMPLE_VALUES = 100_000


def keep_bundle(
    report: Report,
    experiment: Experiment,
    spec: dict[str, Any],
    predictor: Predictor,
    result: Callable[[], Mapping[str, Any]],
) -> None:
    """Write the bundle into the run's directory and report it; where that fails, say so in the run.

    Args:
        report: Of the run.
        experiment: The spec.
        spec: The same, written out.
        predictor: What was learned.
        result: Returns what `train()` will return.
    """
    path = report.run.directory / "model.zip"
    try:
        report.wait_started()  # the result says where the run is
        told = result()
        if not _is_of(path, spec, told):
            save(path, experiment, spec, predictor, told)
    except Exception as error:  # what was learned is there, and more than the file it is kept in
        report.tag("gymtrain.bundle", f"not saved: {error}")
        if not isinstance(error, SaveError):
            warnings.warn(f"the run keeps no bundle: {error}", stacklevel=5)
        return
    with report.attempt("the bundle in the trackers"):  # to describe it, it predicts
        report.bundle(path, partial(described, experiment, predictor))


def _is_of(path: Path, spec: dict[str, Any], result: Mapping[str, Any]) -> bool:
    """Tell whether a bundle is what this training came to already: a resume had nothing left to train.

    Written anew it would be another file, of which trackers would store another model.
    """
    try:
        kept = inspect(path)
    except (BundleError, OSError):
        return False
    learned = ("metrics", "best", "stop_reason")
    return bool(kept["spec"] == spec) and all(kept["results"].get(name) == result[name] for name in learned)


def described(experiment: Experiment, predictor: Predictor) -> dict[str, Any]:
    """Return what a store needs to make the model callable, in the words of `gymtrain_trackers.ModelFile`.

    The columns are named and their types left open. MLflow would refuse whole numbers where a column is declared as
    decimal, and float32 where a tensor is declared as float64; what fits is looked at by the features, in better words.
    """
    features, rows = predictor.features, predictor.examples
    inputs: list[dict[str, Any]] = [{"type": "tensor", "tensor-spec": {"dtype": "object", "shape": [-1]}}]
    if features.columns is not None:
        inputs = [{"type": "any", "name": name, "required": False} for name in features.columns]
    outputs, example = [], None
    if rows is not None and len(rows):
        count = max(1, min(EXAMPLE_ROWS, EXAMPLE_VALUES // int(np.prod(features.shape))))
        few = taken(rows, slice(count))
        outputs = [_tensor(predictor.predict(few))]
        example = _example(few)
    return {
        "loader": "gymtrain.serving.pyfunc",
        "config": {"trust": _foreign_types(experiment)},
        "inputs": inputs,
        "outputs": outputs,
        "params": [{"name": "proba", "type": "boolean", "default": False, "shape": None}],
        "example": example,
        "requirements": _requirements(),
        "metadata": {"gymtrain": {"features": features.to_dict(), "labels": predictor.task.to_dict()}},
    }


def _tensor(labels: Array) -> dict[str, Any]:
    dtype = "object" if labels.dtype.kind in "UO" else str(labels.dtype)
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *labels.shape[1:]]}}


def _example(rows: Frame | Images | Array) -> dict[str, Any] | None:
    if isinstance(rows, Images):
        files = [base64.b64encode(rows.encoded(row)).decode() for row in range(len(rows))]
        while files and sum(map(len, files)) > 8 * EXAMPLE_VALUES:
            files.pop()
        return {"inputs": files} if files else None
    if isinstance(rows, Frame):
        columns = [_present(column).tolist() for column in rows.columns.values()]
        return {"dataframe_split": {"columns": rows.names, "data": [list(row) for row in zip(*columns, strict=True)]}}
    return {"inputs": _present(rows).tolist()}


def _present(values: Array) -> Array:
    """Return values with None where one is missing, as JSON has it."""
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return values
    present = values.astype(object)
    present[np.isnan(values)] = None
    return present


def _foreign_types(experiment: Experiment) -> list[str]:
    """Return the types outside gymtrain that a prediction needs and that another process can import."""
    steps = experiment.dataset.preprocessors
    components = [experiment.model.model, *([] if steps == "auto" else steps)]
    found = {member.type for component in components for _, member in component.members()}
    return sorted(name for name in found if ":" in name)


def _requirements() -> tuple[str, ...]:
    versions = library_versions()
    # The local part (`+cpu`) names a build that no index has.
    return tuple(f"{name}=={versions[name].partition('+')[0]}" for name in LIBRARIES if name in versions)
