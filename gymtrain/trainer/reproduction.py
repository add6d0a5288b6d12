"""Trains again what was trained before, and compares what comes of it bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymtrain.bundle import check_target, differences, open_bundle
from gymtrain.data.splits import PARTS
from gymtrain.errors import DataError, SpecError, TrainingError, did_you_mean, some
from gymtrain.models.contract import Learner
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.specs import Component, Experiment
from gymtrain.specs.fingerprint import is_fingerprint
from gymtrain.tracking.params import written
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.preparation import Prepared
from gymtrain.trainer.sanity import changed
from gymtrain.trainer.saving import save
from gymtrain.trainer.storage import stored
from gymtrain.trainer.training_run import TrainingRun
from gymtrain.training.callbacks import Callback

# Why a training ended that would end elsewhere the next time.
_BY_CHANCE = {"interrupt", "signal", "error", "nan"}


def reproduce(
    experiment: Experiment,
    predictor: Predictor,
    result: Mapping[str, Any],
    data: Mapping[str, Any],
    callbacks: Sequence[Callback],
    keep: str | Path | None,
) -> dict[str, Any]:
    """Train again, in a place of its own and without trackers, and compare.

    Args:
        experiment: The spec.
        predictor: What was learned.
        result: What `train()` returned then.
        data: Arguments of the dataset instead of those in the spec.
        callbacks: Told of what happens.
        keep: Where the new bundle goes, a path or an address; None for nowhere.

    Returns:
        What `Trainer.reproduce` returns.

    Raises:
        SaveError: `keep` is an address that cannot be written to.
        MissingDependencyError: The package for such addresses is not installed.
        OSError: `keep` is a directory, or in none.
        SpecError: `data` has an argument that the dataset does not have.
        DataError: The data are not there, or are others than they were.
        TrainingError: It was no training that came to its own end; or it cannot be done here.
    """
    _check_end(result)
    if keep is not None:
        check_target(keep)
    again = changed(experiment, dataset={"dataset": _with_data(experiment.dataset.dataset, data)})
    with tempfile.TemporaryDirectory(prefix="gymtrain-") as scratch:
        tried = changed(again, training={"checkpoint": None}, tracking={"root": scratch, "trackers": []})
        run = TrainingRun(tried, callbacks, narrow=lambda rows: _check_data(rows, result["data"]))
        run.execute()
        assert run.predictor is not None
        new = {key: value for key, value in run.result.items() if key != "run"}  # which is gone with its directory
        one, other = Path(scratch, "before.zip"), Path(scratch, "after.zip")
        for dtype in predictor.rounded:
            _round(run.predictor.learner, dtype)
        learned = replace(run.predictor, rounded=predictor.rounded)
        if keep is not None:
            save(keep, again, written(again.to_dict()), learned, new, dtype=predictor.reduced)
        if predictor.reduced is not None:
            _round(run.predictor.learner, predictor.reduced)
        save(other, again, written(again.to_dict()), replace(learned, reduced=predictor.reduced), new)
        save(one, experiment, written(experiment.to_dict()), predictor, result)
        with open_bundle(one) as before, open_bundle(other) as after:
            found = differences(before, after)
    return {
        "same_bits": not found,
        "learned": [each._asdict() for each in found],
        "metrics": _between(result["metrics"], new["metrics"]),
        "stop_reason": [result["stop_reason"], new["stop_reason"]],
        "result": new,
    }


def _round(learner: Learner, dtype: str) -> None:
    """Give a module the weights that it would have out of a bundle which holds them in fewer bytes."""
    if isinstance(learner, TorchLearner):
        learner.restore(stored(learner, dtype).state)


def _check_end(result: Mapping[str, Any]) -> None:
    if "stop_reason" not in result:
        raise TrainingError(
            "reproduce: this is a checkpoint, of a training that went on; reproduce the bundle that it came to"
        )
    data, metrics = result.get("data"), result.get("metrics")
    if not (isinstance(data, dict) and isinstance(metrics, dict) and "train" in data):
        raise TrainingError("reproduce: the results do not say of which data they are, or which metrics came of them")
    if result["stop_reason"] in _BY_CHANCE or result.get("status", "FINISHED") != "FINISHED":
        raise TrainingError(
            f"reproduce: the training was ended from outside ({result['stop_reason']}), and would go on beyond that "
            f"the next time; reproduce one that came to its own end"
        )


def _with_data(dataset: Component, data: Mapping[str, Any]) -> Component:
    if not isinstance(data, Mapping):
        raise SpecError.of_argument("data", f"got {data!r}; expected arguments of the dataset by name")
    unknown = sorted(str(name) for name in data.keys() - dataset.arguments.keys())
    if unknown:
        hint = did_you_mean(unknown[0], dataset.arguments) or f"; it has {some(sorted(dataset.arguments))}"
        message = f"the dataset {dataset.type} has no argument {unknown[0]!r}{hint}"
        raise SpecError.of_argument("data", message)
    given = Component(dataset.type, dataset.target, {**dataset.arguments, **data})
    absent = [name for name, value in given.arguments.items() if is_fingerprint(value)]
    if absent:
        raise DataError(
            f"reproduce: of {', '.join(f'dataset.dataset.{name}' for name in absent)} the bundle holds the fingerprint "
            f"and not the data; give the data themselves, as trainer.reproduce({{{absent[0]!r}: …}}) or with --data"
        )
    return given


def _check_data(rows: Prepared, expected: Mapping[str, Any]) -> None:
    """See whether the rows are those of then, before anything is learned from them.

    Raises:
        DataError: They are not.
    """
    there = [part for part in PARTS if part in rows.inputs]
    faults = [f"there is a {part} part, and then there was none" for part in there if part not in expected]
    faults += [f"there is no {part} part, and then there was one" for part in expected if part not in there]
    faults += [
        f"the {part} part has {len(rows.rows[part])} rows with SHA-256 {rows.digest(part)}; then it had "
        f"{expected[part]['rows']} with {expected[part]['sha256']}"
        for part in there
        if part in expected and rows.digest(part) != expected[part]["sha256"]
    ]
    if faults:
        raise DataError("reproduce: these are not the data of then:\n  " + "\n  ".join(faults))


def _between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [before.get(name), after.get(name)] for name in {**before, **after} if before.get(name) != after.get(name)
    }
