"""Which runs are shown, in which order, and what of them: by metrics, params, tags and a few facts of every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

from gymtrain.errors import StoreError, did_you_mean, some
from gymtrain.tracking import RunSummary, better, metric_name

Value = float | str | None

FACTS: dict[str, Callable[[RunSummary], Value]] = {
    "name": lambda run: run.name,
    "id": lambda run: run.id,
    "experiment": lambda run: run.experiment,
    "status": lambda run: run.status,
    "started": lambda run: run.started,
    "ended": lambda run: run.ended,
    "duration": lambda run: run.duration,
    "epochs": lambda run: run.epochs,
}
STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED", "DIED", "DAMAGED")

# The newest and the longest are what one looks for.
_DESCENDING = {"started", "ended", "epochs"}
# Whose metrics a run says the direction of.
_PARTS = ("train/", "val/", "test/", "best/")


def value_of(run: RunSummary, key: str) -> Value:
    """Return a metric, a param, a tag or a fact of a run, whichever is the first to be called so; None for nothing."""
    for values in (run.metrics, run.params, run.tags):
        if key in values:
            return values[key]
    return FACTS[key](run) if key in FACTS else None


def check_keys(keys: Iterable[str], runs: Sequence[RunSummary]) -> None:
    """See whether some run has a metric, a param or a tag that is called so, or every run a fact.

    Raises:
        StoreError: There is none; the message names the nearest.
    """
    known = {*FACTS, *(key for run in runs for values in (run.metrics, run.params, run.tags) for key in values)}
    for key in keys:
        _check(key, known, "metric, param or tag")


def in_experiment(runs: Sequence[RunSummary], experiment: str) -> list[RunSummary]:
    """Return the runs of an experiment.

    Raises:
        StoreError: There is none of that name.
    """
    _check(experiment, {run.experiment for run in runs}, "experiment")
    return [run for run in runs if run.experiment == experiment]


def matching(runs: Sequence[RunSummary], condition: str) -> list[RunSummary]:
    """Return the runs of which `key=value` is true; numbers are compared as such, so that `1e-3` is `0.001`.

    Raises:
        StoreError: It is no such condition, or no run has the key.
    """
    key, equals, wanted = condition.partition("=")
    if not equals or not key:
        raise StoreError(f"--where: got {condition!r}; expected KEY=VALUE, such as model/type=mlp")
    check_keys([key], runs)
    return [run for run in runs if _is_same(value_of(run, key), wanted)]


def ordered(runs: Sequence[RunSummary], key: str, ascending: bool | None) -> list[RunSummary]:
    """Return the runs in the order of a key, the best first; those that have no such value come last.

    Args:
        runs: The runs.
        key: A metric, param, tag or fact.
        ascending: None to go by the metric: losses ascend, accuracies descend.

    Raises:
        StoreError: No run has the key.
    """
    check_keys([key], runs)
    if ascending is None:
        ascending = mode_of(key, runs) != "max" and key not in _DESCENDING
    values = {id(run): _comparable(value_of(run, key)) for run in runs}
    present = [run for run in runs if values[id(run)] is not None]
    present.sort(key=lambda run: values[id(run)] or (), reverse=not ascending)
    return present + [run for run in runs if values[id(run)] is None]


def mode_of(key: str, runs: Iterable[RunSummary]) -> str | None:
    """Return `"min"` for a metric that is to be small, else `"max"`: as a run says, or where none does its name."""
    runs, name = list(runs), metric_name(key)
    for run in runs:
        if run.mode is not None and key in (run.monitor, best_key(run)):
            return run.mode
    told = (run.directions[name] for run in runs if key.startswith(_PARTS) and name in run.directions)
    return next(told, None) or better(key)


def best_key(run: RunSummary) -> str | None:
    """Return the metric that holds the monitored value of the best epoch: `best/val_loss` for `val/loss`."""
    return None if run.monitor is None else f"best/{run.monitor.replace('/', '_')}"


def telling_metrics(runs: Sequence[RunSummary]) -> list[str]:
    """Return the metrics that tell the most: those of the best epochs with the monitored first, then of the test part.

    Where a run has none of its best epoch yet, or kept none, the last losses are among them.
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.metrics))
    best = [key for key in keys if key.startswith("best/") and key != "best/epoch"]
    if any(key.startswith("best/val_") for key in best):
        best = [key for key in best if not key.startswith("best/train_")]
    monitored = [best_key(run) for run in runs]
    best.sort(key=lambda key: -monitored.count(key))
    last: list[str] = []
    for run in runs:
        if not any(key in run.metrics for key in best):
            last += [key for key in ("val/loss", "train/loss") if key in run.metrics][:1]
    return [*best, *sorted(set(last), reverse=True), *(key for key in keys if key.startswith("test/"))]


def _check(key: str, known: Collection[str], what: str) -> None:
    if key in known:
        return
    ending = sorted(each for each in known if each.endswith(f"/{key}"))
    hint = f"; did you mean {some(ending)}?" if ending else did_you_mean(key, known)
    raise StoreError(f"no run has the {what} {key!r}{hint or f'; there are {some(sorted(known), 20)}'}")


def _is_same(value: Value, wanted: str) -> bool:
    if value is None:
        return False
    number, other = _number(value), _number(wanted)
    return str(value) == wanted if number is None or other is None else number == other


def _comparable(value: Value) -> tuple[bool, float, str] | None:
    """Numbers before texts, whichever way a store holds them; None for nothing and for NaN."""
    number = None if value is None else _number(value)
    if number is not None:
        return None if math.isnan(number) else (False, number, "")
    return None if value is None else (True, 0.0, str(value))


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
