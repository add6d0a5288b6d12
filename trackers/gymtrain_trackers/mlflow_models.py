"""Trained models in MLflow: stored as logged models that it can serve, and fetched as the files they are."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .addresses import without_password
from .errors import MissingPackageError, TrackerError
from .mlflow_place import RUN_TAG
from .mlflow_store import existing_store, import_mlflow, resolve
from .run import ModelFile
from .strict_json import dumps

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST_TAG = "gymtrain.bundle"
# Where MLflow puts the one file of a model of ours, in the model's own directory.
DATA = "data/model.zip"
FORMS = (
    "runs:/RUN_ID, runs:/RUN_ID/PATH, models:/MODEL_ID, models:/NAME/VERSION, models:/NAME@ALIAS or models:/NAME/latest"
)


def store_model(client: MlflowClient, experiment_id: str, run_id: str, model: ModelFile) -> None:
    """Store a model as an output of a run, unless it is there already.

    Step by step through the client: `mlflow.pyfunc.log_model` works on the run, the store and the model that are the
    current ones of the process.
    """
    from mlflow.entities import LoggedModelOutput

    logged = _begun(client, experiment_id, run_id, model)
    if str(logged.status) == "READY":
        return
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "model"
        _write(place, model, logged, run_id)
        client.log_model_artifacts(logged.model_id, str(place))
    outputs = client.get_run(run_id).outputs
    if all(output.model_id != logged.model_id for output in (outputs.model_outputs if outputs else ())):
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.finalize_logged_model(logged.model_id, "READY")


def _begun(client: MlflowClient, experiment_id: str, run_id: str, model: ModelFile) -> Any:
    """Return the logged model of this file; one that is not whole yet is gone on with."""
    wanted = f"source_run_id = '{run_id}' AND tags.`{DIGEST_TAG}` = '{model.sha256}'"
    found = client.search_logged_models([experiment_id], filter_string=wanted)
    if found:
        return found[0]
    name = re.sub(r"[/:.%\"']", "_", model.name)  # what MLflow does not take
    return client.create_logged_model(experiment_id, name, run_id, {DIGEST_TAG: model.sha256})


def _write(place: Path, model: ModelFile, logged: Any, run_id: str) -> None:
    """Make the directory that MLflow loads a model from: the file, the name of the module that loads it, and the rest.

    Nothing is pickled, and nothing of the model is imported or run. `mlflow.pyfunc.save_model` would copy the file,
    switch off tracing in the whole process for as long as it takes, and take files of uv along from the working
    directory; a model given as code would be run, and be the current one of the process for a while.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.version import VERSION

    (place / DATA).parent.mkdir(parents=True)
    (place / DATA).symlink_to(model.path)
    requirements = [*model.requirements, f"mlflow=={VERSION}"]
    (place / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
    environment = (
        f"python: {platform.python_version()}\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
    )
    (place / "python_env.yaml").write_text(environment, encoding="utf-8")
    schemas = {"inputs": model.inputs, "outputs": model.outputs, "params": model.params}
    written = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        signature=ModelSignature.from_dict({kind: json.dumps(list(each)) for kind, each in schemas.items() if each}),
        saved_input_example_info=_write_example(place, model.example),
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        metadata=dict(model.metadata) or None,
        model_size_bytes=model.path.stat().st_size,
    )
    config = dict(model.config) or None
    add_to_model(written, model.loader, data=DATA, python_env="python_env.yaml", model_config=config)
    written.save(str(place / "MLmodel"))


def _write_example(place: Path, example: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Write a few rows as MLflow reads them and as its server takes them; return what the model says of them."""
    if example is None:
        return None
    is_frame = "dataframe_split" in example
    rows = example["dataframe_split" if is_frame else "inputs"]
    (place / "input_example.json").write_text(dumps(rows), encoding="utf-8")
    (place / "serving_input_example.json").write_text(dumps(example), encoding="utf-8")
    kind = {"type": "dataframe", "pandas_orient": "split"} if is_frame else {"type": "ndarray"}
    return {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json", **kind}


def fetch_model(uri: str, directory: Path, tracking_uri: str | None = None) -> Path:
    """Download the file of a model; nothing of it is run or loaded.

    Args:
        uri: One of `FORMS`. The zip file under `model/` is meant where no path is given.
        directory: Where to.
        tracking_uri: Of the store; None means the environment variable `MLFLOW_TRACKING_URI`, and without it
            `runs/mlflow.db` in the working directory.

    Returns:
        The path of the file.

    Raises:
        TrackerError: there is no such store, run, model or file, or it cannot be reached.

    Example:
        >>> fetch_model("models:/digits", Path("/tmp"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        gymtrain_trackers.errors.TrackerError: 'models:/digits' names no file; expected runs:/RUN_ID, ...
    """
    scheme, _, rest = uri.partition(":/")
    head, _, tail = rest.strip("/").partition("/")
    is_model = scheme == "models" and (bool(tail) or "@" in head or head.startswith("m-"))
    if not head or not (scheme == "runs" or is_model):
        raise TrackerError(f"{uri!r} names no file; expected {FORMS}")
    usual = resolve(None, None, Path("runs").absolute()).tracking_uri
    store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or usual
    try:
        import_mlflow()
    except ImportError as error:
        raise MissingPackageError(f"{uri!r} needs what is not installed: pip install 'mlflow>=3.1'") from error
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = existing_store(store)
        address = _of_run(client, head, tail) if scheme == "runs" else f"{_of_model(client, head, tail)}/{DATA}"
        with _without_progress_bars:
            return Path(download_artifacts(address, dst_path=str(directory), tracking_uri=client.tracking_uri))
    except (MlflowException, SQLAlchemyError, TrackerError, OSError) as error:
        raise TrackerError(
            without_password(
                f"{uri!r} in {store}: {error}; the store is the one of tracking_uri, else of MLFLOW_TRACKING_URI, else "
                "runs/mlflow.db"
            )
        ) from error


def _of_run(client: MlflowClient, run_id: str, path: str) -> str:
    run = _found_run(client, run_id)
    run_id = run.info.run_id
    if not path:
        files = [each.path for each in client.list_artifacts(run_id, "model") if each.path.endswith(".zip")]
        if len(files) != 1:
            found = f"has {len(files)} bundles under model/: {files}; name one" if files else "has no bundle"
            raise TrackerError(f"the run {found} ({DIGEST_TAG}: {run.data.tags.get(DIGEST_TAG, 'no such tag')})")
        (path,) = files
    elif any(each.path != path for each in client.list_artifacts(run_id, path)):
        raise TrackerError(f"{path!r} is a folder of the run; name a bundle in it")
    return f"{run.info.artifact_uri}/{path}"


def _found_run(client: MlflowClient, run_id: str) -> Any:
    """Return the run of an id of MLflow's, or of the id that it has in our own directories or the beginning of that."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException:
        if not re.fullmatch("[0-9a-f]{8,32}", run_id):
            raise
        experiments = [each.experiment_id for each in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.`{RUN_TAG}` LIKE '{run_id}%'", max_results=2)
        if len(found) != 1:
            raise
        return found[0]


class _WithoutProgressBars:
    """MLflow shows one for each file, unless a variable of the environment says otherwise when it begins."""

    _VARIABLE = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._before: str | None = None

    def __enter__(self) -> None:
        with self._lock:  # several threads may download at once
            if self._entered == 0:
                self._before = os.environ.get(self._VARIABLE)
                os.environ.setdefault(self._VARIABLE, "false")
            self._entered += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered -= 1
            if self._entered == 0 and self._before is None:
                os.environ.pop(self._VARIABLE, None)


_without_progress_bars = _WithoutProgressBars()


def _of_model(client: MlflowClient, name: str, version: str) -> str:
    if name.startswith("m-") and not version:
        return str(client.get_logged_model(name).artifact_location)
    model, at, alias = name.partition("@")
    if at:
        version = str(client.get_model_version_by_alias(model, alias).version)
    elif version == "latest":
        versions = [int(each.version) for each in client.search_model_versions(f"name = '{name}'")]
        if not versions:
            raise TrackerError(f"there is no registered model {name!r}")
        version = str(max(versions))
    return str(client.get_model_version_download_uri(model, version))
