"""Where a run is put in MLflow: in a run that is there, or in an experiment and perhaps below another run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

from .errors import ArgumentError
from .mlflow_errors import NOT_FOUND, status_of
from .mlflow_store import Store, checked_uri, find_experiment
from .run import JSON, Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "gymtrain.run_id"
PARENT_TAG = "mlflow.parentRunId"
# Followed by the id of a run that is about to take over a run of MLflow.
CLAIM_TAG = f"{RUN_TAG}.claim."


class Place(NamedTuple):
    """Where a run is put: `existing` is a run of MLflow to go on with; without it, one is made in the experiment.

    `refused` says what cannot be as it was asked for.
    """

    existing: Any
    experiment_id: str
    parent_run_id: str | None
    refused: list[str]


class Surroundings(NamedTuple):
    """What a run of MLflow is among, by the arguments of its tracker, the environment and the run that is active.

    Args:
        run_id: A run to go on with.
        parent_run_id: A run to be below.
        experiment_id: An experiment to be in.
        wishes: Of these, those that only the environment asks for.
        active: The run that is active in this thread, and the store that it is in.
    """

    run_id: str
    parent_run_id: str
    experiment_id: str
    wishes: frozenset[str]
    active: tuple[str, str] | None

    @classmethod
    def here(cls, run_id: str | None, parent_run_id: str | None, experiment_id: str | None) -> Self:
        """Return those of the calling thread; an argument of None leaves it to them, "" means that there is none."""
        given = {"run_id": run_id, "experiment_id": experiment_id}
        wishes = frozenset(name for name, value in given.items() if value is None)
        run, experiment = (
            os.environ.get(f"MLFLOW_{name.upper()}", "") if name in wishes else given[name] for name in given
        )
        active = _active() if parent_run_id is None else None
        return cls(run or "", parent_run_id or "", experiment or "", wishes, active)

    def arguments(self, run: Run, store: Store) -> dict[str, JSON]:
        """Return the arguments with which a tracker in another process is among the same."""
        active = self._active_in(store)
        experiment_id = self.experiment_id if "experiment_id" not in self.wishes or run.default_experiment else ""
        run_id = "" if self.run_id == active else self.run_id
        return {"run_id": run_id, "parent_run_id": self.parent_run_id or active, "experiment_id": experiment_id}

    def place(self, client: MlflowClient, run: Run, store: Store) -> Place:
        """Return where a run belongs, and what cannot be as it was asked for."""
        active = self._active_in(store)
        refused: list[str] = []
        parent_id = self.parent_run_id or active
        if self.run_id and self.run_id != active:
            found = _found(client, self.run_id)
            if found is None:
                refused.append(self._wish("run_id", self.run_id, "is no run of this store; a new one is made"))
            elif claimed(client, found, run):
                return Place(found, found.info.experiment_id, None, refused)
            else:
                why = "holds another run already; a new one is made below it"
                refused.append(self._wish("run_id", self.run_id, why))
                parent_id = parent_id or self.run_id
        parent = _found(client, parent_id) if parent_id else None
        if parent_id and parent is None:
            refused.append(self._wish("parent_run_id", parent_id, "is no run of this store; the run is below none"))
        experiment_id = self._experiment_id(client, run, store, parent)
        return Place(None, experiment_id, parent_id if parent is not None else None, refused)

    def _experiment_id(self, client: MlflowClient, run: Run, store: Store, parent: Any) -> str:
        if "experiment_id" not in self.wishes and self.experiment_id:
            return self.experiment_id
        if run.default_experiment:
            # Pages of MLflow show a run below another only where both are in one experiment.
            if parent is not None:
                return str(parent.info.experiment_id)
            if self.experiment_id:
                return self.experiment_id
        return find_experiment(client, run.experiment, store)

    def _active_in(self, store: Store) -> str:
        return self.active[0] if self.active is not None and _bare(self.active[1]) == _bare(store.tracking_uri) else ""

    def _wish(self, name: str, value: str, why: str) -> str:
        return f"{f'MLFLOW_{name.upper()}' if name in self.wishes else name}={value} {why}"


def _active() -> tuple[str, str] | None:
    # Where nobody has imported MLflow, no run is active; half imported, it has no such function yet.
    mlflow = sys.modules.get("mlflow")
    run = getattr(mlflow, "active_run", lambda: None)()
    if mlflow is None or run is None:
        return None
    try:
        return run.info.run_id, checked_uri(mlflow.get_tracking_uri(), "MLFLOW_TRACKING_URI") or ""
    except ArgumentError:  # a kind of store in which no run of ours is
        return None


def _bare(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def claimed(client: MlflowClient, found: Any, run: Run) -> bool:
    """Make a run of MLflow ours; return whether it is, and not another's.

    Processes that start together see it free at the same time, and MLflow has no call that only one of them wins. So
    each says first that it wants the run, and takes it only where nobody else has said so: both may lose, never win.
    """
    if found.data.tags.get(RUN_TAG) == run.id:
        return True
    if RUN_TAG in found.data.tags:
        return False
    run_id, claim = found.info.run_id, f"{CLAIM_TAG}{run.id}"
    client.set_tag(run_id, claim, "wanted")
    tags = client.get_run(run_id).data.tags
    is_ours = tags.get(RUN_TAG, run.id) == run.id and [key for key in tags if key.startswith(CLAIM_TAG)] == [claim]
    if is_ours:
        client.set_tag(run_id, RUN_TAG, run.id)
    client.delete_tag(run_id, claim)
    return is_ours


def _found(client: MlflowClient, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if status_of(error) == NOT_FOUND:
            return None
        raise
    return found if found.info.lifecycle_stage == "active" else None
