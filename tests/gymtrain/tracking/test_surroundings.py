"""What a user does with MLflow around a training stays as it is."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gymtrain.tracking import no_autologging


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow as users have it, on the store that runs under the root of `tiny` go to."""
    import mlflow

    for name in ("RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of its default experiment
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (tmp_path / "runs").mkdir()
    yield mlflow
    mlflow.set_tracking_uri(before)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


TRACKERS = {"trackers": [{"type": "mlflow"}], "log_system_metrics": False}


@pytest.mark.slow
def test_trainings_within_a_run_of_the_users_are_its_children_and_it_stays_theirs(tiny, mlflow):
    with mlflow.start_run() as theirs:
        mlflow.log_metric("mine", 1.0)
        children = [tiny(tracking=TRACKERS).train()["run"] for _ in range(2)]
        assert mlflow.active_run().info.run_id == theirs.info.run_id

    client = mlflow.MlflowClient()
    stored = [client.get_run(child["run_id"]) for child in children]
    assert {each.data.tags["mlflow.parentRunId"] for each in stored} == {theirs.info.run_id}
    assert {each.info.experiment_id for each in stored} == {theirs.info.experiment_id}
    assert client.get_run(theirs.info.run_id).data.metrics == {"mine": 1.0}
    assert client.get_run(theirs.info.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_the_run_that_the_environment_names_is_for_the_training_and_not_for_find_lr(tiny, mlflow, monkeypatch):
    client = mlflow.MlflowClient()
    project = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", project)
    trainer = tiny(tracking=TRACKERS)

    tried = trainer.find_lr(steps=10)["run"]["run_id"]
    trained = trainer.train()["run"]["run_id"]

    assert tried != trained == project
    assert client.get_run(tried).data.tags["mlflow.parentRunId"] == project


@pytest.mark.slow
def test_autologging_opens_no_runs_for_what_is_fitted_and_works_afterwards(tiny, mlflow):
    from sklearn.linear_model import LogisticRegression

    estimator = {"type": "sklearn", "estimator": "LogisticRegression", "max_iter": 1000}
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        tiny(model=estimator, training={}, preprocessors=["standard_scaler"]).train()
        between = mlflow.search_runs(search_all_experiments=True)
        LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
        after = mlflow.search_runs(search_all_experiments=True)
    finally:
        mlflow.sklearn.autolog(disable=True)

    assert (len(between), len(after)) == (0, 1)


def test_of_trainings_that_overlap_the_last_switches_autologging_on_again(mlflow):
    from mlflow.utils import autologging_utils

    def is_off() -> bool:
        return autologging_utils._AUTOLOGGING_GLOBALLY_DISABLED

    one, other = no_autologging(), no_autologging()
    with one:
        other.__enter__()
    during = is_off()
    other.__exit__(None, None, None)
    after = is_off()
    with autologging_utils.disable_autologging():
        with no_autologging():
            pass
        within = is_off()

    assert (during, after, within, is_off()) == (True, False, True, False)


@pytest.mark.parametrize(("chosen", "expected"), [(None, "from outside"), ("mine", "mine")])
def test_the_environment_names_the_experiment_where_the_spec_does_not(tiny, monkeypatch, chosen, expected):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from outside")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    result = tiny(tracking={**TRACKERS, "experiment": chosen}).train()
    without = tiny().train()

    assert result["run"]["experiment"] == expected
    assert Path(result["run"]["run_dir"]).parent.name == expected
    assert without["run"]["experiment"] == "iris"


def contents(path: Path) -> list[bytes]:
    if path.suffix != ".zip":
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as bundle:
        return [bundle.read(name) for name in bundle.namelist()]


@pytest.mark.slow
def test_the_password_of_a_server_is_in_no_file_that_a_training_writes(tiny, tmp_path):
    uri = "http://me:s3cret@127.0.0.1:9"
    trainer = tiny(
        training={"epochs": 1, "checkpoint": {}},
        tracking={"trackers": [{"type": "mlflow", "tracking_uri": uri}, {"type": "jsonl"}]},
    )

    with pytest.warns(UserWarning, match="tracker 'mlflow'"):
        result = trainer.train()
    trainer.save(tmp_path / "model.zip")

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".zip", ".json", ".jsonl"}
    assert [path for path in files if any(b"s3cret" in content for content in contents(path))] == []
    assert "s3cret" not in str(result)
    assert trainer.to_dict()["tracking"]["trackers"][0]["tracking_uri"] == uri
