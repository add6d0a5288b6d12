"""The tests that every tracker must pass; third parties run them against their own.

    class TestMyTracker(TrackerConformance):
        @pytest.fixture
        def tracker(self, tmp_path):
            return MyTracker(tmp_path)

        def read(self, tracker, run):
            return Stored(params=..., metrics=..., status=...)

A tracker of a remote store sets `takes_calls_twice = True`: its calls are made again when an answer is lost.

`read` is called after `end` and asks the store itself, not the tracker's memory. A field of `Stored` that is None
says that the tracker does not keep such things; the tests that are about them are then skipped.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from .errors import RejectedError, TemporaryError
from .run import DatasetInput, Metric, ModelFile, Run, Status
from .strict_json import dumps, plain
from .tracker import Tracker

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """What a store holds of one run; None where it does not hold such things.

    Args:
        params: Text by key; a value that was logged as a string is that string.
        tags: The same; there may be more than were logged.
        metrics: `(step, value)` by key, in the order of the steps.
        assets: The content of each file by its name.
        images: The shape by `(name, step)`; the name may be rewritten but not the last part of it.
        inputs: The context by name of the data.
        status: What `end` was given.
        histograms: How many values there are in all, by `(name, step)`.
        graph: The content of the file that shows the model.
        models: The content of the file of each model by its name.
    """

    params: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    metrics: Mapping[str, list[tuple[int, float]]] | None = None
    assets: Mapping[str, bytes] | None = None
    images: Mapping[tuple[str, int], tuple[int, ...]] | None = None
    inputs: Mapping[str, str] | None = None
    status: Status | None = None
    histograms: Mapping[tuple[str, int], int] | None = None
    graph: bytes | None = None
    models: Mapping[str, bytes] | None = None


class TrackerConformance:
    """Subclass it, override `tracker` and `read`, and `root` if runs of one store should share it."""

    @pytest.fixture
    def tracker(self) -> Tracker:
        """Return a new tracker that was not started."""
        raise NotImplementedError("override the fixture `tracker`")

    takes_calls_twice: ClassVar[bool] = False
    """Whether the tracker may raise temporary errors after it has stored something, so that a call comes twice."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return the root directory of the runs."""
        return tmp_path

    @pytest.fixture
    def run(self, root: Path) -> Run:
        """Return a new run."""
        run = Run.new(root, "conformance", "a run")
        run.directory.mkdir(parents=True)
        return run

    def read(self, tracker: Tracker, run: Run) -> Stored:
        """Return what the store holds of the run, after `end`."""
        raise NotImplementedError("override `read`")

    def test_params_and_tags_are_stored(self, tracker: Tracker, run: Run) -> None:
        """Several calls add up; strings stay as they are; a later tag replaces an earlier one."""
        tracker.start(run)
        tracker.log_params({"model/type": "mlp", "training/lr": 0.1})
        tracker.log_param("unicode", "größe 中")
        tracker.log_tags({"team": "a"})
        tracker.log_tag("team", "b")
        tracker.end("FINISHED")
        stored = self.read(tracker, run)
        params, tags = _kept(stored.params), _kept(stored.tags)
        assert params["model/type"] == "mlp"
        assert float(params["training/lr"]) == 0.1
        assert params["unicode"] == "größe 中"
        assert tags["team"] == "b"

    def test_params_of_every_json_type_are_taken(self, tracker: Tracker, run: Run) -> None:
        """None, booleans, lists, dicts and long texts are no reason to fail."""
        values = {
            "none": None,
            "bool": True,
            "list": [1, "a"],
            "dict": {"a": 1},
            "long": "x" * 10_000,
            "nan": float("nan"),
        }
        tracker.start(run)
        tracker.log_params(values)
        tracker.end("FINISHED")
        assert set(_kept(self.read(tracker, run).params)) == set(values)

    def test_metrics_are_stored_in_order(self, tracker: Tracker, run: Run) -> None:
        """More points than fit one request of any store; two keys on axes of their own."""
        steps = range(1, 1502)
        tracker.start(run)
        tracker.log_metrics([Metric("batch/loss", 1 / step, step, run.started + step) for step in steps])
        tracker.log_metric("val/loss", 0.5, step=1)
        tracker.log_metric("val/loss", 0.25, step=2)
        tracker.end("FINISHED")
        metrics = _kept(self.read(tracker, run).metrics)
        assert [step for step, _ in metrics["batch/loss"]] == list(steps)
        assert [value for _, value in metrics["batch/loss"]] == pytest.approx([1 / step for step in steps])
        assert metrics["val/loss"] == [(1, 0.5), (2, 0.25)]

    def test_metrics_that_are_not_finite_do_not_hurt_the_others(self, tracker: Tracker, run: Run) -> None:
        """A store may leave them out, but not fail, and not turn them into numbers."""
        tracker.start(run)
        tracker.log_metrics(
            [Metric("loss", float(value), step, run.started) for step, value in enumerate(("1", "nan", "inf"))]
        )
        tracker.end("FINISHED")
        points = _kept(self.read(tracker, run).metrics)["loss"]
        assert points[0] == (0, 1.0)
        assert all(abs(value) < 1e30 or value in (float("inf"),) or value != value for _, value in points)

    def test_keys_with_any_character_are_taken(self, tracker: Tracker, run: Run) -> None:
        """The names may be rewritten; keys that differ stay apart."""
        keys = ["layer[0]", "layer(0)", "/leading", "a//b", "../up", "acc %", "k" * 300, "k" * 301]
        tracker.start(run)
        tracker.log_params(dict.fromkeys(keys, "1"))
        tracker.log_tags(dict.fromkeys(keys, "1"))
        tracker.log_metrics([Metric(key, 1.0, 1, run.started) for key in keys])
        tracker.end("FINISHED")
        stored = self.read(tracker, run)
        assert stored.params is None or len(stored.params) == len(keys)
        assert len(_kept(stored.metrics)) == len(keys)

    def test_assets_keep_their_name_and_content(self, tracker: Tracker, run: Run) -> None:
        """The name, its folder included, counts; not the name of the file it came from."""
        path = run.directory / "temporary.bin"
        path.write_bytes(b"\x00\x01")
        tracker.start(run)
        tracker.log_asset(path, "model/final.bin")
        tracker.log_asset(path, "temporary.bin")
        tracker.end("FINISHED")
        assets = _kept(self.read(tracker, run).assets)
        assert assets == {"model/final.bin": b"\x00\x01", "temporary.bin": b"\x00\x01"}

    def test_a_directory_is_stored_with_all_its_files(self, tracker: Tracker, run: Run) -> None:
        """Each under the name of the asset."""
        folder = run.directory / "plots"
        (folder / "val").mkdir(parents=True)
        (folder / "roc.txt").write_bytes(b"roc")
        (folder / "val" / "roc.txt").write_bytes(b"val")
        tracker.start(run)
        tracker.log_asset(folder, "report")
        tracker.end("FINISHED")
        assets = _kept(self.read(tracker, run).assets)
        assert assets == {"report/roc.txt": b"roc", "report/val/roc.txt": b"val"}

    def test_images_keep_their_shape(self, tracker: Tracker, run: Run) -> None:
        """Grey and coloured."""
        import numpy as np

        tracker.start(run)
        tracker.log_image(np.zeros((4, 6), np.uint8), "grey", 1)
        tracker.log_image(np.zeros((4, 6, 3), np.uint8), "colour", 2)
        tracker.end("FINISHED")
        images = _kept(self.read(tracker, run).images)
        assert images["grey", 1][:2] == (4, 6)
        assert images["colour", 2][:2] == (4, 6)

    def test_figures_are_stored_as_images(self, tracker: Tracker, run: Run) -> None:
        """At the size of the figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2, 1), dpi=50)
        figure.subplots().plot([1, 2])
        tracker.start(run)
        tracker.log_figure(figure, "curve", 3)
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).images)["curve", 3][:2] == (50, 100)

    def test_histograms_keep_their_counts(self, tracker: Tracker, run: Run) -> None:
        """At each of their steps; more bins than any store takes are no reason to fail."""
        import numpy as np

        tracker.start(run)
        tracker.log_histogram("weights/a", np.array([1, 0, 2]), np.array([-1.0, 0.0, 0.5, 2.0]), 1)
        tracker.log_histogram("weights/a", np.ones(1000, np.int64), np.linspace(-1.0, 1.0, 1001), 2)
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).histograms) == {("weights/a", 1): 3, ("weights/a", 2): 1000}

    def test_the_graph_is_stored(self, tracker: Tracker, run: Run) -> None:
        """As the file has it."""
        path = run.directory / "graph.pb"
        path.write_bytes(b"\n\x06\n\x04node")
        tracker.start(run)
        tracker.log_graph(path)
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).graph) == b"\n\x06\n\x04node"

    def test_inputs_are_stored(self, tracker: Tracker, run: Run) -> None:
        """Each with what it was used for."""
        tracker.start(run)
        tracker.log_inputs([DatasetInput("digits", "a" * 36, "training", {"type": "digits"}, {}, {"rows": 10})])
        tracker.log_inputs([DatasetInput("digits test", "b", "test")])
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).inputs) == {"digits": "training", "digits test": "test"}

    def test_a_model_is_stored_once_also_when_it_is_logged_again(self, tracker: Tracker, run: Run) -> None:
        """By its name and its digest; the module that loads it need not be there."""
        path = run.directory / "model.zip"
        path.write_bytes(b"weights")
        model = ModelFile(
            "a model",
            path,
            hashlib.sha256(b"weights").hexdigest(),
            loader="a_module_of_theirs",
            inputs=[{"type": "any", "name": "age", "required": False}],
            outputs=[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
            params=[{"name": "proba", "type": "boolean", "default": False, "shape": None}],
            example={"dataframe_split": {"columns": ["age"], "data": [[30.0], [None]]}},
            requirements=("numpy==2.0.0",),
        )
        tracker.start(run)
        tracker.log_model(model)
        tracker.log_model(model)
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).models) == {"a model": b"weights"}

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_the_status_is_the_one_given_at_the_end(self, tracker: Tracker, run: Run, status: Status) -> None:
        """Also for a run that logged nothing."""
        tracker.start(run)
        tracker.end(status)
        assert _kept(self.read(tracker, run).status) == status

    def test_a_call_that_is_made_again_stores_nothing_twice(self, tracker: Tracker, run: Run) -> None:
        """As after an answer that was lost, `start` included; for a tracker that sets `takes_calls_twice`."""
        if not self.takes_calls_twice:
            pytest.skip("the tracker does not raise temporary errors")
        point = Metric("loss", 0.5, 1, run.started)
        for _ in range(2):
            tracker.start(run)
        for _ in range(2):
            tracker.log_params({"lr": 0.1})
            tracker.log_tags({"team": "a"})
            tracker.log_metrics([point])
        tracker.end("FINISHED")
        assert _kept(self.read(tracker, run).metrics) == {"loss": [(1, 0.5)]}

    def test_a_run_is_gone_on_with_by_another_process(self, tracker: Tracker, run: Run) -> None:
        """The new tracker resumes behind the last call, or else is told everything again: the store is the same."""
        recipe = tracker.arguments(run) if tracker.is_lasting else None
        if recipe is None:
            pytest.skip("the tracker cannot be made again")
        first = type(tracker)(**recipe)
        first.prepare()
        first.start(run)
        first.log_params({"lr": 0.1, "layer[0]": 1})
        first.log_metrics([Metric("loss", 0.5, 1, run.started), Metric("layer[0]", 1.0, 1, run.started)])
        state = json.loads(dumps(first.state()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # its process died, so it has closed nothing
            del first
            gc.collect()
        other = type(tracker)(**recipe)
        other.prepare()
        if not other.resume(run, state):
            other.start(run)
            other.log_params({"lr": 0.1, "layer[0]": 1})
            other.log_metrics([Metric("loss", 0.5, 1, run.started), Metric("layer[0]", 1.0, 1, run.started)])
        other.log_metrics([Metric("loss", 0.25, 2, run.started), Metric("layer(0)", 2.0, 1, run.started)])
        other.end("FINISHED")
        metrics = _kept(self.read(other, run).metrics)
        assert metrics["loss"] == [(1, 0.5), (2, 0.25)]
        assert len(metrics) == 3
        assert sum(len(points) for points in metrics.values()) == 4

    def test_what_the_journal_keeps_of_the_tracker_is_json_without_secrets(self, tracker: Tracker, run: Run) -> None:
        """Arguments and state are written to disk beside the run."""
        recipe = tracker.arguments(run)
        tracker.start(run)
        tracker.log_metric("loss", 0.5, step=1)
        assert plain(recipe) == recipe
        assert plain(tracker.state()) == tracker.state()
        tracker.end("FINISHED")

    def test_the_process_and_what_was_given_stay_as_they_were(self, tracker: Tracker, run: Run) -> None:
        """All calls come from a thread that is not the main one; what belongs to the process is the caller's."""
        params, tags = {"hidden": [64, 64], "nested": {"a": 1}}, {"team": "a"}
        metrics = [Metric("loss", 0.5, 1, run.started)]
        given = copy.deepcopy((params, tags, metrics))

        def tell() -> None:
            tracker.start(run)
            tracker.log_params(params)
            tracker.log_tags(tags)
            tracker.log_metrics(metrics)
            tracker.end("FINISHED")

        tracker.prepare()  # imports what it needs
        before = _process()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(tell).result()
        assert _process() == before
        assert (params, tags, metrics) == given

    def test_what_passes_is_told_from_what_does_not(self, tracker: Tracker) -> None:
        """What the network does passes; a bug does not."""
        assert tracker.is_temporary(TemporaryError("503"))
        assert tracker.is_temporary(ConnectionRefusedError())
        assert tracker.is_temporary(TimeoutError())
        assert not tracker.is_temporary(ValueError())
        assert not tracker.is_temporary(RejectedError(["one"]))

    def test_info_is_json_and_does_not_change_at_the_end(self, tracker: Tracker, run: Run) -> None:
        """Callers keep what they were told at the start."""
        tracker.start(run)
        before = tracker.info()
        tracker.end("FINISHED")
        assert tracker.info() == before
        assert dumps(before).startswith("{")


def _process() -> tuple[object, ...]:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    hooks = sys.exit, sys.excepthook, threading.excepthook, sys.stdout, sys.stderr
    return os.getcwd(), dict(os.environ), handlers, hooks, logging.getLogger().level


def _kept(field: T | None) -> T:
    if field is None:
        pytest.skip("the tracker does not keep these")
    return field
