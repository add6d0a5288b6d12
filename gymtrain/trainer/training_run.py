"""One call of `train()`: the stages in order, and what becomes of it in every ending."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from gymtrain.bundle import atomic_write
from gymtrain.data.augmentors import Augmentation
from gymtrain.errors import NonFiniteLossError
from gymtrain.figures.samples import is_image
from gymtrain.hardware import collect_in_background
from gymtrain.models.contract import Learner, LibraryLearner
from gymtrain.models.seeding import seeded
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.specs import Experiment, spec_sha256
from gymtrain.tracking import Report, no_autologging
from gymtrain.tracking.params import written
from gymtrain.trainer.checkpoints import Checkpoints, Monitored, find, still_newest
from gymtrain.trainer.drawing import write_graph
from gymtrain.trainer.estimation import latency_ms
from gymtrain.trainer.fitting import Fitting, make_learner
from gymtrain.trainer.held_out import held_out
from gymtrain.trainer.interruption import Interruption
from gymtrain.trainer.keeping import keep_bundle
from gymtrain.trainer.library_fitting import LibraryFitting
from gymtrain.trainer.model_card import model_card
from gymtrain.trainer.own_classes import check_findable
from gymtrain.trainer.pictures import Pictures
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.preparation import Prepared, build_augmentation, fit_preprocessors, load, transform
from gymtrain.trainer.preview import draw_augmented
from gymtrain.trainer.saving import SELFCHECK_ROWS, json_safe
from gymtrain.trainer.stages import Stages
from gymtrain.trainer.torch_fitting import TorchFitting
from gymtrain.training.callbacks import Callback, Callbacks, TrainingState
from gymtrain.training.checkpointing import ModelCheckpoint
from gymtrain.training.histograms import ParameterHistograms

# So many of the images that were left out are named.
BAD_SAMPLES = 5


class TrainingRun:
    """One execution of an experiment.

    Args:
        experiment: What to run.
        callbacks: Told of what happens.
        resume: `"auto"`, a checkpoint, the directory of a run, or False to begin.
        narrow: Called with the rows before the model is made, to leave few of them in a rehearsal; None for all.

    Attributes:
        result: What `train()` returns; there also when it raises.
        predictor: What was learned; there also when something failed afterwards, or ended the training early.
    """

    def __init__(
        self,
        experiment: Experiment,
        callbacks: Sequence[Callback],
        resume: str | Path | bool = False,
        narrow: Callable[[Prepared], None] | None = None,
    ) -> None:
        self.experiment, self._narrow = experiment, narrow
        self.state = TrainingState()
        self.interruption = Interruption()
        checkpoint = experiment.model.training.checkpoint
        self.callbacks = Callbacks(callbacks, self.state)
        if checkpoint is not None:
            self.callbacks.append(ModelCheckpoint(**checkpoint.model_dump(exclude={"keep_last", "keep_best"})))
        self.stages = Stages(self.state, self.callbacks)
        # Written out once: live data is read whole to be named in it.
        spec = experiment.to_dict()
        self.spec, self.spec_sha256 = written(spec), spec_sha256(spec)
        if checkpoint is not None:
            check_findable(experiment)
        self.resumed = find(resume, experiment, self.spec)
        earlier = None if self.resumed is None else self.resumed.run_directory
        self.report = Report(experiment, self.spec, self.spec_sha256, earlier)
        self.hardware = collect_in_background()
        self.result: dict[str, Any] = {}
        self.predictor: Predictor | None = None
        self._fitting: Fitting | None = None
        self._checkpoints: Checkpoints | None = None
        self._tested: dict[str, float] = {}
        self._data: dict[str, Any] = {}
        self._bad_samples: dict[str, Any] | None = None
        self._has_warned = False

    def execute(self) -> None:
        """Run all stages; whatever ends them, the run is closed and the result written."""
        began = perf_counter()
        status = "FAILED"
        try:
            with self.interruption.handled(), self.report, no_autologging():
                try:
                    if self.resumed is not None and self.report.goes_on:
                        self.resumed = still_newest(self.resumed, self.spec)
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
                if self.predictor is not None and self.report.keeps_bundle:
                    keep_bundle(
                        self.report, self.experiment, self.spec, self.predictor, partial(self._result, "FINISHED")
                    )
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
        if self._narrow is not None:
            self._narrow(data)
        self._report_data(data)
        self._draw_augmented(data, augmentation)
        with self.stages("fit_model"):
            fitting = self._fitting = self._make_fitting(data, augmentation)
            if self.resumed is not None:
                if not self.report.goes_on:
                    self.report.tag("gymtrain.resumed_from", str(self.resumed.path))
                for key, change in self.resumed.changes.items():
                    self.report.tag(f"gymtrain.resume_changed/{key}", change)
            try:
                fitting.run()
            except NonFiniteLossError:
                self.state.stop("nan")
                raise
            finally:
                if self._checkpoints is not None:
                    self._checkpoints.wait()
                if fitting.has_learned:
                    self.predictor = _predictor(fitting.learner, data, fitting.weights)
                    self.predictor.held_out = held_out(data)
        with self.stages("evaluate_model"):
            self._tested = fitting.evaluate("test")
            self.state.metrics |= self._tested
        self._report_summary(fitting, data, perf_counter() - began)
        if self.report.wants_figures:
            Pictures(fitting, data, self.report, self._kept_epoch(fitting)).draw()

    def _make_fitting(self, data: Prepared, augmentation: Augmentation | None) -> Fitting:
        training = self.experiment.model.training
        learner = make_learner(self.experiment, data, goes_on=self.resumed is not None)
        if not isinstance(learner, TorchLearner):
            assert isinstance(learner, LibraryLearner)
            return LibraryFitting(self.experiment, data, learner, self.report, self.callbacks)
        self._show(learner, data)
        if training.checkpoint is not None:
            directory = self.report.run.directory / "checkpoints"
            self._checkpoints = Checkpoints(directory, training.checkpoint.keep_last, training.checkpoint.keep_best)
        return TorchFitting(
            self.experiment,
            data,
            learner,
            self.report,
            self.callbacks,
            augmentation=augmentation,
            interruption=self.interruption,
            write_checkpoint=partial(self._write_checkpoint, data=data),
            resumed=self.resumed,
        )

    def _show(self, learner: TorchLearner, data: Prepared) -> None:
        """Report what trackers ask for of the module itself."""
        if "histograms" in self.report.wants:
            self.callbacks.append(ParameterHistograms(learner.module, self.report.histogram))
        path = self.report.run.directory / "graph.pb"
        if "graph" in self.report.wants and write_graph(learner, torch.from_numpy(data.ready("train", slice(2))), path):
            self.report.graph(path)

    def _write_checkpoint(self, fitting: TorchFitting, data: Prepared) -> None:
        if self._checkpoints is None:
            self._warn_of_no_checkpoints()
            return
        best, state = fitting.best, fitting.state_dict()
        monitored = None
        if best.monitor is not None:
            value = self.state.metrics.get(best.monitor, math.nan) if state["is_epoch_end"] else math.nan
            monitored = Monitored(best.monitor, value, best.mode)
        facts = {
            "data": self._data,
            "bad_samples": self._bad_samples,
            "hardware_info": self.hardware(),
            "spec_sha256": self.spec_sha256,
        }
        self._checkpoints.write(self.spec, _predictor(fitting.kept, data, "last"), state, monitored, facts)

    def _warn_of_no_checkpoints(self) -> None:
        if self._narrow is None and not self._has_warned:  # a rehearsal has none, whatever the spec says
            self._has_warned = True
            warnings.warn(
                "a callback asks for checkpoints, and none are written without model.training.checkpoint; give it, "
                "such as {'keep_last': 2}",
                stacklevel=2,
            )

    def _report_data(self, data: Prepared) -> None:
        if data.bad_samples:
            self._bad_samples = {"count": len(data.bad_samples), "first": data.bad_samples[:BAD_SAMPLES]}
        name = self.experiment.dataset.dataset.type
        contexts = {"train": "training", "val": "validation", "test": "test"}
        for part, context in contexts.items():
            if part in data.inputs:
                digest, profile = data.digest(part), data.profile(part)
                self._data[part] = {"sha256": digest, **profile}
                self.report.data(name, context, digest, data.features.to_dict(), profile)  # type: ignore[arg-type]

    def _draw_augmented(self, data: Prepared, augmentation: Augmentation | None) -> None:
        """Show what the augmentors make of the first samples, before anything is learned from them."""
        was_drawn = self.resumed is not None and self.report.goes_on
        if augmentation is not None and self.report.wants_figures and not was_drawn:
            with self.report.attempt("the figure 'augmented'"):
                if is_image(data.inputs["train"].shape[1:]):
                    self.report.figure(draw_augmented(data, augmentation), "augmented")

    def _report_summary(self, fitting: Fitting, data: Prepared, seconds: float) -> None:
        best = fitting.best
        summary: dict[str, float] = {f"time/{stage}_s": value for stage, value in self.state.elapsed.items()}
        summary["time/total_s"] = seconds
        summary["final/epoch"] = max(self.state.epoch, 1)
        if best.epoch is not None:
            summary["best/epoch"] = best.epoch
            summary |= {f"best/{name.replace('/', '_')}": value for name, value in best.metrics.items()}
        if fitting.samples_per_second:
            summary["perf/samples_per_s"] = fitting.samples_per_second
        if isinstance(fitting.learner, TorchLearner):
            parameters = list(fitting.learner.module.parameters())
            summary["model/params_total"] = sum(each.numel() for each in parameters)
            summary["model/params_trainable"] = sum(each.numel() for each in parameters if each.requires_grad)
        if self.report.is_shown and self.predictor is not None:
            with self.report.attempt("the time of a prediction"), seeded(self.experiment.model.training.seed):
                mean, std = latency_ms(self.predictor)
                summary |= {"model/inference_ms_mean": mean, "model/inference_ms_std": std}
        # Where there was nothing left to do, what was measured when it was done stays.
        self.report.summary(self._tested | summary, epoch=self._kept_epoch(fitting), again=fitting.has_trained)
        self.report.tag("gymtrain.stop_reason", str(self.state.stop_reason))
        self.report.tag("gymtrain.weights", fitting.weights)
        self.report.machine(self.hardware(), str(fitting.execution.get("device", "cpu")))
        told = {
            "metrics": fitting.history | self._tested,
            "best": best.to_dict(),
            "stop_reason": self.state.stop_reason,
            "data": self._data,
            "bad_samples": self._bad_samples,
            "hardware_info": self.hardware(),
        }
        schema = {"features": data.features.to_dict(), "labels": data.task.to_dict()}
        self.report.description(model_card(self.spec, schema, told))

    def _kept_epoch(self, fitting: Fitting) -> int:
        """Return the epoch whose weights are kept."""
        return fitting.best.epoch or max(self.state.epoch, 1)

    def _note(self, error: BaseException) -> None:
        self.state.exception = error
        reasons = {KeyboardInterrupt: "interrupt", SystemExit: "signal", NonFiniteLossError: "nan"}
        self.state.stop_reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), "error")
        self.report.tag("gymtrain.stop_reason", self.state.stop_reason)
        self.callbacks.call_after(error, "on_exception")

    def _result(self, status: str) -> dict[str, Any]:
        fitting = self._fitting
        result: dict[str, Any] = json_safe(
            {
                "status": status,
                "stop_reason": self.state.stop_reason,
                "elapsed": dict(self.state.elapsed),
                "metrics": {} if fitting is None else fitting.history | self._tested,
                "best": None if fitting is None else fitting.best.to_dict(),
                "data": self._data,
                "bad_samples": self._bad_samples,
                "execution": {} if fitting is None else fitting.execution,
                "hardware_info": self.hardware(),
                "run": self.report.info(),
                "spec_sha256": self.spec_sha256,
                "resumed_from": None if self.resumed is None else str(self.resumed.path),
            }
        )
        return result

    def _write_result(self, status: str) -> None:
        self.result = self._result(status)
        path = Path(self.result["run"]["run_dir"]) / "result.json"
        if self.report.has_begun and path.parent.is_dir():
            try:
                with atomic_write(path) as file:
                    file.write(json.dumps(self.result, indent=2, ensure_ascii=False).encode())
            except OSError as error:  # what ended the run, or was learned in it, matters more
                warnings.warn(f"the result is in trainer.result alone: {error}", stacklevel=5)


def _predictor(learner: Learner, data: Prepared, weights: str) -> Predictor:
    return Predictor(
        data.features,
        data.pipeline,
        learner,
        data.inputs["train"].shape[1:],
        weights,
        data.examples("train", SELFCHECK_ROWS),
    )
