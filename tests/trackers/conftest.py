from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def mlflow_root(tmp_path_factory):
    """One root for all tests of MLflow that do not mind each other's runs: a new database costs seconds."""
    return tmp_path_factory.mktemp("runs of mlflow")


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
