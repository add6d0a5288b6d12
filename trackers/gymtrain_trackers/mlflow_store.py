"""Where an MLflow store is, and opening it safely beside other processes."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import shlex
import threading
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from .addresses import is_masked, without_password
from .errors import ArgumentError, TrackerError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVICES = ("http", "https", "databricks", "databricks-uc", "uc")
OPEN_ATTEMPTS = 3
LOCK_SECONDS = 120


class Store(NamedTuple):
    """The address of a store; `artifact_location` None leaves the choice to the server."""

    tracking_uri: str
    artifact_location: str | None


def checked_uri(uri: str | None, origin: str) -> str | None:
    """Return a tracking URI whose meaning does not depend on the working directory; None or "" gives None.

    Raises:
        ArgumentError: it names a directory (MLflow refuses those), a database in memory, or a kind of store that
            neither MLflow nor a plugin of it knows.

    Example:
        >>> checked_uri("file:./mlruns", "tracking_uri")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: tracking_uri: 'file:./mlruns' is a directory, ...
    """
    if not uri:
        return None
    scheme, shown = urlsplit(uri).scheme, without_password(uri)
    if scheme.startswith("sqlite"):
        database = sqlite_path(uri)
        if database is None:
            raise ArgumentError(f"{origin}: {shown!r} is a database in memory; expected sqlite:///path/to/mlflow.db")
        _, mark, options = uri.partition("?")
        return f"{scheme}:///{database}{mark}{options}"
    if scheme in ("", "file") and not uri.startswith("databricks"):
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
            raise ArgumentError(
                f"{origin}: {shown!r} is a directory, which MLflow refuses since it stores runs in databases; give "
                f"sqlite:///{Path(urlsplit(uri).path).absolute() / 'mlflow.db'} (`mlflow migrate-filestore` moves old "
                "runs into it) or set the environment variable MLFLOW_ALLOW_FILE_STORE=true"
            )
        return uri if scheme else Path(uri).absolute().as_uri()
    known = (*DATABASES, *SERVICES)
    if (
        scheme
        and scheme.partition("+")[0] not in known
        and not entry_points(group="mlflow.tracking_store", name=scheme)
    ):
        raise ArgumentError(
            f"{origin}: {shown!r} begins with {scheme + ':'!r}, which MLflow does not know; expected one of "
            f"{', '.join(known)}, as in sqlite:///path/to/mlflow.db or http://host:5000, or that of an installed plugin"
        )
    return uri


def resolve(uri: str | None, artifact_location: str | None, root: Path) -> Store:
    """Return where runs go; artifacts go beside the database unless somebody else decides."""
    uri = uri or f"sqlite:///{root / 'mlflow.db'}"
    if artifact_location is None and urlsplit(uri).scheme.partition("+")[0] in DATABASES:
        artifact_location = str((sqlite_path(uri) or root / "mlflow.db").parent / "mlartifacts")
    if artifact_location is not None and "://" not in artifact_location:
        artifact_location = Path(artifact_location).as_uri()
    return Store(uri, artifact_location)


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of the database file, or None if the URI names none."""
    scheme, _, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    return Path(path).absolute() if scheme.startswith("sqlite") and path not in ("", ":memory:") else None


def import_mlflow() -> None:
    """Import MLflow with its telemetry off, unless the user turned it on, and without its chatter about new tables."""
    # Read by the import; whoever wants telemetry sets it to "false".
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: F401

    for name in ("mlflow.store.db.utils", "alembic"):
        quiet = logging.getLogger(name)
        if quiet.level in (logging.NOTSET, logging.INFO):
            quiet.setLevel(logging.WARNING)
    # The tracebacks of a busy database: our threads report them in words, and once.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith("trackers-")


def open_store(store: Store) -> MlflowClient:
    """Return a client of a store, which is made if it is not there yet."""
    import_mlflow()
    if store.artifact_location is not None and store.artifact_location.startswith("file:"):
        from mlflow.utils.file_utils import local_file_uri_to_path

        Path(local_file_uri_to_path(store.artifact_location)).mkdir(parents=True, exist_ok=True)
    database = sqlite_path(store.tracking_uri)
    if database is None:
        return _client(store.tracking_uri)
    with _alone(database):
        _create(database, store.artifact_location)
        return _first_contact(store.tracking_uri)


def existing_store(uri: str) -> MlflowClient:
    """Return a client of a store that is there; nothing is created.

    Raises:
        ArgumentError: the URI names a directory or a database in memory, or lacks its password.
        TrackerError: there is no such database.
    """
    checked = checked_uri(with_password(uri), "tracking URI")
    if checked is None:
        raise ArgumentError("tracking URI: got an empty one; expected sqlite:///path/to/mlflow.db, http://host:5000 …")
    database = sqlite_path(checked)
    if database is not None and not database.is_file():  # MLflow would make a new one
        raise TrackerError(f"there is no database {str(database)!r}")
    import_mlflow()
    return _client(checked) if database is None else _first_contact(checked)


@contextlib.contextmanager
def _alone(database: Path) -> Iterator[None]:
    # MLflow creates the tables of a new database without a lock: of processes that start together, all but one die
    # with "duplicate column name".
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    # And alembic, which fills them, keeps what it works on in globals: one database of this process at a time.
    with _opening, FileLock(f"{database}.lock", timeout=LOCK_SECONDS):
        yield


_opening = threading.Lock()


def _new_lock_in_child() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_new_lock_in_child)


def _create(database: Path, artifact_location: str | None) -> None:
    """Make a new database, whole or not at all: one whose tables were half made by a process that died never opens."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if database.exists() and database.stat().st_size:
        return
    for left in database.parent.glob(f".{glob.escape(database.name)}.*.part*"):
        left.unlink(missing_ok=True)
    # A name of its own: MLflow keeps connections by name, also one to a file of a failed attempt.
    part = database.with_name(f".{database.name}.{uuid.uuid4().hex}.part")
    made = SqlAlchemyStore(f"sqlite:///{part}", artifact_location or str(database.parent / "mlartifacts"))
    made._dispose_engine()
    part.replace(database)


def _first_contact(uri: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(1, OPEN_ATTEMPTS + 1):
        try:
            client = MlflowClient(tracking_uri=uri)
            client.get_experiment_by_name("Default")
            return client
        except (MlflowException, SQLAlchemyError) as error:
            # Programs that know nothing of our lock (`mlflow ui`) may be creating the same tables.
            if attempt == OPEN_ATTEMPTS:
                raise
            logger.info("opening %s failed (%s); trying again", uri, error)
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _client(uri: str) -> MlflowClient:
    if urlsplit(uri).scheme in ("http", "https"):
        from .mlflow_http import prompt_client

        return prompt_client(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def find_experiment(client: MlflowClient, name: str, store: Store) -> str:
    """Return the id of an experiment, which is made if it is not there yet.

    Raises:
        TrackerError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=store.artifact_location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        raise TrackerError(
            f"the experiment {name!r} in {without_password(store.tracking_uri)} was deleted; choose another name or "
            f"restore it: MLFLOW_TRACKING_URI={shlex.quote(without_password(store.tracking_uri))} "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def ui_command(uri: str, experiment_id: str, run_id: str) -> str:
    """Return the shell command that shows the store, or for a server the address of the run's page."""
    if urlsplit(uri).scheme in ("http", "https"):
        return f"{without_password(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    return f"mlflow ui --backend-store-uri {shlex.quote(without_password(uri))}"


def with_password(uri: str | None) -> str | None:
    """Return a URI that `without_password` made as it was, with the password from where the environment has it.

    Raises:
        ArgumentError: nothing there says it, and it is not that of a user of a server.
    """
    if uri is None or not is_masked(uri):
        return uri
    usual = os.environ.get("MLFLOW_TRACKING_URI", "")
    if without_password(usual) == uri:
        return usual
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    # MLflow takes what stands before the @ from MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN.
    if parts.scheme in ("http", "https") and not is_masked(bare):
        return bare
    raise ArgumentError(f"mlflow tracking_uri: {uri!r} lacks its password; set MLFLOW_TRACKING_URI to the whole of it")
