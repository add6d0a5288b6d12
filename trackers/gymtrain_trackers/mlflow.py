# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .addresses import is_masked, without_password
from .errors import ArgumentError, RejectedError, TrackerError
from .images import encode_png
from .mlflow_errors import BAD_REQUEST, NOT_FOUND, may_pass, status_of
from .mlflow_http import watch_uploads
from .mlflow_keys import PARAM_CHARACTERS, TAG_CHARACTERS, Keys, allowed_key, shortened
from .mlflow_models import store_model
from .mlflow_place import PARENT_TAG, RUN_TAG, Place, Surroundings
from .mlflow_store import (
    Store,
    checked_uri,
    import_mlflow,
    open_store,
    resolve,
    ui_command,
    with_password,
)
from .run import ENDING_TAGS, JSON, DatasetInput, Metric, ModelFile, Run, Status
from .strict_json import as_text, plain
from .tracker import Tracker, Wanted

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
    in the tag `gymtrain.param_drift`. The tag `gymtrain.run_id` holds `Run.id`, by which the run is found again.

    Everything may be told twice: a point is the same row of the store if its key, value, step and time are the same; a
    param, a tag, a data set or a file replaces its like; a model with the same digest is the same logged model.

    Args:
        tracking_uri: `sqlite:///path/to/mlflow.db`, `http://host:5000` and the like. None means the environment
            variable `MLFLOW_TRACKING_URI`, and without it `mlflow.db` in the root of the run.
        artifact_location: Directory or URI for the files of a new experiment. None means `mlartifacts` beside the
            database, or what the server chooses.
        log_model: Whether the trained model is stored as a logged model of the flavour pyfunc, which
            `mlflow models serve` runs.
        parent_run_id: A run of the store below which the run is shown. None means the run that is active in the thread
            that makes the tracker, if it is in the same store; it is neither written to nor ended. "" means none.
        run_id: A run of the store to go on with instead of making one, unless another run is in it already. None means
            the environment variable `MLFLOW_RUN_ID`, "" none.
        experiment_id: An experiment of the store for the run, whatever its name. None means the environment variable
            `MLFLOW_EXPERIMENT_ID` where nobody has named an experiment, "" none.

    Raises:
        ArgumentError: the URI names a directory, which MLflow refuses, or a kind of store that it does not know; it is
            empty or lacks its password.

    Example:
        >>> tracker = MLflowTracker("sqlite:////tmp/runs/mlflow.db")
        >>> tracker.name
        'mlflow'
    """

    name = "mlflow"
    requires = ("mlflow>=3.1", "filelock>=3.13")

    def __init__(
        self,
        tracking_uri: str | None = None,
        artifact_location: str | None = None,
        log_model: bool = False,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        experiment_id: str | None = None,
    ) -> None:
        if tracking_uri == "":
            raise ArgumentError(
                "mlflow tracking_uri: got ''; expected sqlite:///path/to/mlflow.db, http://host:5000 and the like, or "
                "None for what MLFLOW_TRACKING_URI says, else mlflow.db beside the runs"
            )
        self._given_uri = checked_uri(with_password(tracking_uri), "mlflow tracking_uri") or checked_uri(
            os.environ.get("MLFLOW_TRACKING_URI"), "MLFLOW_TRACKING_URI"
        )
        if artifact_location is not None and "://" not in artifact_location:
            artifact_location = str(Path(artifact_location).absolute())
        if artifact_location is not None and is_masked(artifact_location):
            raise ArgumentError(f"mlflow artifact_location: {artifact_location!r} lacks its password; give all of it")
        self._given_location = artifact_location
        self.wants = frozenset[Wanted]({"models"} if log_model else ())
        self._surroundings = Surroundings.here(run_id, parent_run_id, experiment_id)
        self._metric_keys, self._param_keys, self._tag_keys = Keys(), Keys(), Keys()
        self._params: dict[str, str] = {}
        self._drift: dict[str, list[str]] = {}
        self._nonfinite = 0
        self._client: MlflowClient
        self._run_id: str
        self._info: dict[str, JSON] = {}

    def prepare(self) -> None:
        import_mlflow()
        if self.wants:
            import mlflow.pyfunc  # noqa: F401

    def start(self, run: Run) -> None:
        store = resolve(self._given_uri, self._given_location, run.root)
        self._client = open_store(store)
        place = self._surroundings.place(self._client, run, store)
        if place.existing is not None:
            self._client.update_run(place.existing.info.run_id, status="RUNNING")
        found = place.existing or self._found(place.experiment_id, run) or self._created(place, run)
        self._attach(store, found)
        _raise_rejected(place.refused)

    def resume(self, run: Run, state: Any) -> bool:
        from mlflow.exceptions import MlflowException

        if not isinstance(state, dict):
            return False
        store = resolve(self._given_uri, self._given_location, run.root)
        self._client = open_store(store)
        try:
            found = self._client.get_run(state["run_id"])
        except MlflowException as error:
            if status_of(error) == NOT_FOUND:
                return False
            raise
        if found.info.lifecycle_stage == "deleted":
            raise TrackerError(f"the run {state['run_id']} was deleted from {without_password(store.tracking_uri)}")
        self._attach(store, found)
        self._metric_keys, self._param_keys, self._tag_keys = (Keys(names) for names in state["keys"])
        self._params, self._drift, self._nonfinite = state["params"], state["drift"], state["nonfinite"]
        return True

    def reopen(self) -> None:
        self._client.update_run(self._run_id, status="RUNNING")
        for key in self._client.get_run(self._run_id).data.tags.keys() & set(ENDING_TAGS):
            self._client.delete_tag(self._run_id, key)

    def state(self) -> JSON:
        keys = [plain(each.names) for each in (self._metric_keys, self._param_keys, self._tag_keys)]
        told = {"params": plain(self._params), "drift": plain(self._drift), "nonfinite": self._nonfinite}
        return {"run_id": self._run_id, "keys": keys, **told}

    def arguments(self, run: Run) -> dict[str, JSON]:
        store = resolve(self._given_uri, self._given_location, run.root)
        where: dict[str, JSON] = {
            "tracking_uri": without_password(store.tracking_uri),
            "artifact_location": None if self._given_location is None else without_password(self._given_location),
            "log_model": bool(self.wants),
        }
        return where | self._surroundings.arguments(run, store)

    def stays_beside(self, run: Run) -> bool:
        uri = resolve(self._given_uri, None, run.root).tracking_uri
        usual = checked_uri(os.environ.get("MLFLOW_TRACKING_URI"), "MLFLOW_TRACKING_URI")
        return self._given_location is None and uri in (usual, resolve(None, None, run.root).tracking_uri)

    def is_temporary(self, error: Exception) -> bool:
        return may_pass(status_of(error)) or super().is_temporary(error)

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = {self._param_keys[key]: as_text(value) for key, value in params.items()}
        fresh = {key: text for key, text in texts.items() if key not in self._params}
        items = [Param(key, text) for key, text in _shortened(fresh, PARAM_CHARACTERS, "params").items()]
        rejected = self._send("params", items, PARAMS_PER_BATCH)
        drift = {key: [self._params[key], text] for key, text in texts.items() if self._params.get(key, text) != text}
        if drift:
            self._drift.update(drift)
            self.log_tags({"gymtrain.param_drift": self._drift})
        self._params.update(fresh)
        _raise_rejected(rejected)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        texts = {self._tag_keys[key]: as_text(value) for key, value in tags.items()}
        tags_ = [RunTag(key, text) for key, text in _shortened(texts, TAG_CHARACTERS, "tags").items()]
        _raise_rejected(self._send("tags", tags_, PARAMS_PER_BATCH))

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        from mlflow.entities import Metric as Point

        points = [
            Point(self._metric_keys[metric.key], metric.value, int(metric.timestamp * 1000), metric.step)
            for metric in metrics
            if math.isfinite(metric.value)
        ]
        nonfinite = self._nonfinite + len(metrics) - len(points)
        if nonfinite > self._nonfinite:
            self.log_tags({"gymtrain.nonfinite": nonfinite})
        rejected = self._send("metrics", points, METRICS_PER_BATCH)
        self._nonfinite = nonfinite
        _raise_rejected(rejected)

    def log_asset(self, path: Path, name: str) -> None:
        target = PurePosixPath(name)
        folder = None if target.parent == PurePosixPath() else str(target.parent)
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), name)
        elif path.name == target.name:
            self._client.log_artifact(self._run_id, str(path), folder)
        else:
            # The client takes the name of an artifact from the name of the file, which may be too large to copy.
            with tempfile.TemporaryDirectory() as directory:
                link = Path(directory) / target.name
                link.symlink_to(path)
                self._client.log_artifact(self._run_id, str(link), folder)

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        from mlflow.tracking.multimedia import compress_image_size
        from PIL import Image

        # Keys of images are a file name at the same time: ASCII only, no colon.
        key = allowed_key(name).encode("ascii", "replace").decode().replace("?", "_").replace(":", "_")
        # As the client's own `log_image` names them, but for the last part: the same image twice is the same file.
        mark = uuid.uuid5(uuid.UUID(self._run_id), f"{name} {step} {hashlib.sha256(image.tobytes()).hexdigest()}")
        time_ms = int((self.now or time.time()) * 1000)
        stem = f"{key.replace('/', '~')}+step+{step}+timestamp+{time_ms}+{mark}"
        with tempfile.TemporaryDirectory() as directory:
            path, small = Path(directory) / f"{stem}.png", Path(directory) / f"{stem}+compressed.webp"
            path.write_bytes(encode_png(image))
            compress_image_size(Image.fromarray(image)).save(small)
            self._client.log_artifact(self._run_id, str(path), "images")
            self._client.log_artifact(self._run_id, str(small), "images")
        self._client.set_tag(self._run_id, "mlflow.loggedImages", True, synchronous=True)

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self._client.log_inputs(self._run_id, [_dataset_input(each) for each in inputs])

    def log_model(self, model: ModelFile) -> None:
        if self.wants:
            store_model(self._client, str(self._info["experiment_id"]), self._run_id, model)

    def end(self, status: Status) -> None:
        self._client.set_terminated(self._run_id, status, end_time=int((self.now or time.time()) * 1000))

    def info(self) -> dict[str, JSON]:
        return dict(self._info)

    def _found(self, experiment_id: str, run: Run) -> Any | None:
        runs = self._client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        return runs[0] if runs else None

    def _created(self, place: Place, run: Run) -> Any:
        from mlflow.tracking.context.registry import resolve_tags

        own = {RUN_TAG: run.id} | ({} if place.parent_run_id is None else {PARENT_TAG: place.parent_run_id})
        return self._client.create_run(place.experiment_id, int(run.started * 1000), resolve_tags(own), run.name)

    def _gets_on(self) -> None:
        self.got_on_at = time.monotonic()

    def _attach(self, store: Store, found: Any) -> None:
        watch_uploads(self._client, self._gets_on)
        self._run_id = found.info.run_id
        self._info = {
            "run_id": self._run_id,
            "experiment_id": found.info.experiment_id,
            "tracking_uri": without_password(store.tracking_uri),
            "artifact_uri": without_password(found.info.artifact_uri),
            "ui": ui_command(store.tracking_uri, found.info.experiment_id, self._run_id),
        }

    def _send(self, kind: Literal["params", "tags", "metrics"], items: Sequence[Any], size: int) -> list[str]:
        """Store the items; return those that MLflow refuses, with its reasons."""
        from mlflow.exceptions import MlflowException

        refused: list[str] = []
        waiting = [list(batch) for batch in reversed(list(batches(items, size)))]
        while waiting:
            batch = waiting.pop()
            try:
                self._client.log_batch(self._run_id, **{kind: batch}, synchronous=True)
            except MlflowException as error:
                if status_of(error) != BAD_REQUEST:
                    raise
                if len(batch) == 1:
                    step = f" at step {batch[0].step}" if kind == "metrics" else ""
                    refused.append(f"{kind[:-1]} {batch[0].key!r}{step}: {str(error)[:300]}")
                # A request is refused as a whole for one item in it, or because the run is not what it was.
                if self._client.get_run(self._run_id).info.lifecycle_stage == "deleted":
                    raise TrackerError(f"the run {self._run_id} was deleted") from error
                if len(batch) > 1:
                    half = len(batch) // 2
                    waiting += [batch[half:], batch[:half]]
        return refused


def _raise_rejected(items: list[str]) -> None:
    if items:
        raise RejectedError(items)


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
        schema=as_text(_schema(each.schema)),
        profile=as_text(each.profile),
    )
    return Input(dataset, [InputTag("mlflow.data.context", each.context)])


def _schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema in the form that MLflow shows; one that it has no form for as it is.

    Example:
        >>> _schema({"columns": [{"name": "age", "kind": "number"}]})
        {'mlflow_colspec': [{'name': 'age', 'type': 'double', 'required': True}]}
    """
    if schema.get("columns"):
        types = [(each["name"], "double" if each["kind"] == "number" else "string") for each in schema["columns"]]
        return {"mlflow_colspec": [{"name": name, "type": kind, "required": True} for name, kind in types]}
    if "shape" in schema:
        spec = {"dtype": schema["dtype"], "shape": [-1, *schema["shape"]]}
        features = [{"name": "X", "type": "tensor", "tensor-spec": spec}]
        return {"mlflow_tensorspec": {"features": features, "targets": None}}
    return schema
