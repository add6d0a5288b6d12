"""Three dicts in, a tracked run out, one zip that predicts anywhere.

from gymtrain import Trainer

trainer = Trainer(
    dataset={"dataset": {"type": "digits"}, "preprocessors": [{"type": "standard_scaler"}]},
    model={"model": {"type": "mlp"}, "training": {"epochs": 20}},
    tracking={"trackers": [{"type": "mlflow"}, {"type": "tensorboard"}]},
)
result = trainer.train()
trainer.save("digits.zip")
Trainer.load("digits.zip").predict(X)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. They are imported when they are asked for: `import gymtrain` costs milliseconds.
_HOMES = {
    "BundleError": "gymtrain.errors",
    "Callback": "gymtrain.training.callbacks",
    "CallbackError": "gymtrain.errors",
    "DataError": "gymtrain.errors",
    "Dataset": "gymtrain.specs",
    "DownloadError": "gymtrain.errors",
    "GymtrainError": "gymtrain.errors",
    "InputError": "gymtrain.errors",
    "MissingDependencyError": "gymtrain.errors",
    "Model": "gymtrain.specs",
    "NonFiniteLossError": "gymtrain.errors",
    "NotTrainedError": "gymtrain.errors",
    "RegistrationError": "gymtrain.errors",
    "SaveError": "gymtrain.errors",
    "SpecError": "gymtrain.errors",
    "StoreError": "gymtrain.errors",
    "TaskError": "gymtrain.errors",
    "Tracking": "gymtrain.specs",
    "Trainer": "gymtrain.trainer",
    "TrainingError": "gymtrain.errors",
    "inspect": "gymtrain.bundle",
    "register": "gymtrain.registry",
}

__all__ = [
    "BundleError",
    "Callback",
    "CallbackError",
    "DataError",
    "Dataset",
    "DownloadError",
    "GymtrainError",
    "InputError",
    "MissingDependencyError",
    "Model",
    "NonFiniteLossError",
    "NotTrainedError",
    "RegistrationError",
    "SaveError",
    "SpecError",
    "StoreError",
    "TaskError",
    "Tracking",
    "Trainer",
    "TrainingError",
    "inspect",
    "register",
]

if TYPE_CHECKING:
    from gymtrain.bundle import inspect
    from gymtrain.errors import (
        BundleError,
        CallbackError,
        DataError,
        DownloadError,
        GymtrainError,
        InputError,
        MissingDependencyError,
        NonFiniteLossError,
        NotTrainedError,
        RegistrationError,
        SaveError,
        SpecError,
        StoreError,
        TaskError,
        TrainingError,
    )
    from gymtrain.registry import register
    from gymtrain.specs import Dataset, Model, Tracking
    from gymtrain.trainer import Trainer
    from gymtrain.training.callbacks import Callback


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gymtrain' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
