"""Turns what training reports into calls of `gymtrain_trackers`; the only room that imports it."""

from gymtrain.tracking.autologging import no_autologging
from gymtrain.tracking.recovery import Delivered, deliver, deliver_all
from gymtrain.tracking.report import Report

__all__ = ["Delivered", "Report", "deliver", "deliver_all", "no_autologging"]
