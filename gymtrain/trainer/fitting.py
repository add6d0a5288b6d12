"""Fitting a model: what all kinds have in common, and which kind there is for a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from gymtrain.data.decoding import ImageArray
from gymtrain.errors import CallbackError
from gymtrain.models.contract import Array, Learner
from gymtrain.models.metrics import Metrics
from gymtrain.models.tasks import Binary, Multiclass, no_classes
from gymtrain.models.torch_learner import TorchLearner, build_learner, without_pretraining
from gymtrain.specs import Experiment, Training
from gymtrain.tracking import Report
from gymtrain.trainer.preparation import Prepared
from gymtrain.training.best import BestWeights
from gymtrain.training.callbacks import Callbacks
from gymtrain.training.evaluation import Evaluation
from gymtrain.training.precision import parameter_dtype


class Fitting(ABC):
    """A model that is being fitted, and what has come of it so far, also when something ends it early.

    Args:
        experiment: The spec.
        data: The rows, as the preprocessors made them.
        learner: The model.
        report: Told of metrics.
        callbacks: Called at epochs and steps.

    Attributes:
        history: The metrics by name, an entry for each epoch; None where an epoch was not validated.
        best: The epoch that the weights are from, where a metric is monitored.
        samples_per_second: Rows that went through the loop in a second.
        execution: How the model is run, for people who compare times.
    """

    def __init__(
        self, experiment: Experiment, data: Prepared, learner: Learner, report: Report, callbacks: Callbacks
    ) -> None:
        self.training = experiment.model.training
        self.learner = learner
        self.history: dict[str, list[float | None]] = {}
        self.best = BestWeights(None, (), lambda name: False)
        self.samples_per_second: float | None = None
        self.execution: dict[str, Any] = {}
        self._experiment, self._data, self._report, self._callbacks = experiment, data, report, callbacks
        self._state = callbacks.state

    @abstractmethod
    def run(self) -> None:
        """Fit the model on the train part.

        Raises:
            TrainingError: The model cannot be fitted.
            SpecError: The spec asks for something that does not fit the task.
        """

    @property
    def has_learned(self) -> bool:
        """Whether there is something that a prediction could use: an epoch is over, and its weights are numbers."""
        return bool(self.history) and (self.best.epoch is not None or self._state.stop_reason != "nan")

    @property
    def has_trained(self) -> bool:
        """Whether there was something left to do."""
        return True

    @property
    def weights(self) -> str:
        """Which weights the model has: `"best"` or `"last"`."""
        return "last" if self.best.epoch is None else "best"

    def evaluate(self, part: str) -> dict[str, float]:
        """Return the loss and the metrics on one part of the rows, named `test/loss` and so on."""
        evaluation = self._evaluation(part)
        return {} if evaluation is None else named(part, evaluation(self.learner))

    def _evaluation(self, part: str, check: Callable[[], None] = lambda: None) -> Evaluation | None:
        if part not in self._data.inputs:
            return None
        inputs, targets = self._data.inputs[part], self._data.targets[part]
        finish = finisher(self._data, self.learner)
        return evaluation_of(self.learner, self.training, part, inputs, targets, finish=finish, check=check)

    def _end_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Call the callbacks, who may add metrics, and write all of them down, also if a callback fails."""
        self._state.metrics = dict(metrics)
        try:
            self._callbacks.call("on_epoch_end")
        finally:
            metrics = {name: _number(name, value) for name, value in self._state.metrics.items()}
            for name in {**self.history, **metrics}:
                values = self.history.setdefault(name, [])
                values += [None] * (epoch - 1 - len(values))
                values.append(metrics.get(name))
            self._report.epoch(epoch, metrics)


def make_learner(experiment: Experiment, data: Prepared, *, goes_on: bool = False) -> Learner:
    """Make the model of a spec, which has learned nothing yet.

    Args:
        experiment: The spec.
        data: What it is for.
        goes_on: Whether it is given the weights of a checkpoint, and needs no others.

    Raises:
        TrainingError: The constructor fails, or what it makes does not fit the task.
    """
    training = experiment.model.training
    component = experiment.model.model
    return build_learner(
        without_pretraining(component) if goes_on else component,
        data.task,
        data.inputs["train"].shape[1:],
        seed=training.seed,
        device=training.device,
        dtype=parameter_dtype(training.precision),
    )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise CallbackError(f"metrics[{name!r}]: a callback put {value!r} there; expected a number") from error


def named(part: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics under the names that they are logged under."""
    return {f"{part}/{name}": value for name, value in metrics.items()}


def evaluation_of(
    learner: Learner,
    training: Training,
    part: str,
    inputs: Array | ImageArray,
    targets: Array,
    *,
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return what evaluates a model on rows: the loss without class weights, and the metrics of the spec."""
    device = learner.device if isinstance(learner, TorchLearner) else torch.device("cpu")
    loss = learner.task.loss(training.loss, device=device) if isinstance(learner, TorchLearner) else None
    metrics = Metrics(training.metrics, learner.task, device)
    X = inputs if isinstance(inputs, ImageArray) else torch.from_numpy(inputs)
    return Evaluation(part, X, torch.from_numpy(targets), metrics, loss, device, finish, check)


def finisher(data: Prepared, learner: Learner) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what makes of pixels what a model takes, on its device; None where the rows are that already."""
    finish = data.finish
    if finish is None:
        return None
    dtype = learner.dtype if isinstance(learner, TorchLearner) else torch.float32
    # In float32 whatever the model has: pixels less their mean are small numbers, of which bfloat16 keeps two digits.
    return lambda images: finish(images.float()).to(dtype)


def class_weight_of(training: Training, data: Prepared) -> Array | None:
    """Return the weight of each class, float32 in the order of the classes; None for equal ones.

    Raises:
        SpecError: There are no classes to weigh, or one that is named does not exist.
    """
    if training.class_weight is None:
        return None
    if not isinstance(data.task, Binary | Multiclass):
        raise no_classes(data.task)
    if training.class_weight != "balanced":
        return data.task.weights(training.class_weight)
    # Few rows, tried on their own, may lack a class.
    counts = np.bincount(data.codes("train"), minlength=len(data.task.classes)).clip(min=1)
    weights: Array = (counts.sum() / (len(counts) * counts)).astype(np.float32)
    return weights
