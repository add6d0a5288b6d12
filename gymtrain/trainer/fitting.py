"""Fitting a model: runs the loop, and in its `for` body logs, calls the callbacks, keeps the best and stops."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.errors import Fault, GymtrainError, SpecError, TrainingError, did_you_mean
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
from gymtrain.training.loop import EpochEnd, StepEnd, fit
from gymtrain.training.optimizers import build_optimizer
from gymtrain.training.rehearsal import rehearse
from gymtrain.training.scheduled_values import ScheduledValues
from gymtrain.training.stopping import EarlyStopping


class Fitting:
    """A model that is being fitted, and what has come of it so far, also when something ends it early.

    Args:
        experiment: The spec.
        data: The rows, as the preprocessors made them.
        report: Told of metrics.
        callbacks: Called at epochs and steps.
        resumed: Where an earlier training stood, as `state_dict` returned it; None to begin.
        checkpoint: Called with this object where the spec asks for a checkpoint.

    Attributes:
        learner: The model.
        history: The metrics of each epoch, by name.
        best: The epoch that the weights are from, where a metric is monitored.
        samples_per_second: Rows that went through the loop in a second.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Prepared,
        report: Report,
        callbacks: Callbacks,
        resumed: dict[str, Any] | None = None,
        checkpoint: Callable[[Fitting], None] | None = None,
    ) -> None:
        self.training = experiment.model.training
        self.learner = build_learner(
            experiment.model.model,
            data.task,
            data.inputs["train"].shape[1:],
            seed=self.training.seed,
            device=self.training.device,
        )
        self.history: dict[str, list[float]] = {}
        self.best = BestWeights(None, (), lambda name: False)
        self.samples_per_second: float | None = None
        self._experiment, self._data, self._report, self._callbacks = experiment, data, report, callbacks
        self._state = callbacks.state
        self._resumed, self._checkpoint = resumed, checkpoint
        # What has a state that a resumed training needs, once there is a torch model to fit.
        self._stateful: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stands at the end of an epoch: numbers, text and tensors."""
        parts = {name: part.state_dict() for name, part in self._stateful.items()}
        counts = {"epoch": self._state.epoch, "step": self._state.step}
        # In pairs, because JSON is written with its keys sorted.
        history = [[name, values] for name, values in self.history.items()]
        return {**counts, "history": history, "data": self._data.digest("train"), "parts": parts}

    def _resume(self, state: dict[str, Any]) -> tuple[int, int]:
        """Take up where an earlier training stood; return the epochs and the steps that are over.

        Raises:
            TrainingError: It was on other rows.
        """
        if state["data"] != self._data.digest("train"):
            raise TrainingError("resume: the rows of the train part are not those that the checkpoint was trained on")
        for name, part in self._stateful.items():
            part.load_state_dict(state["parts"][name])
        self.history = {name: list(values) for name, values in state["history"]}
        return state["epoch"], state["step"]

    def run(self, augmentation: Augmentation | None) -> None:
        """Fit the model on the train part.

        Args:
            augmentation: Random changes of the rows.

        Raises:
            TrainingError: The model cannot be fitted.
            SpecError: The spec asks for something that does not fit the task.
        """
        if isinstance(self.learner, TorchLearner):
            with seeded(self.training.seed, self.learner.device):
                self._fit_torch(self.learner, augmentation)
            return
        assert isinstance(self.learner, LibraryLearner)
        if augmentation is not None:
            warnings.warn("dataset.data_augmentors change batches, and this model takes all rows at once", stacklevel=2)
        with seeded(self.training.seed):
            self._fit_library(self.learner)

    @property
    def has_learned(self) -> bool:
        """Whether there is something that a prediction could use: an epoch is over, and its weights are numbers."""
        return bool(self.history) and (self.best.epoch is not None or self._state.stop_reason != "nan")

    @property
    def weights(self) -> str:
        """Which weights the model has: `"best"` or `"last"`."""
        return "last" if self.best.epoch is None else "best"

    def _fit_torch(self, learner: TorchLearner, augmentation: Augmentation | None) -> None:
        training, data, state = self.training, self._data, self._state
        batches = Batches(
            torch.from_numpy(data.inputs["train"]),
            torch.from_numpy(data.targets["train"]),
            batch_size=training.batch_size,
            device=learner.device,
            seed=self._experiment.dataset.seed,
            shuffle=self._experiment.dataset.shuffle,
            augmentation=augmentation,
        )
        loss_of = data.task.loss(training.loss, _class_weight(training, data), learner.device)
        rehearse(learner, loss_of, batches, training.accumulate)
        optimizer = build_optimizer(training.optimizer, learner.module, learner.device)
        evaluate = self._evaluation("val")
        metrics = evaluate.metrics if evaluate else Metrics([], data.task)
        self.best = _best_weights(training, metrics, evaluate)

        def validate() -> dict[str, float]:
            return {} if evaluate is None else {f"val/{name}": value for name, value in evaluate(learner).items()}

        steps_per_epoch = math.ceil(len(batches) / training.accumulate)
        state.num_epochs, state.num_steps = training.epochs, _planned_steps(training, steps_per_epoch)
        monitor = self.best.monitor or ("train/loss" if evaluate is None else "val/loss")
        values = ScheduledValues(
            {name: component.build() for name, component in (training.schedule or {}).items()},
            optimizer,
            epochs=math.ceil(state.num_steps / steps_per_epoch),
            steps=state.num_steps,
            monitor=monitor,
            higher_is_better=lambda name: metrics.higher_is_better(name.partition("/")[2]),
        )
        stopping = _stopping(training, monitor, metrics, evaluate)
        self._stateful = {
            "module": learner.module,
            "optimizer": optimizer,
            "best": self.best,
            "schedule": values,
            "callbacks": self._callbacks,
            **({} if stopping is None else {"stopping": stopping}),
        }
        start = (0, 0) if self._resumed is None else self._resume(self._resumed)
        state.epoch, state.step = start
        if stopping is not None and state.stop_reason is None:
            state.stop_reason = stopping.verdict()  # a training that was over is not trained on
        events = fit(
            learner.module,
            batches,
            loss_of,
            optimizer,
            validate,
            epochs=training.epochs,
            max_steps=training.max_steps,
            seed=training.seed,
            start=start,
            accumulate=training.accumulate,
            clip_grad_norm=training.clip_grad_norm,
            should_stop=lambda: state.stop_reason is not None,
        )
        try:
            self._follow(_explained(events, state), batches, values, stopping)
        finally:
            # After Ctrl-C too: what was learned until then is kept.
            self.best.restore(learner.module)
            learner.module.eval()
        if state.stop_reason is None:
            state.stop("max_steps" if state.step == training.max_steps else "epochs")

    def _follow(
        self,
        events: Iterator[StepEnd | EpochEnd],
        batches: Batches,
        values: ScheduledValues,
        stopping: EarlyStopping | None,
    ) -> None:
        """Log, change what is scheduled, call the callbacks and keep the best, while the loop goes on."""
        assert isinstance(self.learner, TorchLearner)
        state, callbacks = self._state, self._callbacks
        steps, speed = (
            _StepLog(self._experiment.tracking.log_every_n_steps, self._report),
            _Speed(len(batches.inputs), self.training.batch_size * self.training.accumulate),
        )
        values.set(state.epoch, state.step)
        if state.step < state.num_steps and state.stop_reason is None:
            state.epoch += 1
            callbacks.call("on_epoch_begin")
        try:
            for event in events:
                state.step = event.step
                if isinstance(event, StepEnd):
                    steps.add(event)
                    if values.by_step and event.step < state.num_steps:
                        values.set(event.epoch - 1, event.step)
                    callbacks.call("on_step_end")
                    continue
                steps.flush()
                self.samples_per_second = speed.of(event)
                self.best.update(event.epoch, event.metrics, self.learner.module)
                used = values.at(event.epoch - 1, event.step - 1)
                self._end_epoch(event._replace(metrics=event.metrics | used))
                if stopping is not None:
                    stopping.on_epoch_end(state)
                values.observe(event.metrics)
                values.set(event.epoch, event.step)
                every = self.training.checkpoint
                if every is not None and self._checkpoint is not None and event.epoch % every.every_epochs == 0:
                    self._checkpoint(self)
                if event.step < state.num_steps and state.stop_reason is None:
                    state.epoch += 1
                    callbacks.call("on_epoch_begin")
        finally:
            steps.flush()

    def _end_epoch(self, event: EpochEnd) -> None:
        self._state.metrics = dict(event.metrics)
        for name, value in event.metrics.items():
            self.history.setdefault(name, []).append(value)
        self._report.epoch(event.epoch, event.metrics)
        self._callbacks.call("on_epoch_end")

    def _fit_library(self, learner: LibraryLearner) -> None:
        training, data, state = self.training, self._data, self._state
        defaults, meant = Training(), {"metrics", "validation_split", "class_weight", "seed"}
        unused = [
            name
            for name in Training.model_fields
            if name not in meant and _plain(getattr(training, name)) != _plain(getattr(defaults, name))
        ]
        if unused:
            warnings.warn(
                f"model.training: {', '.join(unused)} {'has' if len(unused) == 1 else 'have'} no meaning for a model "
                f"that fits all by itself",
                stacklevel=2,
            )
        weights = _class_weight(training, data)
        # Made before the fit, which may take hours: a metric that does not fit the task is refused here.
        evaluations = {part: self._evaluation(part) for part in ("train", "val")}
        codes = data.codes("train")
        state.num_epochs, state.epoch = 1, 1
        self._callbacks.call("on_epoch_begin")
        learner.fit(data.inputs["train"], codes, None if weights is None else weights[codes])
        metrics = {
            f"{part}/{name}": value
            for part, evaluate in evaluations.items()
            if evaluate is not None
            for name, value in evaluate(learner).items()
        }
        self._end_epoch(EpochEnd(1, 0, metrics, 0.0))
        state.stop("fitted")

    def _evaluation(self, part: str) -> Evaluation | None:
        if part not in self._data.inputs:
            return None
        return evaluation_of(self.learner, self.training, self._data.inputs[part], self._data.targets[part])

    def evaluate(self, part: str) -> dict[str, float]:
        """Return the loss and the metrics on one part of the rows, named `test/loss` and so on."""
        evaluation = self._evaluation(part)
        return (
            {} if evaluation is None else {f"{part}/{name}": value for name, value in evaluation(self.learner).items()}
        )


def evaluation_of(learner: Learner, training: Training, inputs: Array, targets: Array) -> Evaluation:
    """Return what evaluates a model on rows: the loss without class weights, and the metrics of the spec."""
    device = learner.device if isinstance(learner, TorchLearner) else torch.device("cpu")
    loss = learner.task.loss(training.loss, device=device) if isinstance(learner, TorchLearner) else None
    metrics = Metrics(training.metrics, learner.task, device)
    return Evaluation(torch.from_numpy(inputs), torch.from_numpy(targets), metrics, loss, device)


def _explained(events: Iterator[StepEnd | EpochEnd], state: TrainingState) -> Iterator[StepEnd | EpochEnd]:
    """Say where it was, when the model, the loss or a metric fails in the middle.

    Raises:
        TrainingError: With the cause chained.
    """
    try:
        yield from events
    except GymtrainError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise TrainingError(f"training failed after step {state.step}, in epoch {state.epoch}: {error}") from error


def _stopping(training: Training, monitor: str, metrics: Metrics, evaluate: Evaluation | None) -> EarlyStopping | None:
    spec = training.early_stopping
    if spec is None:
        return None
    name = monitor if spec.monitor == "auto" else spec.monitor
    known = _known_metrics(metrics, evaluate)
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise SpecError([Fault("model.training.early_stopping.monitor", f"there is no metric {name!r}{hint}")])
    mode = spec.mode or ("max" if metrics.higher_is_better(name.partition("/")[2]) else "min")
    options = spec.model_dump(exclude={"monitor", "mode"})
    return EarlyStopping(name, mode, **options)


def _known_metrics(metrics: Metrics, evaluate: Evaluation | None) -> list[str]:
    return ["train/loss", *([] if evaluate is None else ["val/loss", *(f"val/{name}" for name in metrics.names)])]


def _best_weights(training: Training, metrics: Metrics, evaluate: Evaluation | None) -> BestWeights:
    known = _known_metrics(metrics, evaluate)
    monitor = training.monitor
    if monitor == "auto":
        monitor = None if evaluate is None else "val/loss"
    return BestWeights(monitor, known, metrics.higher_is_better)


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

    SECONDS_BETWEEN_FETCHES = 2.0

    def __init__(self, every: int, report: Report) -> None:
        self._every, self._report = every, report
        self._losses: list[torch.Tensor] = []
        self._when: list[tuple[int, int, float]] = []

    def add(self, event: StepEnd) -> None:
        if self._every and event.step % self._every == 0:
            now = time.time()
            self._losses.append(event.loss.detach())
            self._when.append((event.step, event.epoch, now))
            if now - self._when[0][2] > self.SECONDS_BETWEEN_FETCHES:
                self.flush()

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

    def __init__(self, rows: int, rows_per_step: int) -> None:
        self._rows_per_epoch, self._rows_per_step = rows, rows_per_step
        self._step = self._rows = 0
        self._seconds = 0.0

    def of(self, event: EpochEnd) -> float:
        """Return the mean over the epochs so far."""
        steps, self._step = event.step - self._step, event.step
        self._rows += min(steps * self._rows_per_step, self._rows_per_epoch)
        self._seconds += event.seconds
        return self._rows / self._seconds
