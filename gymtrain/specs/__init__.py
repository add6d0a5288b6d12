"""What an experiment is: three specs, their defaults and their checks. Loads neither torch nor mlflow."""

from gymtrain.specs.components import Component
from gymtrain.specs.dataset import Dataset, Samples
from gymtrain.specs.experiment import Experiment, spec_sha256
from gymtrain.specs.files import read_spec_file
from gymtrain.specs.fingerprint import fingerprint, is_fingerprint
from gymtrain.specs.json_schema import json_schema
from gymtrain.specs.model import Model, StartFrom, Training
from gymtrain.specs.tracking import Tracking

__all__ = [
    "Component",
    "Dataset",
    "Experiment",
    "Model",
    "Samples",
    "StartFrom",
    "Tracking",
    "Training",
    "fingerprint",
    "is_fingerprint",
    "json_schema",
    "read_spec_file",
    "spec_sha256",
]
