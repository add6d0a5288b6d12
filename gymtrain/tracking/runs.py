"""The runs of a store, each as what one wants to know of it at a glance."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gymtrain.errors import StoreError, did_you_mean, some
from gymtrain.tracking.better import MODE_TAG, MONITOR_TAG, Mode, directions_of
from gymtrain.tracking.params import model_params, training_params
from gymtrain.tracking.report import DIGEST_DIGITS
from gymtrain_trackers import TrackerError, read_record
from gymtrain_trackers.addresses import without_password
from gymtrain_trackers.mlflow_store import existing_store
from gymtrain_trackers.strict_json import as_text

DAMAGED = "DAMAGED"
RUNS_PER_REQUEST = 1000

_PARTS = {"training": "train", "validation": "val", "test": "test"}
# What is known of the machine from the tags of a run alone, which is all that MLflow has.
_MACHINE_TAGS = {
    "gymtrain.version": "gymtrain",
    "gymtrain.torch": "torch",
    "gymtrain.python": "python",
    "gymtrain.cpu": "cpu",
    "gymtrain.cores": "cores",
    "gymtrain.gpu": "gpu",
    "gymtrain.device": "device",
    "gymtrain.git_commit": "git_commit",
    "gymtrain.git_branch": "git_branch",
    "gymtrain.git_dirty": "git_dirty",
}


class Data(NamedTuple):
    """The rows of one part: what the data are called, a digest over all bytes, and how many rows there are."""

    name: str
    digest: str
    rows: int | None


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run without asking for its curves.

    Args:
        id: 32 hexadecimal digits, of which the run's directory has eight in its name; "" where they are not known.
        name: What people call it.
        experiment: What it is compared under.
        status: RUNNING, FINISHED, FAILED, KILLED; DIED when its process went without a word; DAMAGED when its journal
            does not say which run it is of.
        started: Unix time in seconds.
        ended: The same; None while it runs, and where nobody knows.
        directory: The run's, None for what is known from MLflow alone; the file of a bundle.
        params: The resolved spec, flat, as text: numbers and lists in JSON, as MLflow stores them.
        metrics: The last value of each metric; NaN where it was none.
        tags: As text.
        data: The rows by part: `train`, `val`, `test`.
        environment: Versions of libraries, the machine and the commit.
        epochs: How many epochs were trained.
        monitor: The metric by which the best epoch was chosen, such as `val/loss`.
        mode: Whether that is to be small or large.
        directions: The same for each metric of which the run says it, by its name without a part.
        mlflow_id: The id in MLflow.
    """

    id: str
    name: str
    experiment: str
    status: str
    started: float | None = None
    ended: float | None = None
    directory: Path | None = None
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict, repr=False)
    tags: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: Mapping[str, Data] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    epochs: int | None = None
    monitor: str | None = None
    mode: Mode | None = None
    directions: Mapping[str, Mode] = field(default_factory=dict, repr=False)
    mlflow_id: str | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end, or until now while it runs."""
        if self.started is None or (self.ended is None and self.status != "RUNNING"):
            return None
        return (time.time() if self.ended is None else self.ended) - self.started

    def to_dict(self) -> dict[str, Any]:
        """Return it as strict JSON can hold it: numbers that are not finite become null."""
        data = {part: rows._asdict() for part, rows in self.data.items()}
        directory = None if self.directory is None else str(self.directory)
        metrics = {key: value if math.isfinite(value) else None for key, value in self.metrics.items()}
        own = {"directory": directory, "metrics": metrics, "data": data, "duration": self.duration}
        return asdict(self) | own


def read_runs(store: str) -> list[RunSummary]:
    """Return the runs of a store, the newest first.

    Args:
        store: A directory that runs were written under, or the tracking URI of an MLflow store.

    Raises:
        StoreError: There is no such store, or it cannot be read.
    """
    return runs_of(store) if is_uri(store) else runs_in(Path(store))


def is_uri(store: str) -> bool:
    """Tell a tracking URI from a directory.

    Example:
        >>> is_uri("http://127.0.0.1:5000"), is_uri("sqlite:///mlflow.db"), is_uri("runs")
        (True, True, False)
    """
    return ":/" in store or store == "databricks"


def runs_in(root: Path) -> list[RunSummary]:
    """Return the runs under a directory, the newest first, from their journals and results alone.

    Each takes about a millisecond, or some ten where its journal is long.

    Args:
        root: A `tracking.root`, the directory of an experiment in it, or that of a run.

    Raises:
        StoreError: There is no such directory.

    Example:
        >>> runs_in(Path("/nonexistent"))
        Traceback (most recent call last):
        gymtrain.errors.StoreError: '/nonexistent' is no directory; give a tracking.root or the tracking URI of MLflow
    """
    if not root.is_dir():
        raise StoreError(f"{str(root)!r} is no directory; give a tracking.root or the tracking URI of MLflow")
    places = {path.parent for level in ("", "*/", "*/*/") for path in root.glob(f"{level}journal.jsonl")}
    return _newest_first(map(_run_at, places))


def _run_at(directory: Path) -> RunSummary:
    """The run of a directory, or what the names of directories tell: one that is damaged must not hide the others."""
    try:
        return run_in(directory)
    except StoreError:
        return RunSummary("", directory.name, directory.absolute().parent.name, DAMAGED, directory=directory)


def run_in(directory: Path) -> RunSummary:
    """Return the run of a directory.

    Raises:
        StoreError: It is no directory of a run, it may not be read, or its journal does not say which run it is of.
    """
    directory = directory.absolute()
    try:
        record = read_record(directory)
    except (OSError, TrackerError) as error:
        raise StoreError(str(error)) from error
    result = _result(directory)
    points = {point.key: point.value for point in record.metrics.values()}
    tags = _texts(record.tags)
    stored = _dict(_dict(result.get("run")).get("trackers")).get("mlflow")
    return RunSummary(
        id=record.run.id,
        name=record.run.name,
        experiment=record.run.experiment,
        status=record.status,
        started=record.run.started,
        ended=record.ended,
        directory=directory,
        params=_texts(record.params),
        metrics=points | _metrics(result),
        tags=tags,
        data=_data((each.context, each.name, each.digest, each.profile) for each in record.inputs),
        environment=_environment(tags, result),
        epochs=_epochs({key: point.step for key, point in record.metrics.items()}, result),
        mlflow_id=_dict(stored).get("run_id"),
        directions=directions_of(tags),
        **_monitored(result, tags, record.params.get("training/monitor")),
    )


def bundled_run(path: Path, content: Mapping[str, Any]) -> RunSummary:
    """Return the run that a bundle came out of, as far as the bundle tells.

    Args:
        path: The bundle.
        content: What `gymtrain.inspect` returned.

    Raises:
        StoreError: It is verified, but its spec is not that of a trainer.
    """
    spec, result = content["spec"], content["results"]
    try:
        params = _texts(model_params(spec) | training_params(spec))
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: spec.json is not the spec of a trainer: {type(error).__name__}: {error}") from error
    run = _dict(result.get("run"))
    return RunSummary(
        id="",
        name=path.name,
        experiment=str(run.get("experiment") or ""),
        status=str(result.get("status") or ""),
        directory=path.absolute(),
        params=params,
        metrics=_metrics(result),
        data=_bundled_data(str(spec["dataset"]["dataset"].get("type")), _dict(result.get("data"))),
        environment={**content["manifest"]["versions"], **_environment({}, result)},
        epochs=_epochs({}, result),
        **_monitored(result, {}, params.get("training/monitor")),
    )


def runs_of(uri: str) -> list[RunSummary]:
    """Return the runs of an MLflow store, the newest first, through MLflow's client; nothing is created.

    A run whose process died is RUNNING there until `gymtrain doctor`, or the next run, has ended it.

    Args:
        uri: Its tracking URI, `sqlite:///path/to/mlflow.db` or `http://host:5000`.

    Raises:
        StoreError: There is no such store, or it cannot be read.

    Example:
        >>> runs_of("sqlite:////nonexistent/mlflow.db")
        Traceback (most recent call last):
        gymtrain.errors.StoreError: sqlite:////nonexistent/mlflow.db: there is no database '/nonexistent/mlflow.db'
    """
    try:
        client = existing_store(uri)
        experiments = {each.experiment_id: each.name for each in _all_pages(client.search_experiments)}
        found = _all_pages(client.search_runs, list(experiments)) if experiments else []
    except Exception as error:  # of MLflow, SQLAlchemy, requests …
        reason = str(error).partition("\n")[0]
        raise StoreError(without_password(f"{uri}: {reason}")) from error
    return _newest_first(_run_of_mlflow(each, experiments[each.info.experiment_id]) for each in found)


def find_run(name: str, runs: Sequence[RunSummary], store: str) -> RunSummary:
    """Return the one run that is meant.

    Args:
        name: The name of a run or of its directory, its id here or in MLflow, or the beginning of one of the ids.
        runs: Those of the store.
        store: What it is called in an error.

    Raises:
        StoreError: There is none, or more than one.

    Example:
        >>> runs = [RunSummary("3f2a", "wide", "digits", "FINISHED"), RunSummary("77b0", "narrow", "digits", "KILLED")]
        >>> find_run("3f", runs, "runs").name
        'wide'
        >>> find_run("narow", runs, "runs")
        Traceback (most recent call last):
        gymtrain.errors.StoreError: there is no run 'narow' in runs; did you mean 'narrow'?
    """
    store = without_password(store)
    named = [run for run in runs if name == run.name or (run.directory is not None and name == run.directory.name)]
    begun = [run for run in runs if name and any((each or "").startswith(name) for each in (run.id, run.mlflow_id))]
    found = named or begun
    if len(found) == 1:
        return found[0]
    if not found:
        names = list(dict.fromkeys(run.name for run in runs))
        hint = did_you_mean(name, names) or (f"; there are {some(names)}" if names else "; it has no runs")
        raise StoreError(f"there is no run {name!r} in {store}{hint}")
    ids = some(run.id[:8] or str(run.directory) for run in found)
    raise StoreError(f"{name!r} means {len(found)} runs in {store}; give the id of one: {ids}")


def _run_of_mlflow(found: Any, experiment: str) -> RunSummary:
    info, tags = found.info, dict(found.data.tags)
    params = dict(found.data.params)
    inputs = [] if found.inputs is None else found.inputs.dataset_inputs
    status = "DIED" if tags.get("gymtrain.ended") == "process died" else info.status
    return RunSummary(
        id=tags.get("gymtrain.run_id", info.run_id),
        name=info.run_name or "",
        experiment=experiment,
        status=status,
        started=info.start_time / 1000 if info.start_time else None,
        ended=info.end_time / 1000 if info.end_time else None,
        params=params,
        metrics={key: float(value) for key, value in found.data.metrics.items()},
        tags=tags,
        data=_data(
            (_context(each), each.dataset.name, each.dataset.digest, _parsed(each.dataset.profile)) for each in inputs
        ),
        environment=_environment(tags, {}),
        epochs=_epochs({point.key: point.step for point in found.data.to_proto().metrics}, {}),
        mlflow_id=info.run_id,
        directions=directions_of(tags),
        **_monitored({}, tags, params.get("training/monitor")),
    )


def _all_pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(*arguments, max_results=RUNS_PER_REQUEST, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _newest_first(runs: Iterable[RunSummary]) -> list[RunSummary]:
    return sorted(runs, key=lambda run: (-(run.started or 0.0), run.id))


def _result(directory: Path) -> dict[str, Any]:
    """What `result.json` holds; nothing when it is absent or damaged: the journal knows most of it."""
    try:
        return _dict(json.loads((directory / "result.json").read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The last value of each metric of a result, and those of its best epoch, as the run has logged them."""
    metrics = _dict(result.get("metrics"))
    values = {
        key: _number(value[-1] if isinstance(value, list) else value) for key, value in metrics.items() if value != []
    }
    epochs = max((len(value) for value in metrics.values() if isinstance(value, list)), default=0)
    if epochs:
        values["final/epoch"] = float(epochs)
    best = _dict(result.get("best"))
    epoch = best.get("epoch")
    if not isinstance(epoch, int) or epoch < 1:
        return values
    curves = {key: value for key, value in metrics.items() if isinstance(value, list) and len(value) >= epoch}
    at_best = {f"best/{key.replace('/', '_')}": _number(value[epoch - 1]) for key, value in curves.items()}
    return values | at_best | {"best/epoch": float(epoch)}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _environment(tags: Mapping[str, str], result: Mapping[str, Any]) -> dict[str, str]:
    told = {name: tags[tag] for tag, name in _MACHINE_TAGS.items() if tag in tags}
    machine = _dict(result.get("hardware_info"))
    if machine:
        gpus = machine.get("gpu")
        known = {
            "python": machine.get("python"),
            "platform": machine.get("platform"),
            "host": machine.get("host"),
            "cpu": _dict(machine.get("cpu")).get("brand"),
            "cores": _dict(machine.get("cpu")).get("cores"),
            "gpu": ", ".join(str(_dict(gpu).get("name")) for gpu in gpus) or "none" if isinstance(gpus, list) else None,
            "device": _dict(result.get("execution")).get("device"),
            **_dict(_dict(result.get("run")).get("checkout")),
            **_dict(machine.get("libraries")),
        }
        told |= {name: str(value) for name, value in known.items() if value is not None}
    return told


def _monitored(result: Mapping[str, Any], tags: Mapping[str, str], asked: Any) -> dict[str, Any]:
    best = _dict(result.get("best")) or {"metric": tags.get(MONITOR_TAG), "mode": tags.get(MODE_TAG)}
    monitor, mode = best.get("metric"), best.get("mode")
    if not isinstance(monitor, str) or mode not in ("min", "max"):
        usual = asked is None or asked in ("auto", "null")
        return {"monitor": None if usual else str(asked), "mode": None}
    return {"monitor": monitor, "mode": mode}


def _epochs(steps: Mapping[str, int], result: Mapping[str, Any]) -> int | None:
    curves = [len(value) for value in _dict(result.get("metrics")).values() if isinstance(value, list)]
    told = [step for key, step in steps.items() if key.startswith(("train/", "val/"))]
    return max(curves + told, default=None)


def _data(inputs: Iterable[tuple[str, str, str, Any]]) -> dict[str, Data]:
    found: dict[str, Data] = {}
    for context, name, digest, profile in inputs:
        rows = _dict(profile).get("rows")
        found[_PARTS.get(context, context)] = Data(name, digest, rows if isinstance(rows, int) else None)
    return found


def _bundled_data(name: str, parts: Mapping[str, Any]) -> dict[str, Data]:
    """What a result tells of its data, with digests as short as runs have them."""
    told = {part: (_dict(rows).get("sha256"), _dict(rows).get("rows")) for part, rows in parts.items()}
    return {
        part: Data(name, sha256[:DIGEST_DIGITS], rows if isinstance(rows, int) else None)
        for part, (sha256, rows) in told.items()
        if isinstance(sha256, str)
    }


def _context(each: Any) -> str:
    return next((str(tag.value) for tag in each.tags if tag.key == "mlflow.data.context"), "data")


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): as_text(value) for key, value in values.items()}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
