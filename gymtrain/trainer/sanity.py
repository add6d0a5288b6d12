"""Trainings that only try something: one step through every stage, or a few batches learned by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gymtrain.errors import Fault, SpecError
from gymtrain.models.tasks import Binary, Multiclass
from gymtrain.specs import Experiment, Training
from gymtrain.trainer.preparation import Prepared
from gymtrain.trainer.sampling import order_of
from gymtrain.trainer.training_run import TrainingRun
from gymtrain.training.callbacks import Callback, TrainingState

Changes = Mapping[str, Any]


def make_run(
    experiment: Experiment,
    callbacks: Sequence[Callback],
    resume: str | Path | bool,
    *,
    fast_dev_run: bool,
    overfit_batches: int,
) -> TrainingRun:
    """Return the run of a spec: all of it, or one of the two that only try something.

    Args:
        experiment: The spec.
        callbacks: Told of what happens.
        resume: `"auto"`, a checkpoint, the directory of a run, or False to begin.
        fast_dev_run: Take one step, and validate and test on one batch.
        overfit_batches: Train on so many batches alone; 0 for all.

    Raises:
        SpecError: A value is none of these, two of them do not go together, or the model has no batches.
    """
    faults = _faults(experiment, resume, fast_dev_run, overfit_batches)
    if faults:
        raise SpecError(faults)
    if fast_dev_run:
        return _fast_dev_run(experiment, callbacks)
    if overfit_batches:
        return _overfit(experiment, callbacks, overfit_batches)
    # Out of a file, a spec is checked as a whole only now.
    return TrainingRun(changed(experiment), callbacks, resume)


def changed(
    experiment: Experiment, *, dataset: Changes = {}, training: Changes = {}, tracking: Changes = {}
) -> Experiment:
    """Return a spec with other values in some places, checked as any other.

    Raises:
        SpecError: Something does not fit the rest.
    """
    model = experiment.model
    fields = {name: getattr(model.training, name) for name in Training.model_fields}
    return Experiment(
        dataset=experiment.dataset.model_copy(update=dict(dataset)),
        model={"model": model.model, "training": {**fields, **training}},
        tracking=experiment.tracking.model_copy(update=dict(tracking)),
    )


class OneStep(Callback):
    """Ends training after its first step, whatever else would have ended it."""

    reason = "fast_dev_run"

    def on_step_end(self, state: TrainingState) -> None:
        """Ask for the end."""
        state.stop(self.reason)

    def on_fit_model_end(self, state: TrainingState) -> None:
        """Say why, also for a model that takes no steps."""
        state.stop(self.reason)


def _faults(experiment: Experiment, resume: object, fast_dev_run: object, overfit_batches: object) -> list[Fault]:
    faults = []
    if not isinstance(fast_dev_run, bool):
        faults.append(Fault("fast_dev_run", f"got {fast_dev_run!r}; expected True or False"))
    if isinstance(overfit_batches, bool) or not isinstance(overfit_batches, int) or overfit_batches < 0:
        expected = "expected a number of batches of at least 1, or 0 to train on all of them"
        faults.append(Fault("overfit_batches", f"got {overfit_batches!r}; {expected}"))
    if faults:
        return faults
    if fast_dev_run and overfit_batches:
        faults.append(Fault("overfit_batches", "does not go together with fast_dev_run, which takes one step; use one"))
    if (fast_dev_run or overfit_batches) and resume not in (False, None):
        name = "fast_dev_run" if fast_dev_run else "overfit_batches"
        faults.append(Fault(name, "does not go together with resume, because it begins with a fresh model; use one"))
    if overfit_batches and _fits_by_itself(experiment):
        kind = experiment.model.model.type
        faults.append(
            Fault("overfit_batches", f"a model that fits all by itself ({kind}) has no batches; leave it out")
        )
    return faults


def _fits_by_itself(experiment: Experiment) -> bool:
    """Tell whether the model is surely of another library than torch; what a function makes is not known yet."""
    target = experiment.model.model.target
    return isinstance(target, type) and not issubclass(target, nn.Module)


def _fast_dev_run(experiment: Experiment, callbacks: Sequence[Callback]) -> TrainingRun:
    """Everything happens as it would, schedules included, until the first step is over."""
    tracking = experiment.tracking
    tried = changed(
        experiment,
        training={"checkpoint": None},
        tracking={"trackers": [], "log_every_n_steps": min(tracking.log_every_n_steps, 1)},
    )
    run = TrainingRun(tried, callbacks, narrow=partial(_keep_a_batch, tried))
    run.callbacks.append(OneStep())
    return run


def _keep_a_batch(experiment: Experiment, data: Prepared) -> None:
    size = experiment.model.training.batch_size
    if _fits_by_itself(experiment):
        first = np.arange(min(size, len(data.rows["train"])))
        if isinstance(data.task, Binary | Multiclass):  # such a model takes the classes from the rows that it is given
            first = np.union1d(first, np.unique(data.codes("train"), return_index=True)[1])
        data.fill("train", "train", first)
    for part in ("val", "test"):
        data.fill(part, part, np.arange(min(size, len(data.rows[part]))))


def _overfit(experiment: Experiment, callbacks: Sequence[Callback], batches: int) -> TrainingRun:
    tried = changed(
        experiment,
        dataset={"data_augmentors": []},
        training={"checkpoint": None, "steps_per_epoch": None},
        tracking={"tags": {**experiment.tracking.tags, "gymtrain.overfit_batches": str(batches)}},
    )
    return TrainingRun(tried, callbacks, narrow=partial(_keep_batches, tried, batches))


def _keep_batches(experiment: Experiment, batches: int, data: Prepared) -> None:
    """Keep those that training would begin with, for the train and the val part."""
    training = experiment.model.training
    first = order_of(data, experiment.dataset, training)(1)[: batches * training.batch_size].numpy()
    data.fill("train", "train", first)
    if "val" in data.inputs:
        data.fill("val", "train", np.arange(len(first)))
    data.fill("test", "test", first[:0])
    data.in_order = True
