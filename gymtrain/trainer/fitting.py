"""Fitting a model: runs the loop, and in its `for` body logs, calls the callbacks, keeps the best and stops."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.errors import TrainingError
from gymtrain.models.contract import Array, Learner, LibraryLearner
from gymtrain.models.metrics import Metrics
from gymtrain.models.seeding import seeded
from gymtrain.models.tasks import Binary, Multiclass, no_classes
from gymtrain.models.torch_learner import TorchLearner, build_learner
from gymtrain.specs import Experiment, Training
from gymtrain.tracking import Report
from gymtrain.trainer.preparation import Prepared
from gymtrain.training.batches import Batches
from gymtrain.training.best import BestWeights
from gymtrain.training.callbacks import Callbacks, TrainingState
from gymtrain.training.evaluation import Evaluation
from gymtrain.training.loop import EpochEnd, Loss, StepEnd, check_finite, fit
from gymtrain.training.optimizers import build_optimizer


@dataclass
class Fitted:
    """A model that has learned, and how that went.

    Args:
        learner: The model.
        best: Which epoch the weights are from, where a metric was monitored.
        stop_reason: Why training ended.
        samples_per_second: Rows that went through the loop in a second.
    """

    learner: Learner
    best: dict[str, Any] | None
    stop_reason: str
    samples_per_second: float | None = None


def fit_model(
    experiment: Experiment,
    data: Prepared,
    augmentation: Augmentation | None,
    report: Report,
    callbacks: Callbacks,
    history: dict[str, list[float]],
) -> Fitted:
    """Make the model of the spec and fit it on the train part.

    Args:
        experiment: The spec.
        data: The rows, as the preprocessors made them.
        augmentation: Random changes of the train part.
        report: Told of metrics.
        callbacks: Called at epochs and steps.
        history: Filled with the metrics of each epoch, by name, so that they are there when training fails too.
    """
    training = experiment.model.training
    learner = build_learner(
        experiment.model.model, data.task, data.inputs["train"].shape[1:], seed=training.seed, device=training.device
    )
    if isinstance(learner, TorchLearner):
        with seeded(training.seed, learner.device):
            return _fit_torch(learner, experiment, data, augmentation, report, callbacks, history)
    assert isinstance(learner, LibraryLearner)
    if augmentation is not None:
        warnings.warn("dataset.data_augmentors change batches, and this model takes all rows at once", stacklevel=2)
    with seeded(training.seed):
        return _fit_library(learner, training, data, report, callbacks.state, history)


def evaluation_of(learner: Learner, training: Training, inputs: Array, targets: Array) -> Evaluation:
    """Return what evaluates a model on rows: the loss without class weights, and the metrics of the spec."""
    device = learner.device if isinstance(learner, TorchLearner) else torch.device("cpu")
    loss = learner.task.loss(training.loss, device=device) if isinstance(learner, TorchLearner) else None
    metrics = Metrics(training.metrics, learner.task, device)
    return Evaluation(torch.from_numpy(inputs), torch.from_numpy(targets), metrics, loss, device)


def _fit_torch(
    learner: TorchLearner,
    experiment: Experiment,
    data: Prepared,
    augmentation: Augmentation | None,
    report: Report,
    callbacks: Callbacks,
    history: dict[str, list[float]],
) -> Fitted:
    training, state = experiment.model.training, callbacks.state
    batches = _batches(learner, experiment, data, augmentation)
    loss_of = data.task.loss(training.loss, _class_weight(training, data), learner.device)
    _rehearse(learner, loss_of, batches)
    optimizer = build_optimizer(training.optimizer, learner.module, learner.device)
    evaluate = (
        evaluation_of(learner, training, data.inputs["val"], data.targets["val"]) if "val" in data.inputs else None
    )
    best = _best_weights(training, data)

    def validate() -> dict[str, float]:
        return {} if evaluate is None else {f"val/{name}": value for name, value in evaluate(learner).items()}

    events = fit(
        learner.module,
        batches,
        loss_of,
        optimizer,
        validate,
        epochs=training.epochs,
        max_steps=training.max_steps,
        seed=training.seed,
    )
    state.num_epochs, state.num_steps = training.epochs, _planned_steps(training, len(batches))
    steps = _StepLog(experiment.tracking.log_every_n_steps, report)
    speed = _Speed(batches)
    state.epoch = 1
    callbacks.call("on_epoch_begin")
    try:
        for event in events:
            state.step = event.step
            if isinstance(event, StepEnd):
                steps.add(event)
                callbacks.call("on_step_end")
            else:
                steps.flush()
                speed.add(event)
                _keep(event, state, history)
                best.update(event.epoch, event.metrics, learner.module)
                report.epoch(event.epoch, event.metrics)
                callbacks.call("on_epoch_end")
            if state.stop_reason is not None:
                if isinstance(event, StepEnd):
                    check_finite(event.loss.item(), event.step)  # the loop looks at whole blocks of steps
                break
            if isinstance(event, EpochEnd) and event.step < state.num_steps:
                state.epoch += 1
                callbacks.call("on_epoch_begin")
    finally:
        steps.flush()
    best.restore(learner.module)
    learner.module.eval()
    reason = state.stop_reason or ("max_steps" if state.step == training.max_steps else "epochs")
    return Fitted(learner, best.to_dict(), reason, speed.samples_per_second)


def _batches(
    learner: TorchLearner, experiment: Experiment, data: Prepared, augmentation: Augmentation | None
) -> Batches:
    return Batches(
        torch.from_numpy(data.inputs["train"]),
        torch.from_numpy(data.targets["train"]),
        batch_size=experiment.model.training.batch_size,
        device=learner.device,
        seed=experiment.dataset.seed,
        shuffle=experiment.dataset.shuffle,
        augmentation=augmentation,
    )


def _rehearse(learner: TorchLearner, loss_of: Loss, batches: Batches) -> None:
    """Try what would fail in the middle of the first epoch, and say what is wrong in words of the spec.

    Raises:
        TrainingError: The module or the loss fails, or the last batch is too small for the module.
        TaskError: The module's outputs do not have the shape that the task needs.
    """
    inputs, targets = (rows[:2].to(learner.device) for rows in (batches.inputs, batches.targets))
    outputs = learner.check_outputs(inputs)
    try:
        loss = loss_of(outputs, targets)
    except Exception as error:
        raise TrainingError(f"model.training.loss: it fails on outputs and targets of two rows: {error}") from error
    if not isinstance(loss, torch.Tensor) or loss.shape != ():
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TrainingError(
            f"model.training.loss: it returned {got}; expected a tensor of shape (), the mean over rows"
        )
    if len(batches.inputs) % batches.batch_size != 1 and batches.batch_size != 1:
        return
    try:
        # On a copy: in training mode a module may change its buffers.
        copy.deepcopy(learner.module).train()(inputs[:1])
    except ValueError as error:
        raise TrainingError(
            f"model.training.batch_size: {batches.batch_size} leaves {len(batches.inputs)} rows with a batch of one, "
            f"which {type(learner.module).__name__} cannot train on ({error}); choose another batch_size"
        ) from error


def _keep(event: EpochEnd, state: TrainingState, history: dict[str, list[float]]) -> None:
    state.metrics = dict(event.metrics)
    for name, value in event.metrics.items():
        history.setdefault(name, []).append(value)


def _best_weights(training: Training, data: Prepared) -> BestWeights:
    metrics = Metrics(training.metrics, data.task)
    known = ["train/loss"]
    if "val" in data.inputs:
        known += ["val/loss", *(f"val/{name}" for name in metrics.names)]
    monitor = training.monitor
    if monitor == "auto":
        monitor = "val/loss" if "val" in data.inputs else None
    return BestWeights(monitor, known, metrics.higher_is_better)


def _fit_library(
    learner: LibraryLearner,
    training: Training,
    data: Prepared,
    report: Report,
    state: TrainingState,
    history: dict[str, list[float]],
) -> Fitted:
    defaults = Training()
    unused = [
        name
        for name in ("epochs", "max_steps", "batch_size", "optimizer", "loss", "monitor")
        if _plain(getattr(training, name)) != _plain(getattr(defaults, name))
    ]
    if unused:
        warnings.warn(
            f"model.training: {', '.join(unused)} {'has' if len(unused) == 1 else 'have'} no meaning for a model that "
            f"fits all by itself",
            stacklevel=2,
        )
    weights = _class_weight(training, data)
    # Made before the fit, which may take hours: a metric that does not fit the task is refused here.
    evaluations = {
        part: evaluation_of(learner, training, data.inputs[part], data.targets[part])
        for part in ("train", "val")
        if part in data.inputs
    }
    codes = data.codes("train")
    learner.fit(data.inputs["train"], codes, None if weights is None else weights[codes])
    metrics = {
        f"{part}/{name}": value for part, evaluate in evaluations.items() for name, value in evaluate(learner).items()
    }
    state.num_epochs, state.epoch = 1, 1
    _keep(EpochEnd(1, 0, metrics, 0.0), state, history)
    report.epoch(1, metrics)
    return Fitted(learner, None, "fitted")


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _planned_steps(training: Training, steps_per_epoch: int) -> int:
    by_epochs = training.epochs * steps_per_epoch if training.epochs is not None else None
    return min(steps for steps in (by_epochs, training.max_steps) if steps is not None)


def _class_weight(training: Training, data: Prepared) -> Array | None:
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
    counts = np.bincount(data.codes("train"), minlength=len(data.task.classes))
    weights: Array = (counts.sum() / (len(counts) * counts)).astype(np.float32)
    return weights


class _StepLog:
    """The losses of every n-th step, fetched from the device together: one alone would wait for it."""

    def __init__(self, every: int, report: Report) -> None:
        self._every, self._report = every, report
        self._losses: list[torch.Tensor] = []
        self._when: list[tuple[int, int, float]] = []

    def add(self, event: StepEnd) -> None:
        if self._every and event.step % self._every == 0:
            self._losses.append(event.loss.detach())
            self._when.append((event.step, event.epoch, time.time()))

    def flush(self) -> None:
        if self._losses:
            losses = torch.stack(self._losses).tolist()
            self._report.steps(
                [(step, epoch, loss, when) for (step, epoch, when), loss in zip(self._when, losses, strict=True)]
            )
            self._losses.clear()
            self._when.clear()


class _Speed:
    """How many rows a second went through the epochs that are over."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._step = self._rows = 0
        self._seconds = 0.0

    def add(self, event: EpochEnd) -> None:
        steps, self._step = event.step - self._step, event.step
        self._rows += min(steps * self._batches.batch_size, len(self._batches.inputs))
        self._seconds += event.seconds

    @property
    def samples_per_second(self) -> float | None:
        return self._rows / self._seconds if self._seconds else None
