"""What looks at the metrics of a training, as its spec says: which weights are kept, and when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import partial

from torch import nn

from gymtrain.models.metrics import Metrics
from gymtrain.models.torch_model import TorchModel, call_own
from gymtrain.specs import Training
from gymtrain.training.best import BestWeights, check_known
from gymtrain.training.stopping import EarlyStopping


def best_weights(
    training: Training, usual: str | None, metrics: Metrics, known: Collection[str], module: nn.Module
) -> BestWeights:
    """Return what keeps the best weights: by the metric of the spec, or as the model itself says.

    Args:
        training: Names the metric; null for the last weights, whatever they are.
        usual: The metric of `"auto"`; None for none.
        metrics: Know in which direction they are better.
        known: The names of the metrics that there will be.
        module: The model.

    Raises:
        SpecError: The metric is not among them.
    """
    monitor = usual if training.monitor == "auto" else training.monitor
    own = {}
    if isinstance(module, TorchModel) and training.monitor is not None:
        own["has_improved"] = partial(call_own, module, "has_improved")
    return BestWeights(monitor, known, metrics.higher_is_better, **own)


def early_stopping(training: Training, usual: str, metrics: Metrics, known: Collection[str]) -> EarlyStopping | None:
    """Return what ends the training early; None where the spec does not ask for it.

    Raises:
        SpecError: Its metric is not among the known ones.
    """
    spec = training.early_stopping
    if spec is None:
        return None
    name = usual if spec.monitor == "auto" else spec.monitor
    check_known(name, known, "model.training.early_stopping.monitor")
    mode = spec.mode or ("max" if metrics.higher_is_better(name.partition("/")[2]) else "min")
    return EarlyStopping(name, mode, **spec.model_dump(exclude={"monitor", "mode"}))


def warn_of_idle_settings(training: Training, best: BestWeights, *, is_validated: bool) -> None:
    """Say which settings change nothing, because there is nothing that they could act on."""
    if not is_validated and (training.validate_every_epochs != 1 or training.validate_every_steps is not None):
        name = "validate_every_epochs" if training.validate_every_steps is None else "validate_every_steps"
        warnings.warn(
            f"model.training.{name} changes nothing, because there are no validation rows; give dataset.samples.val or "
            "model.training.validation_split",
            stacklevel=2,
        )
    if training.checkpoint is not None and training.checkpoint.keep_best and best.monitor is None:
        warnings.warn(
            "model.training.checkpoint.keep_best keeps nothing, because no metric is monitored; give validation rows, "
            "or model.training.monitor such as 'train/loss'",
            stacklevel=2,
        )
