"""Bundles that lie in MLflow, as files on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gymtrain.errors import BundleError, MissingDependencyError
from gymtrain_trackers import MissingPackageError, TrackerError


@contextmanager
def fetched(address: str, tracking_uri: str | None) -> Iterator[Path]:
    """Download a bundle from MLflow into a temporary file, which is gone when the block ends.

    What was mapped of it stays.

    Args:
        address: `runs:/RUN_ID` and the like.
        tracking_uri: Of the store; None for the one that `Trainer.load` says.

    Raises:
        BundleError: `not_fetched`: There is no such store, run, model or file, or it cannot be reached.
        MissingDependencyError: MLflow is not installed.
    """
    given: object = tracking_uri
    if given is not None and not isinstance(given, str):
        raise BundleError(
            f"tracking_uri: got {given!r}; expected text such as 'sqlite:///runs/mlflow.db', or None",
            reason="not_fetched",
        )
    if ".." in address.split("/"):
        raise BundleError(
            f"{address!r} leaves the artifacts of its run; expected a path within them", reason="not_fetched"
        )
    from gymtrain_trackers.mlflow_models import fetch_model

    with tempfile.TemporaryDirectory(prefix="gymtrain-") as directory:
        try:
            path = fetch_model(address, Path(directory), tracking_uri)
        except MissingPackageError as error:
            raise MissingDependencyError(str(error)) from error
        except TrackerError as error:
            raise BundleError(str(error), reason="not_fetched") from error
        yield path
