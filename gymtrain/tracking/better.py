"""Which of two values of a metric is the better one, as far as the name of the metric tells."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["min", "max"]

# Looked for in this order, in a name without its underscores: `hinge_loss`, not what it is the loss of.
_LOWER = (
    r"loss|error|distance|divergence|deviance|perplexity|probabilityscore|brier"
    r"|^(eer|mse|rmse|mae|mape|nll|wer|cer)$"
)
_HIGHER = (
    r"accuracy|precision|recall|specificity|sensitivity|predictivevalue|auroc|auc|match|jaccard|iou|dice|kappa|corr"
    r"|r2|explainedvariance|similarity|success|score|^f\d|fbeta|^map$|bleu|rouge"
)


def better(key: str) -> Mode | None:
    """Return whether the smaller or the larger value of a metric is the better one; None where its name does not tell.

    Example:
        >>> better("val/loss"), better("best/val_accuracy"), better("perf/samples_per_s"), better("best/epoch")
        ('min', 'max', 'max', None)
    """
    name = re.sub("^(train|val|test)_", "", key.rpartition("/")[2].lower())
    if name.endswith("per_s"):
        return "max"
    if name.endswith("_s") and key.startswith("time/"):
        return "min"
    plain = name.replace("_", "")
    return "min" if re.search(_LOWER, plain) else "max" if re.search(_HIGHER, plain) else None
