"""Checkpoints: bundles that hold where a training stands, too; and which one to go on from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gymtrain.bundle import State, open_bundle
from gymtrain.errors import BundleError, TrainingError, some
from gymtrain.specs import Experiment
from gymtrain.tracking.params import model_params, training_params
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.saving import save, tensor_of, torch_tensor
from gymtrain.training.state_tree import flatten, unflatten

# What may differ between a training and the one that goes on with it.
MAY_CHANGE = ("epochs", "max_steps", "early_stopping", "checkpoint")


class Resumed(NamedTuple):
    """A checkpoint to go on from: where it lies, and what `Fitting.state_dict` returned."""

    path: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: Where they lie.
        keep_last: How many are kept.
    """

    def __init__(self, directory: Path, keep_last: int) -> None:
        self._directory, self._keep_last = directory, keep_last

    def write(self, experiment: Experiment, spec: dict[str, Any], predictor: Predictor, state: dict[str, Any]) -> Path:
        """Write a checkpoint, and delete those that are too many once it is whole.

        Args:
            experiment: The spec.
            spec: The same, written out.
            predictor: With the weights of the last epoch.
            state: What it takes to go on; `epoch` and `step` are in the name of the file.

        Raises:
            OSError: It cannot be written; the earlier ones are left as they are.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"epoch-{state['epoch']:06d}-step-{state['step']:09d}.zip"
        tree, tensors = flatten(state)
        training = State(tree, {name: tensor_of(tensor) for name, tensor in tensors.items()})
        save(path, experiment, spec, predictor, {"metrics": dict(state["history"]), "best": None}, training)
        for old in sorted(self._directory.glob("epoch-*.zip"))[: -self._keep_last]:
            old.unlink()
        return path


def find(resume: str | Path | bool, experiment: Experiment, spec: dict[str, Any]) -> Resumed | None:
    """Return the checkpoint to go on from.

    Args:
        resume: `"auto"` for the newest one under the tracking root that fits the spec, if there is one; a checkpoint or
            the directory of a run; False for none.
        experiment: The spec.
        spec: The same, written out.

    Raises:
        TrainingError: The checkpoint that was named is not there, cannot be read, or is of another training.
    """
    if resume is False:
        return None
    if resume is True or not isinstance(resume, str | Path):
        raise TrainingError(f"resume: got {resume!r}; expected 'auto', the path of a checkpoint or of a run, or False")
    if resume == "auto":
        root = Path(experiment.tracking.root).expanduser()
        return next(_readable(root.glob("*/*/checkpoints/epoch-*.zip"), spec, only_fitting=True), None)
    path = Path(resume).expanduser()
    if not path.exists():
        raise TrainingError(f"resume: there is no {str(path)!r}")
    candidates = [*path.glob("epoch-*.zip"), *path.glob("checkpoints/epoch-*.zip")] if path.is_dir() else [path]
    found = next(_readable(iter(candidates), spec, only_fitting=False), None)
    if found is None:
        raise TrainingError(f"resume: there is no checkpoint in {str(path)!r} that can be read")
    return found


def _readable(paths: Iterator[Path], spec: dict[str, Any], *, only_fitting: bool) -> Iterator[Resumed]:
    """Yield the checkpoints that can be read, newest first; the others are warned of and left out."""
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            with open_bundle(path) as bundle:
                training = bundle.training()
                if training is None:
                    raise BundleError(
                        f"{path} is no checkpoint: it does not say where a training stood", reason="inconsistent"
                    )
                differing = _differing(bundle.spec, spec)
                if differing and only_fitting:
                    continue
                if differing:
                    raise TrainingError(
                        f"resume: {path} is of another training: {some(differing)} differ; only "
                        f"{', '.join(MAY_CHANGE)} and the tracking may change"
                    )
                # Copies, because training writes into them.
                tensors = {name: torch_tensor(tensor).clone() for name, tensor in training.tensors.items()}
                yield Resumed(path, unflatten(training.values, tensors))
        except BundleError as error:
            warnings.warn(f"resume: {error}; the checkpoint before it is taken", stacklevel=2)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what two specs differ in, but for what may change."""
    flat = []
    for spec in (one, other):
        spec = copy.deepcopy(spec)
        for name in MAY_CHANGE:
            spec["model"]["training"].pop(name, None)
        flat.append({**model_params(spec), **training_params(spec)})
    return sorted(key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key))
