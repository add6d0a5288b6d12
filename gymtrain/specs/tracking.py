"""The tracking spec: where a run is written down."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from gymtrain.errors import Fault
from gymtrain.specs.dataset import check_components
from gymtrain.specs.section import FaultsFound, Section, fault
from gymtrain.specs.wording import shortened


def _check_tags(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise fault(f"got {shortened(value)}; expected a dict of texts")
    faults = [
        Fault(str(key), f"got {shortened(item)}; expected text")
        for key, item in value.items()
        if not isinstance(item, str | int | float)
    ]
    if faults:
        raise FaultsFound(faults)
    return {str(key): str(item) for key, item in value.items()}


def _check_name(value: Any) -> str | None:
    """Names become folders."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not re.fullmatch(r"[^./\\][^/\\]*", value):
        raise fault(f"got {shortened(value)}; expected a name without slashes that does not begin with a dot")
    if not value.isprintable():
        raise fault(f"got {shortened(value)}; expected a name without line breaks and control characters")
    size = len(value.encode())
    if size > 200:
        raise fault(f"got a name of {size} bytes; expected at most 200")
    return value


Name = Annotated[str | None, pydantic.PlainValidator(_check_name)]

# What lies beside the experiments, under the root.
_TAKEN = ("mlartifacts", "mlflow.db", "mlflow.db.lock", "tensorboard")


def _check_experiment(value: Any) -> str | None:
    name = _check_name(value)
    if name is not None and name.lower() in _TAKEN:
        raise fault(f"got {name!r}, which trackers have under the root already; expected another name")
    return name


class Tracking(Section):
    """The tracking spec.

    Example:
        >>> Tracking(trackers=[{"type": "mlflow"}, {"type": "tensorboard"}]).root
        'runs'
    """

    place: ClassVar[str] = "tracking"

    root: Annotated[str, pydantic.Field(min_length=1)] = "runs"
    """The folder that everything is written under."""
    experiment: Annotated[str | None, pydantic.PlainValidator(_check_experiment)] = None
    """The name that runs are grouped by; null for the dataset's type."""
    run_name: Name = None
    """The name of the run; null for the model's type and the first digits of the spec's SHA-256."""
    tags: Annotated[Any, pydantic.PlainValidator(_check_tags)] = {}
    """Further texts to find the run by."""
    log_model_params: bool = True
    """Write the arguments of dataset and model as params."""
    log_model_metrics: bool = True
    """Write the metrics."""
    log_training_params: bool = True
    """Write the training arguments as params."""
    log_system_metrics: bool = True
    """Write the use of processor and memory."""
    log_figures: bool = True
    """Draw what was learned when training is over, where there are trackers."""
    log_bundle: bool = True
    """Keep the bundle of the trained model in the run, where it has trackers."""
    log_every_n_steps: Annotated[int, pydantic.Field(ge=0)] = 50
    """Write the loss of every n-th step under `batch/`; 0 for never."""
    trackers: Annotated[Any, pydantic.PlainValidator(partial(check_components, "tracker"))] = []
    """Where the run is shown: `{"type": "mlflow"}`, `{"type": "tensorboard"}`, `{"type": "jsonl"}`, yours."""
    on_error: Literal["warn", "raise"] = "warn"
    """What a tracker that fails does: warn and let training go on, or raise."""
