"""Metrics of torchmetrics, told about the task, under the names that their values are logged under."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
import torchmetrics  # noqa: F401  (takes seconds: here, so that they do not count as fitting)

from gymtrain.errors import Fault, SpecError
from gymtrain.models.tasks import Task
from gymtrain.specs.components import check_component
from gymtrain.specs.model import METRIC_ALIASES, Metric


class Metrics:
    """Several metrics over the rows of one part, gathered batch by batch on the device.

    Args:
        specs: The metrics of the spec; `"auto"` is the task's usual ones.
        task: What is predicted.
        device: Where scores and targets lie.

    Raises:
        SpecError: A metric does not fit the task.
    """

    def __init__(self, specs: list[Metric] | str, task: Task, device: torch.device | str = "cpu") -> None:
        self.task = task
        chosen = [_usual(name) for name in task.metrics] if isinstance(specs, str) else specs
        self._metrics = {spec.name: _build(spec, task).to(device) for spec in chosen}

    def update(self, scores: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in a batch: scores (rows, …) and targets, as the task has them."""
        scores, targets = self.task.metric_inputs(scores, targets)
        for metric in self._metrics.values():
            metric.update(scores, targets)

    def compute(self) -> dict[str, float]:
        """Return the values over all that came in since the last call, and begin anew.

        NaN where a metric is not defined, for example R² of a single row.
        """
        values: dict[str, float] = {}
        for name, metric in self._metrics.items():
            try:
                values[name] = float(metric.compute())
            except ValueError:
                values[name] = math.nan
            metric.reset()
        return values

    def higher_is_better(self, name: str) -> bool:
        """Tell whether a larger value is a better one; the loss is the one name that is no metric."""
        return name in self._metrics and bool(self._metrics[name].higher_is_better)

    @property
    def directions(self) -> dict[str, Literal["min", "max"]]:
        """Whether less or more is better, by name, the loss among them; without those of which nobody knows it."""
        known = {name: metric.higher_is_better for name, metric in self._metrics.items()}
        return {"loss": "min", **{name: "max" if up else "min" for name, up in known.items() if up is not None}}

    @property
    def names(self) -> list[str]:
        """The names of the metrics."""
        return list(self._metrics)


def _usual(name: str) -> Metric:
    return Metric(name, check_component("metric", METRIC_ALIASES.get(name, {"type": name})))


def _build(spec: Metric, task: Task) -> Any:
    is_regression = spec.component.target.module.startswith("torchmetrics.regression")  # type: ignore[union-attr]
    if is_regression == task.has_probabilities:
        kind = "numbers" if is_regression else "classes"
        raise SpecError(
            [Fault("model.training.metrics", f"{spec.name!r} is a metric of {kind}, and the task is {task.name}")]
        )
    try:
        metric = spec.component.build(**task.metric_arguments())
        _try(metric, task)
    except Exception as error:
        message = f"{spec.name!r} does not give a number for a {task.name} task: {error}"
        raise SpecError([Fault("model.training.metrics", message)]) from error
    return metric


def _try(metric: Any, task: Task) -> None:
    """Run a metric on a few made-up rows: only then does torchmetrics tell that it does not fit."""
    outputs = torch.linspace(0.1, 0.9, 8 * task.output_size).reshape(8, task.output_size)
    rows = torch.arange(8)
    if task.name == "regression":
        targets = outputs.flip(0)
    elif task.name == "multilabel":
        targets = (rows[:, None] + torch.arange(task.output_size)) % 2
    else:
        targets = rows % len(task.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is missing among so few rows
        metric.update(*task.metric_inputs(task.activate(outputs), targets))
        float(metric.compute())
    metric.reset()
