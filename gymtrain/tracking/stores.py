"""Where the runs under a root are shown: the MLflow store and the directory of TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gymtrain.errors import StoreError
from gymtrain.tracking.runs import is_uri
from gymtrain_trackers import Record, TrackerError, read_record
from gymtrain_trackers.addresses import without_password
from gymtrain_trackers.mlflow_store import checked_uri, sqlite_path, with_password


class Stores(NamedTuple):
    """The tracking URI of an MLflow store and a directory of event files; None for what there is not."""

    tracking_uri: str | None
    tensorboard: Path | None

    @property
    def server(self) -> str | None:
        """The address of the MLflow server that shows the runs already; None where one has to be started."""
        uri = self.tracking_uri
        return uri if uri is not None and urlsplit(uri).scheme in ("http", "https") else None

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store."""
        return None if self.tracking_uri is None else sqlite_path(self.tracking_uri)


def stores_of(root: str) -> Stores:
    """Return where the runs under a root are shown: where its newest run that is in MLflow, or in TensorBoard, says.

    Args:
        root: A `tracking.root`, or the tracking URI of an MLflow store.

    Raises:
        StoreError: There is neither, or the URI cannot be used.

    Example:
        >>> stores_of("http://127.0.0.1:5000").server
        'http://127.0.0.1:5000'
    """
    try:
        stores = _of_uri(root) if is_uri(root) else _of_directory(Path(root).absolute())
    except TrackerError as error:
        raise StoreError(str(error)) from error
    if stores == (None, None):
        raise StoreError(
            f"{root!r} holds neither mlflow.db nor tensorboard/; train with tracking.trackers: "
            "[{type: mlflow}, {type: tensorboard}], or give the tracking URI of an MLflow store"
        )
    return stores


def _of_uri(uri: str) -> Stores:
    found = Stores(checked_uri(with_password(uri), "tracking URI"), None)
    if found.database is None:
        return found
    if not found.database.is_file():
        raise StoreError(f"{without_password(uri)}: there is no database {str(found.database)!r}")
    return Stores(found.tracking_uri, _existing(found.database.parent / "tensorboard"))


def _of_directory(root: Path) -> Stores:
    if not root.is_dir():
        raise StoreError(f"{str(root)!r} is no directory; give a tracking.root or the tracking URI of MLflow")
    records = _newest_first(root)
    uri = with_password(_told(records, "mlflow", "tracking_uri"))
    database = None if uri is None else sqlite_path(uri)
    if uri is None or (database is not None and not database.is_file()):
        uri = f"sqlite:///{root / 'mlflow.db'}" if (root / "mlflow.db").is_file() else None
    events = _told(records, "tensorboard", "directory")
    return Stores(uri, _existing(root / "tensorboard" if events is None else Path(events)))


def _newest_first(root: Path) -> list[Record]:
    records = []
    for path in root.glob("*/*/journal.jsonl"):
        try:
            records.append(read_record(path.parent))
        except (OSError, TrackerError):  # damaged: the others know the stores too
            continue
    return sorted(records, key=lambda record: -record.run.started)


def _told(records: list[Record], kind: str, argument: str) -> str | None:
    recipes = [recipe for record in records for recipe in record.trackers if recipe["type"] == kind]
    told: list[Any] = [recipe["arguments"].get(argument) for recipe in recipes]
    return next((each for each in told if isinstance(each, str)), None)


def _existing(directory: Path) -> Path | None:
    return directory if directory.is_dir() else None
