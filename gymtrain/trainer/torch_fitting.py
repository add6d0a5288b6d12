"""Fitting a torch module: runs the loop, and in its `for` body logs, calls the callbacks, keeps the best and stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.decoding import ImageArray
from gymtrain.errors import NonFiniteLossError, TrainingError
from gymtrain.models.metrics import Metrics
from gymtrain.models.seeding import deterministic, random_state, seeded, set_random_state
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.models.torch_model import TorchModel, call_own
from gymtrain.specs import Experiment, Training
from gymtrain.tracking import Report
from gymtrain.trainer.checkpoints import Resumed
from gymtrain.trainer.failures import blamed_on, explained
from gymtrain.trainer.fitting import Fitting, class_weight_of, finisher, named
from gymtrain.trainer.interruption import Interruption
from gymtrain.trainer.preparation import Prepared
from gymtrain.trainer.sampling import order_of
from gymtrain.trainer.starting import start_from
from gymtrain.trainer.step_log import Speed, StepLog
from gymtrain.trainer.watching import best_weights, early_stopping, warn_of_idle_settings
from gymtrain.training.averaging import Average
from gymtrain.training.batches import Batches
from gymtrain.training.callbacks import Callbacks
from gymtrain.training.compiling import Step, compiled
from gymtrain.training.freezing import Freezing
from gymtrain.training.loop import EpochEnd, Plan, StepEnd, ValidationEnd, fit
from gymtrain.training.optimizers import build_optimizers
from gymtrain.training.position import Position, check_weights
from gymtrain.training.precision import gradient_scaler, in_float32, with_precision
from gymtrain.training.rehearsal import rehearse, rehearse_evaluation
from gymtrain.training.scheduled_values import ScheduledValues
from gymtrain.training.update import Update

Event = StepEnd | ValidationEnd | EpochEnd


class TorchFitting(Fitting):
    """A torch module that is fitted by the loop.

    Args:
        experiment: The spec.
        data: The rows, as the preprocessors made them.
        learner: The model.
        report: Told of metrics.
        callbacks: Called at epochs and steps.
        augmentation: Random changes of the rows; None for none.
        interruption: Signals, which are acted on between two steps.
        write_checkpoint: Called with this object where one is due.
        resumed: Where an earlier training stood; None to begin.
    """

    learner: TorchLearner

    def __init__(
        self,
        experiment: Experiment,
        data: Prepared,
        learner: TorchLearner,
        report: Report,
        callbacks: Callbacks,
        *,
        augmentation: Augmentation | None,
        interruption: Interruption,
        write_checkpoint: Callable[[TorchFitting], None],
        resumed: Resumed | None,
    ) -> None:
        super().__init__(experiment, data, learner, report, callbacks)
        self._augmentation, self._interruption = augmentation, interruption
        self._write_checkpoint, self._resumed = write_checkpoint, resumed
        self.position = Position()
        self._first_step = 0
        self._written_down: tuple[int, int] | None = None
        self._steps = StepLog(experiment.tracking.log_every_n_steps, report)

    def run(self) -> None:
        """Fit the module, and leave it with the weights that are kept, in evaluation mode."""
        with (
            seeded(self.training.seed, self.learner.device),
            deterministic(self.training.deterministic),
            self._interruption.waiting(),
        ):
            self._assemble()
            if self._resumed is not None:
                with blamed_on(self._resumed.path):
                    self._take_up(self._resumed)
                self._first_step = self.position.step
            try:
                self._follow()
            except BaseException as error:
                self._write_down_after(error)
                raise
            finally:
                self._batches.close()
                # After Ctrl-C too: what was learned until then is kept.
                if self._update.average is not None:
                    self.learner.module.load_state_dict(self._update.average.current().state_dict())
                self.best.restore(self.learner.module)
                self.learner.module.eval()
        if self._state.stop_reason is None:
            self._state.stop("max_steps" if self._state.step == self.training.max_steps else "epochs")

    def _assemble(self) -> None:
        """Make everything that takes part, and try it on two rows."""
        training, data, learner = self.training, self._data, self.learner
        started = None
        if training.start_from is not None and self._resumed is None:
            started = start_from(training.start_from, learner)
        self._freezing = Freezing(learner.module, training.freeze, training.unfreeze_at_epoch)
        if training.unfreeze_at_epoch is None:
            self._freezing.begin_epoch(1)
        weights = data.weights.get("train") if training.sampling != "weighted" else None
        mixes = self._augmentation is not None and self._augmentation.mixes
        self._batches = Batches(
            _inputs(data, learner),
            torch.from_numpy(data.task.shares(data.targets["train"]) if mixes else data.targets["train"]),
            order_of(data, self._experiment.dataset, training),
            batch_size=training.batch_size,
            device=learner.device,
            weights=None if weights is None else torch.from_numpy(weights),
            augmentation=self._augmentation,
            finish=finisher(data, learner),
            workers=training.workers,
            worker_timeout=training.worker_timeout,
        )
        self._plan = _plan(training)
        class_weight = class_weight_of(training, data)
        loss_of = data.task.loss(training.loss, class_weight, learner.device, weighted=weights is not None, mixed=mixes)
        loss_of = in_float32(loss_of, training.precision)
        optimizers = build_optimizers(training.optimizer, learner.module, learner.device, training.lr_multipliers or {})
        self._freezing.begin_epoch(1)  # what is learned later has its place in the optimizer from the beginning
        average = None if training.ema is None else Average(learner.module, training.ema.decay, training.ema.warmup)
        self._update = Update(
            optimizers,
            clip_grad_norm=training.clip_grad_norm,
            clip_grad_value=training.clip_grad_value,
            scaler=gradient_scaler(training.precision, learner.device),
            average=average,
        )
        self._values = self._scheduled(optimizers)
        known = rehearse(
            learner,
            loss_of,
            self._batches,
            training.accumulate,
            self._values.step_values,
            train_mode=self._freezing.train,
        )
        self._watch([f"train/{name}" for name in known])

        def step_with(values: Mapping[str, Any]) -> Step:
            return with_precision(learner.make_step(loss_of, values), training.precision, learner.device)

        values = self._values.step_values
        self._training_step = compiled(step_with, values) if training.compile else step_with(values)
        self.execution = {
            "device": str(learner.device),
            "threads": torch.get_num_threads(),
            "precision": training.precision,
            "compile": training.compile,
            "optimizers": {name: _described(each) for name, each in optimizers.items()},
            **({} if started is None else {"started_from": started}),
        }

    def _watch(self, known: list[str]) -> None:
        """Make what looks at metrics, of which those of the train part are known."""
        training, learner = self.training, self.learner
        self._evaluate = self._evaluation("val", self._interruption.check)
        metrics = self._evaluate.metrics if self._evaluate else Metrics(training.metrics, learner.task)
        if self._evaluate is not None:
            known = known + [f"val/{name}" for name in rehearse_evaluation(learner, self._evaluate)]
        test = self._evaluation("test") if isinstance(learner.module, TorchModel) else None
        if test is not None:  # its step would fail when all is done
            rehearse_evaluation(learner, test)
        usual = "val/loss" if "val/loss" in known else None
        self.best = best_weights(training, usual, metrics, known, learner.module)
        warn_of_idle_settings(training, self.best, is_validated=self._evaluate is not None)
        monitor = self.best.monitor or usual or "train/loss"
        self._values.watch(monitor, known, lambda name: metrics.higher_is_better(name.partition("/")[2]))
        self._stopping = early_stopping(training, monitor, metrics, known)
        self._report.directions(self.best.monitor, self.best.mode, metrics.directions)

    def _scheduled(self, optimizers: dict[str, torch.optim.Optimizer]) -> ScheduledValues:
        training, state = self.training, self._state
        per_epoch = training.steps_per_epoch or math.ceil(len(self._batches) / training.accumulate)
        state.num_epochs, state.num_steps = training.epochs, _planned_steps(training, per_epoch)
        values = ScheduledValues(
            {name: component.build() for name, component in (training.schedule or {}).items()},
            list(optimizers.values()),
            epochs=math.ceil(state.num_steps / per_epoch),
            steps=state.num_steps,
        )
        first = next(iter(optimizers.values()))
        state.values = {"lr": first.param_groups[0]["lr"]} if "lr" in first.defaults else {}
        return values

    @property
    def has_trained(self) -> bool:
        """Whether there was a step left to take."""
        return self._resumed is None or self.position.step > self._first_step

    @property
    def kept(self) -> TorchLearner:
        """The model as it is validated and kept: with averaged weights, where there is an average."""
        average = self._update.average
        return self.learner if average is None else self.learner.with_module(average.current())

    def _follow(self) -> None:
        """Go through the events of the loop."""
        state, position, values = self._state, self.position, self._values
        rows = self.training.batch_size * self.training.accumulate
        per_epoch = self.training.steps_per_epoch
        speed = Speed(self._batches.num_rows if per_epoch is None else rows * per_epoch, rows, position.step)
        state.values |= values.set(position.epochs, position.step)
        self._begin_epoch()
        events = fit(
            self.learner.module,
            self._training_step,
            self._batches,
            self._update,
            self._validate,
            self._plan,
            seed=self.training.seed,
            position=position,
            should_stop=lambda: state.stop_reason is not None,
            train_mode=self._freezing.train,
        )
        try:
            for event in explained(events, state, self.training.batch_size):
                state.step = event.step
                if isinstance(event, StepEnd):
                    state.loss = event.loss
                    self._steps.add(event, position.steps_in_epoch)
                    state.data_seconds = self._batches.seconds
                    self._callbacks.call("on_step_end")
                    if values.by_step and event.step < state.num_steps:
                        state.values |= values.set(event.epoch - 1, event.step)
                elif isinstance(event, ValidationEnd):
                    self._end_validation(event)
                else:
                    self._steps.flush()
                    self.samples_per_second = speed.of(event)
                    self._end(event)
                self._between_steps(event)
        finally:
            self._steps.flush()
            self._tell_values()

    def _between_steps(self, event: Event) -> None:
        """Do what was asked for, now that all of the state belongs together."""
        state = self._state
        self._tell_values()
        if state.wants_checkpoint:
            self._steps.flush()  # a training that goes on from there does not tell of them
            self._write_down()
        if self._interruption.received is not None:
            self._interruption.check()
        if isinstance(event, EpochEnd):
            self._begin_epoch()

    def _tell_values(self) -> None:
        if self._state.logged:
            self._report.values(self._state.logged)
            self._state.logged.clear()

    def _begin_epoch(self) -> None:
        state, position = self._state, self.position
        if not self._plan.is_over(position) and state.stop_reason is None:
            state.epoch = position.epochs + 1
            self._freezing.begin_epoch(state.epoch)
            if position.steps_in_epoch == 0:  # one that is resumed had begun
                self._callbacks.call("on_epoch_begin")

    def _validate(self) -> dict[str, float]:
        if self._evaluate is None:
            return {}
        # What a model draws in its own validation changes nothing of what it learns.
        here, device = random_state(self.learner.device), self.learner.device
        try:
            return named("val", self._evaluate(self.kept))
        finally:
            set_random_state(here, device)

    def _end_validation(self, event: ValidationEnd) -> None:
        state = self._state
        self.best.update(event.epoch, event.metrics, self.kept.module)
        state.metrics = state.metrics | event.metrics
        state.logged += [(name, value, event.step) for name, value in event.metrics.items()]
        self._callbacks.call("on_validation_end")

    def _end(self, event: EpochEnd) -> None:
        """Take in an epoch: first what a resumed training goes on with, then what is of the user's."""
        state, module = self._state, self.learner.module
        used = self._values.at(event.epoch - 1, event.step - 1)
        self.best.update(event.epoch, event.metrics, self.kept.module)
        state.metrics = event.metrics | used
        if self._evaluate is not None:
            state.was_validated = any(name.startswith("val/") for name in event.metrics)
        if self._stopping is not None:
            self._stopping.on_epoch_end(state)
        if isinstance(module, TorchModel) and call_own(module, "should_stop", event.metrics):
            state.stop("model")
        self._values.observe(event.metrics)
        state.values |= self._values.set(event.epoch, event.step)
        self.position.is_whole = True
        try:
            if state.was_validated:
                self._callbacks.call("on_validation_end")
        finally:
            self._end_epoch(event.epoch, state.metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stands, between two steps: numbers, text and tensors.

        Raises:
            NonFiniteLossError: A loss or a weight is NaN or infinite.
        """
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        check_weights(self.learner.module, self.position.step)
        return {
            "epoch": self.position.epochs + (self.position.steps_in_epoch > 0),
            "step": self.position.step,
            "is_epoch_end": self.position.steps_in_epoch == 0,
            # In pairs, because JSON is written with its keys sorted.
            "history": [[name, values] for name, values in self.history.items()],
            "stop_reason": self._state.stop_reason,
            "metrics": dict(self._state.metrics),
            "was_validated": self._state.was_validated,
            "module": self._unbundled(),
            "data": self._data.digest("train"),
            "random": random_state(self.learner.device),
            "parts": parts,
        }

    def _unbundled(self) -> dict[str, Any]:
        """Return the tensors of the module that the bundle's weights do not hold: all, where those are averages."""
        bundled = self.learner.final_state() if self._update.average is None else {}
        return {name: each for name, each in self.learner.module.state_dict().items() if name not in bundled}

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state that a resumed training needs, beside the weights."""
        stopping = {} if self._stopping is None else {"stopping": self._stopping}
        return {
            "position": self.position,
            "update": self._update,
            "best": self.best,
            "schedule": self._values,
            "callbacks": self._callbacks,
            **stopping,
        }

    def _take_up(self, resumed: Resumed) -> None:
        """Go on where an earlier training stood.

        Raises:
            TrainingError: It was on other rows.
        """
        state = resumed.state
        if state["data"] != self._data.digest("train"):
            raise TrainingError(
                f"resume: the rows of the train part are not those that the checkpoint {resumed.path} was trained on"
            )
        self.learner.module.load_state_dict(resumed.weights)
        for name, part in self._parts.items():
            if name in state["parts"]:  # early stopping may be new
                part.load_state_dict(state["parts"][name])
        self.history = {
            str(name): [None if value is None else float(value) for value in values]
            for name, values in state["history"]
        }
        self._state.epoch, self._state.step = state["epoch"], state["step"]
        if state["stop_reason"] == "model":  # a training that was over is not trained on
            self._state.stop_reason = "model"
        if self._stopping is not None and self._state.stop_reason is None:
            self._state.stop_reason = self._stopping.verdict()
        self._state.metrics = {str(name): float(value) for name, value in state["metrics"].items()}
        self._state.was_validated = state["was_validated"]
        self.best.check(self.learner.module)
        set_random_state(state["random"], self.learner.device)  # last: what came before may have drawn

    @property
    def _here(self) -> tuple[int, int]:
        return self.position.epochs, self.position.step

    def _write_down(self) -> None:
        """Write a checkpoint, and leave the module and the generators as they were: it predicts a few rows."""
        module, device = self.learner.module, self.learner.device
        here, was_training = random_state(device), module.training
        self._write_checkpoint(self)
        self._written_down = self._here
        if was_training:
            self._freezing.train()
        else:
            module.eval()
        set_random_state(here, device)
        self._state.wants_checkpoint = False

    def _write_down_after(self, error: BaseException) -> None:
        """Write a checkpoint when something ends the training, unless it left half a step or useless numbers."""
        is_of_use = self.position.is_whole and not isinstance(error, NonFiniteLossError)
        if self.training.checkpoint is None or not is_of_use or self._written_down == self._here:
            return
        try:
            self._write_down()
        except NonFiniteLossError:
            return  # which nobody had noticed yet; the checkpoint before it is the one to go on from
        except Exception as failure:  # what ended the training is what counts
            error.add_note(f"no checkpoint was written: {failure}")


def _inputs(data: Prepared, learner: TorchLearner) -> torch.Tensor | ImageArray:
    """Return the rows of the train part: pixels as they are, numbers in the type that the module takes."""
    inputs = data.inputs["train"]
    if isinstance(inputs, ImageArray):
        return inputs
    rows = torch.from_numpy(inputs)
    return rows if data.stays_pixels else rows.to(learner.dtype)


def _plan(training: Training) -> Plan:
    return Plan(
        training.epochs,
        training.max_steps,
        training.accumulate,
        training.steps_per_epoch,
        training.validate_every_epochs,
        training.validate_every_steps,
    )


def _planned_steps(training: Training, steps_per_epoch: int) -> int:
    by_epochs = training.epochs * steps_per_epoch if training.epochs is not None else None
    return min(steps for steps in (by_epochs, training.max_steps) if steps is not None)


def _described(optimizer: torch.optim.Optimizer) -> str:
    how = [name for name in ("fused", "foreach") if optimizer.defaults.get(name)]
    return type(optimizer).__name__ + (f" ({how[0]})" if how else "")
