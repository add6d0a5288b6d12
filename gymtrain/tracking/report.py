"""What training tells about itself, and where it goes: params, metrics, tags, data, the description."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from gymtrain.errors import TrainingError
from gymtrain.specs import Experiment
from gymtrain.tracking.params import model_params, training_params
from gymtrain.tracking.system import SystemMetrics
from gymtrain_trackers import DatasetInput, Metric, Recorder, Run, TrackerError, load

Context = Literal["training", "validation", "test"]


class Report:
    """Reports one run; a context manager that ends it with the right status.

    Args:
        experiment: What is run.
        spec: The same, written out.
        sha256: What names it.

    Raises:
        TrainingError: The run's directory cannot be made, or a tracker refuses its arguments.
    """

    def __init__(self, experiment: Experiment, spec: dict[str, Any], sha256: str) -> None:
        tracking = experiment.tracking
        name = tracking.run_name or f"{_short(experiment.model.model.type)}-{sha256[:6]}"
        group = tracking.experiment or _short(experiment.dataset.dataset.type)
        self.run = Run.new(Path(tracking.root).expanduser(), group, name)
        self._options = tracking
        self._names = [component.type for component in tracking.trackers]
        self._system: SystemMetrics | None = None
        try:
            trackers = [load(component.target, **component.arguments) for component in tracking.trackers]
            self._recorder = Recorder(trackers, self.run, tracking.on_error)
        except TrackerError as error:
            raise TrainingError(f"tracking.trackers: {error}") from error
        self._spec = spec
        self._sha256 = sha256

    def __enter__(self) -> Report:
        """Begin the run; the trackers start in a thread of their own."""
        try:
            self._recorder.__enter__()
        except OSError as error:
            raise TrainingError(
                f"tracking.root: cannot write to {str(self.run.directory)!r} ({error.strerror}); give another root"
            ) from error
        except TrackerError as error:
            raise TrainingError(f"tracking: {error}") from error
        if self._options.log_system_metrics and self._names:
            self._system = SystemMetrics()
            self._system.start()
        return self

    def spec(self) -> None:
        """Report what is run: the resolved spec as params and its hash, and the tags of the spec."""
        if self._options.log_model_params:
            self._recorder.log_params(model_params(self._spec))
        if self._options.log_training_params:
            self._recorder.log_params(training_params(self._spec))
        self._recorder.log_tags({"gymtrain.spec_sha256": self._sha256, **self._options.tags})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: FINISHED, FAILED with the traceback, or KILLED on a signal.

        Raises:
            TrainingError: A tracker failed, and `tracking.on_error` is `"raise"`.
        """
        try:
            if self._system is not None:
                self._system.stop()
                self._recorder.log_metric_points(self._system.take())
        except TrackerError as failure:
            if error is None:
                kind, error, trace = type(failure), failure, failure.__traceback__
        try:
            self._recorder.__exit__(kind, error, trace)
        except TrackerError as failure:
            error = failure
        if isinstance(error, TrackerError):
            raise TrainingError(f"tracking: {error}") from error

    def wait_prepared(self) -> None:
        """Wait until the packages of the trackers are imported, before libraries are used that look at each other."""
        self._recorder.wait_prepared()

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the metrics of an epoch, counted from 1."""
        self._metrics(metrics, step=epoch)

    def steps(self, points: Sequence[tuple[int, int, float, float]]) -> None:
        """Report losses of single steps: (step, epoch, loss, unix time)."""
        if self._options.log_model_metrics:
            batch = [
                Metric(key, value, step, when)
                for step, epoch, loss, when in points
                for key, value in (("batch/loss", loss), ("batch/epoch", epoch))
            ]
            self._recorder.log_metric_points(batch)

    def values(self, points: Sequence[tuple[str, float, int]]) -> None:
        """Report values of single steps: (name, value, step)."""
        if self._options.log_model_metrics:
            now = time.time()
            self._recorder.log_metric_points(
                [Metric(f"batch/{name}", value, step, now) for name, value, step in points]
            )

    def summary(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        """Report values that belong to the run as a whole, at the epoch whose weights are kept."""
        self._metrics(metrics, step=epoch)

    def data(
        self, name: str, part: Context, digest: str, schema: Mapping[str, Any], profile: Mapping[str, Any]
    ) -> None:
        """Report the rows of one part, named by a digest over all their bytes."""
        source = {"type": name}
        self._recorder.log_inputs([DatasetInput(name, digest[:36], part, source, schema, profile)])

    def machine(self, hardware: Mapping[str, Any]) -> None:
        """Report what the run ran on, to filter by."""
        cpu, libraries = hardware["cpu"], hardware["libraries"]
        tags = {
            "gymtrain.version": libraries.get("gymtrain"),
            "gymtrain.torch": libraries.get("torch"),
            "gymtrain.python": hardware["python"],
            "gymtrain.cpu": cpu["brand"],
            "gymtrain.cores": cpu["cores"],
            "gymtrain.gpu": ", ".join(gpu["name"] for gpu in hardware["gpu"]) or "none",
        }
        self._recorder.log_tags({key: str(value) for key, value in tags.items()})

    def description(self, text: str) -> None:
        """Report what people read on the run's page, in Markdown."""
        self._recorder.log_tags({"mlflow.note.content": text})

    def tag(self, name: str, value: str) -> None:
        """Report one more thing to find the run by."""
        self._recorder.log_tags({name: value})

    def asset(self, path: Path, name: str) -> None:
        """Report a file."""
        self._recorder.log_asset(path, name)

    def figure(self, figure: Any, name: str, step: int = 0) -> None:
        """Report a figure of matplotlib; it is written as a PNG under `figures/` in the run's directory."""
        self._recorder.log_figure(figure, name, step)

    @property
    def wants(self) -> frozenset[str]:
        """What a tracker asks for that costs time: `"histograms"`, `"graph"`."""
        return frozenset(self._recorder.wants)

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float], epoch: int) -> None:
        """Report how many values lie between edges: counts (bins,), edges (bins + 1,)."""
        self._recorder.log_histogram(name, counts, edges, step=epoch)

    def graph(self, path: Path) -> None:
        """Report a file that shows the model: a `GraphDef` of TensorBoard, serialized."""
        self._recorder.log_graph(path)

    def info(self) -> dict[str, Any]:
        """Return where the run is: directories, ids, and the command that opens the UI on it."""
        trackers: dict[str, Any] = self._recorder.info()
        mlflow, tensorboard = trackers.get("mlflow", {}), trackers.get("tensorboard", {})
        return {
            "run_id": mlflow.get("run_id") or self.run.id,
            "name": self.run.name,
            "experiment": self.run.experiment,
            "experiment_id": mlflow.get("experiment_id"),
            "tracking_uri": mlflow.get("tracking_uri"),
            "run_dir": str(self.run.directory),
            "checkpoint_dir": str(self.run.directory / "checkpoints"),
            "tensorboard_dir": tensorboard.get("directory"),
            "ui": mlflow.get("ui") or tensorboard.get("ui"),
            "trackers": trackers,
        }

    def _metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self._options.log_model_metrics:
            self._recorder.log_metrics(dict(metrics), step=step)
        if self._system is not None:
            self._recorder.log_metric_points(self._system.take())


def _short(name: str) -> str:
    """The part of `package.module:Class` that people call it by."""
    return os.path.basename(name.rpartition(":")[2]) or "run"
