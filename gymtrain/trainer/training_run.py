"""One call of `train()`: the stages in order, and what becomes of it in every ending."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from gymtrain.bundle import atomic_write
from gymtrain.data.frames import Frame
from gymtrain.errors import NonFiniteLossError
from gymtrain.hardware import collect_in_background
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.specs import Experiment, spec_sha256
from gymtrain.tracking import Report
from gymtrain.trainer import checkpoints
from gymtrain.trainer.fitting import Fitting
from gymtrain.trainer.model_card import model_card
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.preparation import Prepared, build_augmentation, fit_preprocessors, load, transform
from gymtrain.trainer.saving import check_findable, json_safe
from gymtrain.trainer.stages import Stages
from gymtrain.training.callbacks import Callback, Callbacks, TrainingState

SELFCHECK_ROWS = 8


class TrainingRun:
    """One execution of an experiment.

    Args:
        experiment: What to run.
        callbacks: Told of what happens.
        resume: `"auto"`, a checkpoint, the directory of a run, or False to begin.

    Attributes:
        result: What `train()` returns; there also when it raises.
        predictor: What was learned; there also when something failed afterwards, or ended the training early.
    """

    def __init__(
        self, experiment: Experiment, callbacks: Sequence[Callback], resume: str | Path | bool = False
    ) -> None:
        self.experiment = experiment
        self.state = TrainingState()
        self.callbacks = Callbacks(callbacks, self.state)
        self.stages = Stages(self.state, self.callbacks)
        # Written out once: live data is read whole to be named in it.
        self.spec = experiment.to_dict()
        self.spec_sha256 = spec_sha256(self.spec)
        if experiment.model.training.checkpoint is not None:
            check_findable(experiment)
        self.resumed = checkpoints.find(resume, experiment, self.spec)
        self.report = Report(experiment, self.spec, self.spec_sha256)
        self.hardware = collect_in_background()
        self.result: dict[str, Any] = {}
        self.predictor: Predictor | None = None
        self._fitting: Fitting | None = None
        self._tested: dict[str, float] = {}

    def execute(self) -> None:
        """Run all stages; whatever ends them, the run is closed and the result written."""
        began = perf_counter()
        status = "FAILED"
        try:
            with _terminated_as_exit(), self.report:
                try:
                    self.report.spec()
                    self.callbacks.call("on_train_begin")
                    self._execute_stages(began)
                except BaseException as error:
                    self._note(error)
                    self.state.elapsed["total"] = perf_counter() - began
                    self.callbacks.call_after(error, "on_train_end")
                    raise
                self.state.elapsed["total"] = perf_counter() - began
                self.callbacks.call("on_train_end")
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            self._write_result(status)

    def _execute_stages(self, began: float) -> None:
        dataset, training = self.experiment.dataset, self.experiment.model.training
        source = dataset.dataset.build()
        with self.stages("download_and_prepare_data"):
            if hasattr(source, "prepare"):
                source.prepare()
        with self.stages("load_data"):
            data = load(source, dataset, training)
        self.report.wait_prepared()
        with self.stages("fit_preprocessors"):
            fit_preprocessors(data, dataset)
        with self.stages("transform_data"):
            transform(data, dataset)
        with self.stages("augment_data"):
            augmentation = build_augmentation(data, dataset)
        self._report_data(data)
        with self.stages("fit_model"):
            resumed = None if self.resumed is None else self.resumed.state
            fitting = self._fitting = Fitting(
                self.experiment, data, self.report, self.callbacks, resumed, partial(self._write_checkpoint, data=data)
            )
            if self.resumed is not None:
                self.report.tag("gymtrain.resumed_from", str(self.resumed.path))
            try:
                fitting.run(augmentation)
            except NonFiniteLossError:
                self.state.stop("nan")
                raise
            finally:
                if fitting.has_learned:
                    self.predictor = _predictor(fitting, data, fitting.weights)
        with self.stages("evaluate_model"):
            self._tested = fitting.evaluate("test")
            self.state.metrics |= self._tested
        self._report_summary(fitting, data, perf_counter() - began)

    def _write_checkpoint(self, fitting: Fitting, data: Prepared) -> None:
        spec = self.experiment.model.training.checkpoint
        assert spec is not None
        written = checkpoints.Checkpoints(self.report.run.directory / "checkpoints", spec.keep_last)
        try:
            written.write(self.experiment, self.spec, _predictor(fitting, data, "last"), fitting.state_dict())
        except OSError as error:  # a full disk ends the checkpoints, not what is being learned
            warnings.warn(f"no checkpoint was written after epoch {self.state.epoch}: {error}", stacklevel=2)

    def _report_data(self, data: Prepared) -> None:
        name = self.experiment.dataset.dataset.type
        contexts = {"train": "training", "val": "validation", "test": "test"}
        for part, context in contexts.items():
            if part in data.inputs:
                self.report.data(
                    name,
                    context,  # type: ignore[arg-type]
                    data.digest(part),
                    data.features.to_dict(),
                    data.profile(part),
                )

    def _report_summary(self, fitting: Fitting, data: Prepared, seconds: float) -> None:
        best = fitting.best
        epoch = best.epoch or max(self.state.epoch, 1)
        summary: dict[str, float] = {f"time/{stage}_s": value for stage, value in self.state.elapsed.items()}
        summary["time/total_s"] = seconds
        if best.epoch is not None:
            summary["best/epoch"] = best.epoch
            summary |= {f"best/{name.replace('/', '_')}": value for name, value in best.metrics.items()}
        if fitting.samples_per_second:
            summary["perf/samples_per_s"] = fitting.samples_per_second
        if isinstance(fitting.learner, TorchLearner):
            parameters = list(fitting.learner.module.parameters())
            summary["model/params_total"] = sum(each.numel() for each in parameters)
            summary["model/params_trainable"] = sum(each.numel() for each in parameters if each.requires_grad)
        self.report.summary(self._tested | summary, epoch=epoch)
        self.report.tag("gymtrain.stop_reason", str(self.state.stop_reason))
        self.report.tag("gymtrain.weights", fitting.weights)
        self.report.machine(self.hardware())
        sizes = {part: len(rows) for part, rows in data.rows.items()}
        result = {"metrics": fitting.history | self._tested, "best": best.to_dict()}
        self.report.description(model_card(self.spec, data.task.to_dict(), result, sizes))

    def _note(self, error: BaseException) -> None:
        self.state.exception = error
        reasons = {KeyboardInterrupt: "interrupt", SystemExit: "signal", NonFiniteLossError: "nan"}
        self.state.stop_reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), "error")
        self.report.tag("gymtrain.stop_reason", self.state.stop_reason)
        self.callbacks.call_after(error, "on_exception")

    def _write_result(self, status: str) -> None:
        fitting = self._fitting
        self.result = json_safe(
            {
                "status": status,
                "stop_reason": self.state.stop_reason,
                "elapsed": dict(self.state.elapsed),
                "metrics": {} if fitting is None else fitting.history | self._tested,
                "best": None if fitting is None else fitting.best.to_dict(),
                "hardware_info": self.hardware(),
                "run": self.report.info(),
                "spec_sha256": self.spec_sha256,
                "resumed_from": None if self.resumed is None else str(self.resumed.path),
            }
        )
        path = Path(self.result["run"]["run_dir"]) / "result.json"
        if path.parent.is_dir():
            try:
                with atomic_write(path) as file:
                    file.write(json.dumps(self.result, indent=2, ensure_ascii=False).encode())
            except OSError as error:  # what ended the run, or was learned in it, matters more
                warnings.warn(f"the result is in trainer.result alone: {error}", stacklevel=5)


def _predictor(fitting: Fitting, data: Prepared, weights: str) -> Predictor:
    few = data.rows["train"][:SELFCHECK_ROWS]
    return Predictor(
        data.features,
        data.pipeline,
        fitting.learner,
        data.inputs["train"].shape[1:],
        weights,
        data.raw.take(few) if isinstance(data.raw, Frame) else data.raw[few],
    )


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """While this is entered in the main thread, SIGTERM raises SystemExit, so that the run is closed as killed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
