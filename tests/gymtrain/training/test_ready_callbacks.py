from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from gymtrain import SpecError
from gymtrain.training.checkpointing import ModelCheckpoint
from gymtrain.training.monitoring import LearningRateMonitor
from gymtrain.training.stopping import EarlyStopping, TimeLimit


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (EarlyStopping, {"monitor": ""}, "EarlyStopping.monitor: got ''; expected the name of a metric such as"),
        (EarlyStopping, {"monitor": 3}, "EarlyStopping.monitor: got 3"),
        (EarlyStopping, {"mode": "maximum"}, "EarlyStopping.mode: got 'maximum'; expected 'min' or 'max'"),
        (EarlyStopping, {"patience": -1}, "EarlyStopping.patience: got -1; expected an integer of at least 0"),
        (EarlyStopping, {"patience": 2.5}, "EarlyStopping.patience: got 2.5"),
        (EarlyStopping, {"patience": True}, "EarlyStopping.patience: got True"),
        (
            EarlyStopping,
            {"min_delta": -0.1},
            "EarlyStopping.min_delta: got -0.1; expected a finite number of at least 0",
        ),
        (EarlyStopping, {"threshold": math.nan}, "EarlyStopping.threshold: got nan; expected a finite number, or None"),
        (EarlyStopping, {"divergence_ratio": 1}, "got 1; expected a finite number above 1, or None"),
        (TimeLimit, {"minutes": 0}, "TimeLimit.minutes: got 0; expected a finite number above 0"),
        (TimeLimit, {"minutes": "5"}, "TimeLimit.minutes: got '5'"),
        (TimeLimit, {"minutes": math.inf}, "TimeLimit.minutes: got inf"),
        (LearningRateMonitor, {"every_n_steps": 0}, "got 0; expected an integer of at least 1"),
        (ModelCheckpoint, {"every_epochs": 0}, "got 0; expected an integer of at least 1, or None"),
        (ModelCheckpoint, {"every_steps": 1.5}, "ModelCheckpoint.every_steps: got 1.5"),
        (ModelCheckpoint, {"every_minutes": 0}, "got 0; expected a finite number above 0, or None"),
        (
            ModelCheckpoint,
            {},
            "ModelCheckpoint: it would never ask for a checkpoint; give every_epochs, every_steps or",
        ),
    ],
)
def test_arguments_that_no_callback_could_use_are_refused_at_once(make, arguments, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        make(**arguments)


def test_all_that_is_wrong_is_said_together():
    with pytest.raises(SpecError, match="2 problems"):
        EarlyStopping(patience=-1, mode="up")


def test_numbers_of_other_libraries_are_numbers():
    EarlyStopping(patience=np.int64(3), min_delta=np.float32(0.5), threshold=Fraction(1, 2))
    LearningRateMonitor(np.int32(5))
    ModelCheckpoint(every_minutes=np.float64(0.5))
