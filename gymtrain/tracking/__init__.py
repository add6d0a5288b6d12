"""Turns what training reports into calls of `gymtrain_trackers`, and reads runs; the only room that imports it."""

from gymtrain.tracking.autologging import no_autologging
from gymtrain.tracking.better import better, metric_name
from gymtrain.tracking.fetching import fetched
from gymtrain.tracking.recovery import Delivered, deliver, deliver_all
from gymtrain.tracking.report import Report
from gymtrain.tracking.runs import (
    Data,
    RunSummary,
    bundled_run,
    find_run,
    is_uri,
    read_runs,
    run_in,
    runs_in,
    runs_of,
)
from gymtrain.tracking.stores import Stores, stores_of
from gymtrain_trackers.addresses import without_password

__all__ = [
    "Data",
    "Delivered",
    "Report",
    "RunSummary",
    "Stores",
    "better",
    "bundled_run",
    "deliver",
    "deliver_all",
    "fetched",
    "find_run",
    "is_uri",
    "metric_name",
    "no_autologging",
    "read_runs",
    "run_in",
    "runs_in",
    "runs_of",
    "stores_of",
    "without_password",
]
