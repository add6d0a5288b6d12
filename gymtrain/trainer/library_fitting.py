"""Fitting a model of a library other than torch, which does it all by itself."""

from __future__ import annotations

import warnings
from typing import Any

from gymtrain.models.contract import LibraryLearner
from gymtrain.models.metrics import Metrics
from gymtrain.models.seeding import seeded
from gymtrain.specs import Training
from gymtrain.trainer.fitting import Fitting, class_weight_of, named

# What has a meaning for any model.
MEANT = {"metrics", "validation_split", "class_weight", "seed"}


class LibraryFitting(Fitting):
    """A model that is given the whole train part in one call."""

    learner: LibraryLearner

    def run(self) -> None:
        """Fit it, and evaluate it once on the train and the val part."""
        with seeded(self.training.seed):
            self._run()

    def _run(self) -> None:
        training, data, state = self.training, self._data, self._state
        self._warn_of_what_is_unused()
        weights = class_weight_of(training, data)
        # Made before the fit, which may take hours: a metric that does not fit the task is refused here.
        evaluations = {part: self._evaluation(part) for part in ("train", "val")}
        self._report.directions(None, "min", Metrics(training.metrics, self.learner.task).directions)
        state.num_epochs, state.epoch = 1, 1
        self._callbacks.call("on_epoch_begin")
        self.learner.fit(data.ready("train"), data.codes("train"), data.weights.get("train"), weights)
        metrics: dict[str, float] = {}
        for part, evaluate in evaluations.items():
            metrics |= {} if evaluate is None else named(part, evaluate(self.learner))
        self._end_epoch(1, metrics)
        state.stop("fitted")

    def _warn_of_what_is_unused(self) -> None:
        defaults = Training()
        unused = [
            name
            for name in Training.model_fields
            if name not in MEANT and _plain(getattr(self.training, name)) != _plain(getattr(defaults, name))
        ]
        if unused:
            warnings.warn(
                f"model.training: {', '.join(unused)} {'has' if len(unused) == 1 else 'have'} no meaning for a model "
                f"that fits all by itself",
                stacklevel=2,
            )
        if self._experiment.dataset.data_augmentors:
            warnings.warn("dataset.data_augmentors change batches, and this model takes all rows at once", stacklevel=2)


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value
