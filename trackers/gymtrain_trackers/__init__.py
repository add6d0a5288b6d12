"""One tracker API over MLflow, TensorBoard and others.

    from gymtrain_trackers import Recorder, Run, load

    with Recorder([load("mlflow"), load("tensorboard")], Run.new("runs", "digits", "mlp")) as recorder:
        recorder.log_params({"lr": 0.1})
        for epoch in range(1, 11):
            recorder.log_metrics({"train/loss": 1 / epoch}, step=epoch)

Calls on a `Recorder` go to a journal on disk and return; threads of their own tell the trackers. What a tracker missed
is delivered later by `sync`. A `Tracker` stores runs in one kind of store; write your own by subclassing it, name it
with `register`, and check it with `gymtrain_trackers.conformance.TrackerConformance`.
"""

from __future__ import annotations

from .errors import (
    ArgumentError,
    MissingPackageError,
    RejectedError,
    RunBusyError,
    TemporaryError,
    TrackerError,
    TrackingWarning,
)
from .journal import read_journal
from .record import Record, read_record
from .recorder import Recorder
from .registry import load, register, tracker_class, tracker_names
from .run import DatasetInput, Metric, ModelFile, Run, Status
from .starts import recorded_run
from .syncing import Synced, destinations, sync, unfinished
from .tracker import Tracker

__all__ = [
    "ArgumentError",
    "DatasetInput",
    "Metric",
    "MissingPackageError",
    "ModelFile",
    "Record",
    "Recorder",
    "RejectedError",
    "Run",
    "RunBusyError",
    "Status",
    "Synced",
    "TemporaryError",
    "Tracker",
    "TrackerError",
    "TrackingWarning",
    "destinations",
    "load",
    "read_journal",
    "read_record",
    "recorded_run",
    "register",
    "sync",
    "tracker_class",
    "tracker_names",
    "unfinished",
]
