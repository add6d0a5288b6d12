"""What training tells about itself, and where it goes: params, metrics, tags, data, the description."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from gymtrain.errors import TrainingError
from gymtrain.specs import Experiment
from gymtrain.tracking.better import DIRECTION_TAGS, MODE_TAG, MONITOR_TAG, Mode
from gymtrain.tracking.params import model_params, training_params
from gymtrain.tracking.provenance import checkout, requirements
from gymtrain.tracking.system import SystemMetrics
from gymtrain_trackers import (
    DatasetInput,
    Metric,
    ModelFile,
    Recorder,
    Run,
    TrackerError,
    TrackingWarning,
    load,
    recorded_run,
)
from gymtrain_trackers.files import replace

Context = Literal["training", "validation", "test"]

START_SECONDS = 10.0
# Of the digest of a part, the most that MLflow takes.
DIGEST_DIGITS = 36


class Report:
    """Reports one run; a context manager that ends it with the right status.

    Args:
        experiment: What is run.
        spec: The same, written out.
        sha256: What names it.
        earlier: The directory of a run that this may go on with.
        is_aside: Whether it only tries something: it takes over no run of MLflow that the user has named for the
            training, and is shown below it.

    Attributes:
        run: The run: the earlier one, if it is of the same root, experiment and name, or one of its own.
        has_begun: Whether the run's directory is ours to write.

    Raises:
        TrainingError: A tracker refuses its arguments.
    """

    def __init__(
        self,
        experiment: Experiment,
        spec: dict[str, Any],
        sha256: str,
        earlier: Path | None = None,
        *,
        is_aside: bool = False,
    ) -> None:
        tracking = experiment.tracking
        name = tracking.run_name or f"{_short(experiment.model.model.type)}-{sha256[:6]}"
        group, is_default = _group(experiment)
        new = dataclasses.replace(Run.new(Path(tracking.root).expanduser(), group, name), default_experiment=is_default)
        found = None if earlier is None else _found(earlier, new, tracking.run_name)
        self.run = found or new
        self.goes_on = found is not None
        self.has_begun = False
        self._options = tracking
        self._names = [component.type for component in tracking.trackers]
        self._system: SystemMetrics | None = None
        try:
            trackers = [
                load(each.target, **(_aside(each.arguments) if is_aside and each.type == "mlflow" else each.arguments))
                for each in tracking.trackers
            ]
            self._recorder = Recorder(trackers, self.run, tracking.on_error)
        except TrackerError as error:
            raise TrainingError(f"tracking.trackers: {error}") from error
        self._spec = spec
        self._sha256 = sha256

    def __enter__(self) -> Report:
        """Begin the run, or go on with it; the trackers start in threads of their own.

        Raises:
            TrainingError: The run's directory cannot be written, or another process is at work on the run.
        """
        try:
            self._recorder.__enter__()
        except OSError as error:
            raise TrainingError(
                f"tracking.root: cannot write to {str(self.run.directory)!r} ({error.strerror}); give another root"
            ) from error
        except TrackerError as error:
            raise TrainingError(f"tracking: {error}") from error
        if self._options.log_system_metrics and self._names:
            last = self._recorder.last_step(SystemMetrics.FIRST_KEY)
            self._system = SystemMetrics(0 if last is None else last + 1)
            self._system.start()
        self.has_begun = True
        return self

    def spec(self) -> None:
        """Report what is run: the resolved spec as params and as a file, its hash, and the tags of the spec.

        A run that goes on keeps the file of its first spec; one that differs lies beside it.
        """
        if self._options.log_model_params:
            self._recorder.log_params(model_params(self._spec))
        if self._options.log_training_params:
            self._recorder.log_params(training_params(self._spec))
        tags = {"gymtrain.spec_sha256": self._sha256, **self._options.tags}
        if self.goes_on:
            tags["gymtrain.resumes"] = str(self._recorder.starts)
        self._recorder.log_tags(tags)
        text = json.dumps(self._spec, indent=2, ensure_ascii=False)
        if not self.goes_on:
            self._file("spec.json", text)
        elif text != self._first_spec():
            self._file(f"spec.resume-{self._recorder.starts}.json", text)

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

    def wait_started(self) -> None:
        """Wait until the trackers know where the run is; for stores that do not answer, as long as the end would."""
        self._recorder.wait_started(START_SECONDS)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the metrics of an epoch, counted from 1."""
        self._metrics(metrics, step=epoch)

    def steps(self, points: Sequence[tuple[int, int | None, float, float]]) -> None:
        """Report losses of single steps: (step, epoch, loss, unix time).

        The epoch is there at the first of its steps alone: beside each loss it would double what is delivered.
        """
        if not self._options.log_model_metrics:
            return
        batch: list[Metric] = []
        for step, epoch, loss, when in points:
            batch.append(Metric("batch/loss", loss, step, when))
            if epoch is not None:
                batch.append(Metric("batch/epoch", epoch, step, when))
        self._recorder.log_metric_points(batch)

    def values(self, points: Sequence[tuple[str, float, int]]) -> None:
        """Report values of single steps: (name, value, step)."""
        if self._options.log_model_metrics:
            now = time.time()
            self._recorder.log_metric_points(
                [Metric(f"batch/{name}", value, step, now) for name, value, step in points]
            )

    def directions(self, monitor: str | None, mode: Mode, directions: Mapping[str, Mode]) -> None:
        """Report which metric decides, and of which metrics less or more is better.

        Args:
            monitor: The metric by which the best epoch is chosen, such as `val/loss`; None for none.
            mode: Whether it is to be small or large.
            directions: By name, such as `loss`, whatever the part.
        """
        named: dict[str, Any] = {
            tag: [name for name, each in directions.items() if each == mode] for mode, tag in DIRECTION_TAGS.items()
        }
        if monitor is not None:
            named |= {MONITOR_TAG: monitor, MODE_TAG: mode}
        self._recorder.log_tags(named)

    def summary(self, metrics: Mapping[str, float], *, epoch: int, again: bool) -> None:
        """Report values that belong to the run as a whole, at the epoch whose weights are kept.

        Args:
            metrics: The value by name.
            epoch: Whose weights are kept.
            again: Whether they replace those that an earlier process has reported for that epoch.
        """
        self._metrics(metrics, step=epoch, again=again)

    def data(
        self, name: str, part: Context, digest: str, schema: Mapping[str, Any], profile: Mapping[str, Any]
    ) -> None:
        """Report the rows of one part, named by a digest over all their bytes."""
        source = {"type": name}
        self._recorder.log_inputs([DatasetInput(name, digest[:DIGEST_DIGITS], part, source, schema, profile)])

    def machine(self, hardware: Mapping[str, Any], device: str) -> None:
        """Report what the run ran on and was made from: tags to filter by, and files that hold all of it."""
        cpu, libraries = hardware["cpu"], hardware["libraries"]
        memory = hardware["memory"]["limit_bytes"] or hardware["memory"]["total_bytes"] or 0
        tags = {
            "gymtrain.version": libraries.get("gymtrain"),
            "gymtrain.torch": libraries.get("torch"),
            "gymtrain.python": hardware["python"],
            "gymtrain.cpu": cpu["brand"],
            "gymtrain.cores": cpu["cores"],
            "gymtrain.gpu": ", ".join(gpu["name"] for gpu in hardware["gpu"]) or "none",
            "gymtrain.device": device,
            "gymtrain.memory_gb": f"{memory / 1e9:.1f}",
        }
        self._recorder.log_tags({key: str(value) for key, value in tags.items()})
        self._recorder.log_tags({f"gymtrain.{key}": value for key, value in self._checkout.items()})
        if self.is_shown:
            self._file("hardware.json", json.dumps(hardware, indent=2, ensure_ascii=False))
            self._file("requirements.txt", requirements())

    def description(self, text: str) -> None:
        """Report what people read on the run's page, in Markdown."""
        self._recorder.log_tags({"mlflow.note.content": text})

    def tag(self, name: str, value: str) -> None:
        """Report one more thing to find the run by."""
        self._recorder.log_tags({name: value})

    def asset(self, path: Path, name: str) -> None:
        """Report a file."""
        self._recorder.log_asset(path, name)

    @property
    def keeps_bundle(self) -> bool:
        """Whether the run keeps the bundle of its model: where a tracker outlives the process."""
        return self._recorder.is_lasting and (self._options.log_bundle or "models" in self.wants)

    def bundle(self, path: Path, describe: Callable[[], Mapping[str, Any]]) -> None:
        """Report the bundle of the run: its digest, the file, and the model in it where a tracker stores models.

        Args:
            path: Of the file.
            describe: Returns what `gymtrain_trackers.ModelFile` holds beside name, path and digest.
        """
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.tag("gymtrain.bundle", sha256)
        # Stores refuse names for one character or another, and the name is a part of an address.
        name = re.sub(r"[^\w.-]", "_", self.run.name)
        if self._options.log_bundle:
            self.asset(path, f"model/{name}.zip")
        if "models" in self.wants:
            self._recorder.log_model(ModelFile(name, path, sha256, **describe()))

    def figure(self, figure: Any, name: str, step: int = 0) -> None:
        """Report a figure of matplotlib; it is written as a PNG under `figures/` in the run's directory."""
        self._recorder.log_figure(figure, name, step)

    @property
    def wants_figures(self) -> bool:
        """Whether what was learned is to be drawn."""
        return self._options.log_figures and self.is_shown

    @property
    def is_shown(self) -> bool:
        """Whether there are trackers, so that it is worth the time to find out what people like to see."""
        return bool(self._names)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """While this is entered, what goes wrong is warned of, and only a tracker that is to raise does so."""
        try:
            yield
        except TrackerError:
            raise
        except Exception as error:
            warnings.warn(f"{what} is left out: {type(error).__name__}: {error}", stacklevel=3)

    @property
    def wants(self) -> frozenset[str]:
        """What a tracker asks for that costs time: `"histograms"`, `"graph"`, `"models"`."""
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
            "checkout": self._checkout,
            "trackers": trackers,
        }

    @cached_property
    def _checkout(self) -> dict[str, str]:
        return checkout() if self.is_shown else {}

    def _first_spec(self) -> str | None:
        try:
            return (self.run.directory / "spec.json").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def _file(self, name: str, text: str) -> None:
        """Report a text as a file, where somebody shows files; without room for it, the run goes on."""
        if not self.is_shown:
            return
        path = self.run.directory / name
        try:
            replace(path, text)
        except OSError as error:
            warnings.warn(f"{path}: {error}; the run goes on without that file", TrackingWarning, stacklevel=2)
        else:
            self._recorder.log_asset(path, name)

    def _metrics(self, metrics: Mapping[str, float], step: int, *, again: bool = False) -> None:
        if self._options.log_model_metrics:
            self._recorder.log_metrics(dict(metrics), step=step, again=again)
        if self._system is not None:
            self._recorder.log_metric_points(self._system.take())


def _group(experiment: Experiment) -> tuple[str, bool]:
    """Return the name that a run is grouped under, and whether nobody chose it."""
    tracking = experiment.tracking
    shows_in_mlflow = any(component.type == "mlflow" for component in tracking.trackers)
    named = tracking.experiment or (shows_in_mlflow and os.environ.get("MLFLOW_EXPERIMENT_NAME"))
    return named or _short(experiment.dataset.dataset.type), not named


def _aside(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the MLflow tracker with the run to go on with as the one to be below."""
    given = arguments.get("run_id")
    taken = os.environ.get("MLFLOW_RUN_ID", "") if given is None else given
    parent = arguments.get("parent_run_id")
    return {**arguments, "run_id": "", "parent_run_id": (taken or None) if parent is None else parent}


def _found(directory: Path, new: Run, run_name: str | None) -> Run | None:
    """Return the run in a directory; None if it is no run, or not of the root, experiment and name of a new one."""
    try:
        run = recorded_run(directory)
    except TrackerError:
        return None
    is_same = run.root.resolve() == new.root.resolve() and run.experiment == new.experiment
    return run if is_same and run_name in (None, run.name) else None


def _short(name: str) -> str:
    """The part of `package.module:Class` that people call it by."""
    return os.path.basename(name.rpartition(":")[2]) or "run"
