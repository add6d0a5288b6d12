# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from .mlflow_keys import PARAM_CHARACTERS, TAG_CHARACTERS, Keys, allowed_key, shortened
from .mlflow_store import checked_uri, import_mlflow, open_store, resolve, ui_command, without_password
from .run import JSON, DatasetInput, Metric, Run, Status
from .strict_json import as_text
from .tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000

T = TypeVar("T")


class MLflowTracker(Tracker):
    """Stores runs in MLflow, through its client alone: no run becomes the active one, no setting of MLflow changes.

    Keys that MLflow refuses are rewritten (``layer[0]`` becomes ``layer_0_``); values other than strings are stored as
    JSON; what is longer than MLflow holds ends in its SHA-256. Values that are not finite, which break the pages of
    MLflow, are left out and counted in the tag `gymtrain.nonfinite`. A param cannot change: a second value is listed
    in the tag `gymtrain.param_drift`. The tag `gymtrain.run_id` holds `Run.id`.

    Args:
        tracking_uri: `sqlite:///path/to/mlflow.db`, `http://host:5000` and the like. None means the environment
            variable `MLFLOW_TRACKING_URI`, and without it `mlflow.db` in the root of the run.
        artifact_location: Directory or URI for the files of a new experiment. None means `mlartifacts` beside the
            database, or what the server chooses.

    Raises:
        ArgumentError: the URI names a directory, which MLflow refuses.

    Example:
        >>> tracker = MLflowTracker("sqlite:////tmp/runs/mlflow.db")
        >>> tracker.name
        'mlflow'
    """

    name = "mlflow"
    requires = ("mlflow>=3.1", "filelock>=3.13")

    def __init__(self, tracking_uri: str | None = None, artifact_location: str | None = None) -> None:
        self._given_uri = checked_uri(tracking_uri, "mlflow tracking_uri") or checked_uri(
            os.environ.get("MLFLOW_TRACKING_URI"), "MLFLOW_TRACKING_URI"
        )
        if artifact_location is not None and "://" not in artifact_location:
            artifact_location = str(Path(artifact_location).absolute())
        self._given_location = artifact_location
        self._metric_keys, self._param_keys, self._tag_keys = Keys(), Keys(), Keys()
        self._params: dict[str, str] = {}
        self._drift: dict[str, list[str]] = {}
        self._nonfinite = 0
        self._client: MlflowClient
        self._run_id: str
        self._info: dict[str, JSON] = {}

    def prepare(self) -> None:
        import_mlflow()

    def start(self, run: Run) -> None:
        store = resolve(self._given_uri, self._given_location, run.root)
        self._client, experiment_id = open_store(store, run.experiment)
        from mlflow.tracking.context.registry import resolve_tags

        created = self._client.create_run(
            experiment_id,
            start_time=int(run.started * 1000),
            run_name=run.name,
            tags=resolve_tags({"gymtrain.run_id": run.id}),
        )
        self._run_id = created.info.run_id
        self._info = {
            "run_id": self._run_id,
            "experiment_id": experiment_id,
            "tracking_uri": without_password(store.tracking_uri),
            "artifact_uri": created.info.artifact_uri,
            "ui": ui_command(store.tracking_uri, experiment_id, self._run_id),
        }

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = {self._param_keys[key]: as_text(value) for key, value in params.items()}
        fresh = {key: text for key, text in texts.items() if key not in self._params}
        for batch in batches(list(_shortened(fresh, PARAM_CHARACTERS, "params").items()), PARAMS_PER_BATCH):
            self._client.log_batch(self._run_id, params=[Param(key, text) for key, text in batch], synchronous=True)
            self._params.update((key, fresh[key]) for key, _ in batch)
        drift = {key: [self._params[key], text] for key, text in texts.items() if text != self._params[key]}
        if drift:
            self._drift.update(drift)
            self.log_tags({"gymtrain.param_drift": self._drift})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        texts = {self._tag_keys[key]: as_text(value) for key, value in tags.items()}
        for batch in batches(list(_shortened(texts, TAG_CHARACTERS, "tags").items()), PARAMS_PER_BATCH):
            self._client.log_batch(self._run_id, tags=[RunTag(key, text) for key, text in batch], synchronous=True)

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        from mlflow.entities import Metric as Point

        points = [
            Point(self._metric_keys[metric.key], metric.value, int(metric.timestamp * 1000), metric.step)
            for metric in metrics
            if math.isfinite(metric.value)
        ]
        for batch in batches(points, METRICS_PER_BATCH):
            self._client.log_batch(self._run_id, metrics=batch, synchronous=True)
        if len(points) < len(metrics):
            self._nonfinite += len(metrics) - len(points)
            self.log_tags({"gymtrain.nonfinite": self._nonfinite})

    def log_asset(self, path: Path, name: str) -> None:
        target = PurePosixPath(name)
        folder = None if target.parent == PurePosixPath() else str(target.parent)
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), name)
        elif path.name == target.name:
            self._client.log_artifact(self._run_id, str(path), folder)
        else:
            # The client takes the name of an artifact from the name of the file.
            with tempfile.TemporaryDirectory() as directory:
                copy = shutil.copyfile(path, Path(directory) / target.name)
                self._client.log_artifact(self._run_id, str(copy), folder)

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        # Keys of images are a file name at the same time: ASCII only, no colon.
        key = allowed_key(name).encode("ascii", "replace").decode().replace("?", "_").replace(":", "_")
        self._client.log_image(self._run_id, image, key=key, step=step, synchronous=True)

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self._client.log_inputs(self._run_id, [_dataset_input(each) for each in inputs])

    def end(self, status: Status) -> None:
        self._client.set_terminated(self._run_id, status)

    def info(self) -> dict[str, JSON]:
        return dict(self._info)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in lists of at most `size`.

    Example:
        >>> list(batches([1, 2, 3], size=2))
        [[1, 2], [3]]
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _shortened(texts: Mapping[str, str], limit: int, what: str) -> dict[str, str]:
    long = sorted(key for key, text in texts.items() if len(text) > limit)
    if long:
        logger.warning("%s longer than the %d characters that MLflow holds were shortened: %s", what, limit, long)
    return {key: shortened(text, limit) for key, text in texts.items()}


def _dataset_input(each: DatasetInput) -> Any:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as Input

    dataset = Dataset(
        name=each.name[:500],
        digest=each.digest,
        source_type="code",
        source=as_text(each.source),
        schema=as_text(each.schema),
        profile=as_text(each.profile),
    )
    return Input(dataset, [InputTag("mlflow.data.context", each.context)])
