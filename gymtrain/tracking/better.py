"""Which of two values of a metric is the better one: as its run says, else as far as its name tells."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["min", "max"]

MONITOR_TAG, MODE_TAG = "gymtrain.monitor", "gymtrain.monitor_mode"
DIRECTION_TAGS: dict[Mode, str] = {"min": "gymtrain.lower_is_better", "max": "gymtrain.higher_is_better"}

# Looked for in this order, in a name without its underscores: `hinge_loss`, not what it is the loss of.
_LOWER = (
    r"loss|error|distance|divergence|deviance|perplexity|probabilityscore|brier"
    r"|^(eer|mse|rmse|mae|mape|nll|wer|cer)$"
)
_HIGHER = (
    r"accuracy|precision|recall|specificity|sensitivity|predictivevalue|auroc|auc|match|jaccard|iou|dice|kappa|corr"
    r"|r2|explainedvariance|similarity|success|score|^f\d|fbeta|^map$|bleu|rouge"
)


def directions_of(tags: Mapping[str, str]) -> dict[str, Mode]:
    """Return of which metrics less or more is better, by name, as the tags of a run say; nothing where they do not.

    Example:
        >>> directions_of({"gymtrain.lower_is_better": '["loss"]', "gymtrain.higher_is_better": '["accuracy"]'})
        {'loss': 'min', 'accuracy': 'max'}
    """
    found: dict[str, Mode] = {}
    for mode, tag in DIRECTION_TAGS.items():
        try:
            names = json.loads(tags.get(tag, "[]"))
        except ValueError:  # MLflow shortens what is long
            continue
        found |= {name: mode for name in names if isinstance(name, str)} if isinstance(names, list) else {}
    return found


def metric_name(key: str) -> str:
    """Return the name of a metric without its part.

    Example:
        >>> metric_name("val/loss"), metric_name("best/val_loss")
        ('loss', 'loss')
    """
    return re.sub("^(train|val|test)_", "", key.rpartition("/")[2])


def better(key: str) -> Mode | None:
    """Return whether the smaller or the larger value of a metric is the better one; None where its name does not tell.

    For runs that do not say it themselves: of MLflow, by others, and values beside the metrics.

    Example:
        >>> better("val/loss"), better("best/val_accuracy"), better("perf/samples_per_s"), better("best/epoch")
        ('min', 'max', 'max', None)
    """
    name = metric_name(key.lower())
    if name.endswith("per_s"):
        return "max"
    if name.endswith("_s") and key.startswith("time/"):
        return "min"
    plain = name.replace("_", "")
    return "min" if re.search(_LOWER, plain) else "max" if re.search(_HIGHER, plain) else None
