"""The learning rate range test (https://arxiv.org/abs/1506.01186): which learning rates a model learns with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gymtrain.errors import Fault, NonFiniteLossError, SpecError, TrainingError
from gymtrain.figures.curves import learning_rate
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.specs import Experiment, spec_sha256
from gymtrain.tracking import Report, no_autologging
from gymtrain.tracking.params import written
from gymtrain.trainer.fitting import make_learner
from gymtrain.trainer.interruption import Interruption
from gymtrain.trainer.preparation import Prepared, build_augmentation, fit_preprocessors, load, transform
from gymtrain.trainer.sanity import changed
from gymtrain.trainer.torch_fitting import TorchFitting
from gymtrain.training.callbacks import Callback, Callbacks, TrainingState

# How much of the mean loss stays at each step.
SMOOTHING = 0.9
# The test is over when the loss is so many times its best value.
DIVERGED = 4.0
LEAST_STEPS = 10
# A slope that is no more than this, as a fraction of the loss, is what float32 rounds.
FLAT = 1e-6


class LossCurve(Callback):
    """Writes down the smoothed loss at each learning rate, and stops once it has blown up.

    Args:
        minimum: The first learning rate.
        maximum: The last one.
        steps: How many there are; the ratio of each to the one before is the same.

    Attributes:
        lr: The learning rates so far.
        loss: The smoothed loss at each of them.
    """

    def __init__(self, minimum: float, maximum: float, steps: int) -> None:
        self.multiplier = (maximum / minimum) ** (1 / (steps - 1))
        self.lr: list[float] = []
        self.loss: list[float] = []
        self._minimum, self._steps = minimum, steps
        self._mean = 0.0

    @property
    def next_lr(self) -> float:
        """The learning rate of the step that comes next."""
        lr: float = self._minimum * self.multiplier ** len(self.lr)
        return lr

    def on_step_end(self, state: TrainingState) -> None:
        """Take in the loss of a step."""
        loss = float(state.loss if state.loss is not None else math.nan)
        if not math.isfinite(loss):
            state.stop("nan")
            return
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        smoothed = self._mean / (1 - SMOOTHING**state.step)  # or the first losses would count too little
        self.lr.append(self.next_lr)
        self.loss.append(smoothed)
        state.log("lr", self.lr[-1])
        state.log("smoothed_loss", smoothed)
        best = min(self.loss)
        if smoothed - best > (DIVERGED - 1) * abs(best):
            state.stop("divergence")

    def suggestion(self) -> float | None:
        """Return the learning rate at which the loss falls fastest; None if it falls nowhere.

        The ends are left out: the first tenth, where the mean is of few losses, and what comes after the lowest loss,
        which may fall again after it had risen.
        """
        first = self._steps // 10
        if len(self.loss) <= first:
            return None
        lowest = first + int(np.argmin(self.loss[first:]))
        slopes = [self._slope(position) for position in range(first, lowest + 1)]
        steepest = int(np.argmin(slopes))
        return self.lr[first + steepest] if slopes[steepest] < -FLAT * abs(self.loss[first]) else None

    def _slope(self, position: int) -> float:
        """Return that of a line through the points nearby: one between two points is mostly the noise of batches."""
        width = max(self._steps // 12, 1)
        near = slice(max(position - width, 0), position + width + 1)
        return float(np.polyfit(np.log(self.lr[near]), self.loss[near], 1)[0])


def find_lr(experiment: Experiment, minimum: float, maximum: float, steps: int) -> dict[str, Any]:
    """Train a fresh model while the learning rate grows from step to step, and see where its loss falls.

    Args:
        experiment: The spec.
        minimum: The first learning rate.
        maximum: The last one, where the loss does not blow up before.
        steps: How many optimizer steps are taken.

    Raises:
        SpecError: The range is none, or the optimizer has no learning rate.
        DataError: The rows cannot be trained on.
        TrainingError: The model cannot be fitted, is of another library, or its loss was no number from the beginning.
    """
    _check(minimum, maximum, steps)
    curve = LossCurve(minimum, maximum, steps)
    experiment = _range_test(experiment, minimum, curve.multiplier, steps)
    spec = experiment.to_dict()
    report, interruption = Report(experiment, written(spec), spec_sha256(spec), is_aside=True), Interruption()
    with interruption.handled(), no_autologging():
        data = _prepared(experiment)
        learner = make_learner(experiment, data)
        if not isinstance(learner, TorchLearner):
            raise TrainingError(
                f"find_lr: {experiment.model.model.type} is a model of another library than torch, which has no "
                f"learning rate that could be changed from step to step"
            )
        fitting = TorchFitting(
            experiment,
            data,
            learner,
            report,
            Callbacks([curve], TrainingState()),
            augmentation=build_augmentation(data, experiment.dataset),
            interruption=interruption,
            write_checkpoint=lambda fitting: None,
            resumed=None,
        )
        with report:
            report.spec()
            report.wait_prepared()
            _follow(fitting, curve)
            suggestion = curve.suggestion()
            report.tag("gymtrain.find_lr", "none" if suggestion is None else f"{suggestion:.3g}")
            report.figure(learning_rate(curve.lr, curve.loss, suggestion), "learning_rate")
    return {"lr": suggestion, "curve": {"lr": curve.lr, "loss": curve.loss}, "run": report.info()}


def _check(minimum: object, maximum: object, steps: object) -> None:
    faults = [
        Fault(f"find_lr.{name}", f"got {value!r}; expected a number above 0")
        for name, value in {"minimum": minimum, "maximum": maximum}.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
    ]
    if not faults and not minimum < maximum:  # type: ignore[operator]  # both are numbers
        faults.append(Fault("find_lr.maximum", f"got {maximum!r}; expected more than the minimum, {minimum!r}"))
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < LEAST_STEPS:
        faults.append(Fault("find_lr.steps", f"got {steps!r}; expected a whole number of at least {LEAST_STEPS}"))
    if faults:
        raise SpecError(faults)


def _range_test(experiment: Experiment, minimum: float, multiplier: float, steps: int) -> Experiment:
    """Return the spec as an epoch of so many steps whose learning rate grows; what only a long training has is off."""
    growth = {"type": "exponential", "initial": minimum, "multiplier": multiplier, "continuous": True, "by": "step"}
    return changed(
        experiment,
        training={
            "epochs": None,
            "max_steps": steps,
            "steps_per_epoch": steps,
            "schedule": {**(experiment.model.training.schedule or {}), "lr": growth},
            "ema": None,
            "early_stopping": None,
            "checkpoint": None,
            "monitor": None,
        },
        tracking={"log_every_n_steps": 1},
    )


def _prepared(experiment: Experiment) -> Prepared:
    """Return the rows without the parts that nothing is learned from."""
    dataset = experiment.dataset
    source = dataset.dataset.build()
    if hasattr(source, "prepare"):
        source.prepare()
    data = load(source, dataset, experiment.model.training)
    for part in ("val", "test"):
        data.fill(part, part, np.arange(0))
    fit_preprocessors(data, dataset)
    transform(data, dataset)
    return data


def _follow(fitting: TorchFitting, curve: LossCurve) -> None:
    try:
        fitting.run()
    except NonFiniteLossError as error:
        # Near the maximum that is the end of the test; before the loss could fall it is a fault of something else.
        if len(curve.lr) < LEAST_STEPS:
            raise NonFiniteLossError(f"find_lr, at a learning rate of {curve.next_lr:.3g}: {error}") from error
