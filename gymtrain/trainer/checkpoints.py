"""Checkpoints: bundles that hold where a training stands, too; and which one to go on from."""

from __future__ import annotations

import math
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gymtrain.bundle import Bundle, Contents, open_bundle, remove_leftovers, write
from gymtrain.errors import BundleError, TrainingError, some
from gymtrain.specs import Experiment
from gymtrain.tracking.params import model_params, training_params
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.saving import contents_of
from gymtrain.trainer.storage import restored
from gymtrain.trainer.tensors import torch_tensor
from gymtrain.training.state_tree import flatten, unflatten

# What may differ between a training and the one that goes on with it.
MAY_CHANGE = ("epochs", "max_steps", "early_stopping", "checkpoint", "workers", "worker_timeout")

_NAME = re.compile(r"epoch-\d+-step-\d+(?:-(.+)=([-+.e\d]+))?")


class Resumed(NamedTuple):
    """A checkpoint to go on from.

    Args:
        path: Where it lies.
        state: What `TorchFitting.state_dict` returned.
        weights: The state dict of the module.
        changes: What differs from its spec, among what may.
        run_directory: Of the run whose newest one it is; None for one that lies elsewhere or is an older one.
    """

    path: Path
    state: dict[str, Any]
    weights: dict[str, torch.Tensor]
    changes: dict[str, str]
    run_directory: Path | None = None


class Monitored(NamedTuple):
    """The metric that training monitors.

    Args:
        name: Of the metric.
        value: Where a checkpoint is written; NaN within an epoch, or where it is no number.
        mode: `"min"` or `"max"`.
    """

    name: str
    value: float
    mode: str


class Checkpoints:
    """The checkpoints of one run, written by a thread of their own, one after the other.

    Those that an earlier process of the run has written are among them.

    Args:
        directory: Where they lie.
        keep_last: How many of the newest are kept.
        keep_best: How many of the best are kept beside these.
    """

    def __init__(self, directory: Path, keep_last: int, keep_best: int = 0) -> None:
        self._directory, self._keep_last, self._keep_best = directory, keep_last, keep_best
        # What people have put beside them is not ours to delete.
        earlier = (path for path in directory.glob("epoch-*.zip") if _NAME.fullmatch(path.stem))
        self._paths = sorted(earlier, key=lambda path: path.stem)
        self._copied = Copies()
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None

    def write(
        self,
        spec: dict[str, Any],
        predictor: Predictor,
        state: dict[str, Any],
        monitored: Monitored | None,
        facts: Mapping[str, Any],
    ) -> None:
        """Copy everything and begin to write it; those that are too many are deleted once it is whole and verified.

        One that is still being written is waited for: two copies of a model in memory are enough.

        Args:
            spec: The spec, written out.
            predictor: With the weights of the last step, or their average.
            state: What `TorchFitting.state_dict` returned; `epoch` and `step` are in the name of the file.
            monitored: The metric that training monitors, if it does; a value is in the name of the file, too.
            facts: What else is known of the training, for those who read the results.

        Raises:
            TrainingError: The state holds something that no checkpoint can hold.
        """
        self.wait()
        try:
            training = flatten(state)
        except TypeError as error:
            raise TrainingError(f"model.training.checkpoint: {error}") from error
        result = {"metrics": dict(state["history"]), "best": None, **facts}
        contents = contents_of(spec, predictor, result, training, self._copied)
        name = f"epoch-{state['epoch']:06d}-step-{state['step']:09d}"
        if monitored is not None and math.isfinite(monitored.value):
            name += f"-{monitored.name.replace('/', '_')}={monitored.value:.6g}"
        path = self._directory / f"{name}.zip"
        # Nothing waits for it when a second signal ends the program: what is half written is not there.
        writing = threading.Thread(
            target=self._write, args=(path, monitored, contents), name="gymtrain-checkpoint", daemon=True
        )
        writing.start()
        self._writing = writing

    def wait(self) -> None:
        """Wait until the last one is written; a failure is warned of, and loses nothing but the checkpoint."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        failure, self._failure = self._failure, None
        if failure is not None:
            warnings.warn(f"no checkpoint was written: {failure}; the ones before it are kept", stacklevel=2)

    def _write(self, path: Path, monitored: Monitored | None, contents: Contents) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write(path, contents)
            open_bundle(path).close()  # verifies all of it: what a resume would refuse may not replace older ones
            self._paths = [each for each in self._paths if each != path] + [path]
            kept = {*self._paths[-self._keep_last :], *self._best(monitored)}
            for old in set(self._paths) - kept:
                old.unlink(missing_ok=True)
            self._paths = [each for each in self._paths if each in kept]
        except Exception as error:  # a full disk ends the checkpoints, not what is being learned; `wait` tells of it
            self._failure = error

    def _best(self, monitored: Monitored | None) -> list[Path]:
        if monitored is None:
            return []
        names = {path: _NAME.fullmatch(path.stem) for path in self._paths}
        metric, sign = monitored.name.replace("/", "_"), 1 if monitored.mode == "min" else -1
        values = {path: sign * float(name[2]) for path, name in names.items() if name is not None and name[1] == metric}
        return sorted(values, key=values.__getitem__)[: self._keep_best]


class Copies:
    """Copies of tensors, in memory that is used again: taking fresh memory costs more than the copying."""

    def __init__(self) -> None:
        self._copies: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy on the CPU; the one before it of that name is no longer what it was."""
        copy = self._copies.get(name)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = self._copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return copy.copy_(tensor.detach())


def find(resume: str | Path | bool | None, experiment: Experiment, spec: dict[str, Any]) -> Resumed | None:
    """Return the checkpoint to go on from.

    Args:
        resume: `"auto"` for the newest one under the tracking root that fits the spec, if there is one; a checkpoint or
            the directory of a run; False for none.
        experiment: The spec.
        spec: The same, written out.

    Raises:
        TrainingError: The checkpoint that was named is not there, cannot be read, or is of another training.
    """
    if resume is False or resume is None:
        return None
    if resume is True or not isinstance(resume, str | Path):
        raise TrainingError(f"resume: got {resume!r}; expected 'auto', the path of a checkpoint or of a run, or False")
    if resume == "auto":
        root = Path(experiment.tracking.root).expanduser()
        _clean([*root.glob("*/*"), *root.glob("*/*/checkpoints")])
        others: list[str] = []
        found = next(_readable(root.glob("*/*/checkpoints/epoch-*.zip"), spec, others), None)
        if found is None and others:
            warnings.warn(f"resume: nothing fits, and the training begins anew; {others[0]}", stacklevel=2)
        return _with_run(found)
    path = Path(resume).expanduser()
    if not path.exists():
        raise TrainingError(f"resume: there is no {str(path)!r}")
    _clean([path, path / "checkpoints"])
    candidates = [*path.glob("epoch-*.zip"), *path.glob("checkpoints/epoch-*.zip")] if path.is_dir() else [path]
    with warnings.catch_warnings(record=True) as skipped:
        warnings.simplefilter("always")
        found = next(_readable(candidates, spec), None)
    if found is None:
        reasons = "".join(f"\n  {each.message}" for each in skipped)
        raise TrainingError(f"resume: there is no checkpoint in {str(path)!r} that can be read{reasons}")
    for each in skipped:
        warnings.warn(str(each.message), stacklevel=2)
    return _with_run(found)


def _with_run(found: Resumed | None) -> Resumed | None:
    """Add the directory of the run, if nothing newer in it can be read."""
    if found is None or found.path.parent.name != "checkpoints":
        return found
    own = found.path.absolute()
    return found if any(map(_is_whole, _newer(own))) else found._replace(run_directory=own.parent.parent)


def still_newest(chosen: Resumed, spec: dict[str, Any]) -> Resumed:
    """Return the newest checkpoint of a run that is locked by now; one may have been written since the choice.

    Args:
        chosen: The one that was the newest before.
        spec: The spec of the training that is to go on.

    Raises:
        TrainingError: It is of another training.
    """
    found = next(_readable(_newer(chosen.path.absolute()), spec), None)
    if found is None:
        return chosen
    warnings.warn(f"resume: {found.path} was written while {chosen.path} was read; it is gone on with", stacklevel=2)
    return found._replace(run_directory=chosen.run_directory)


def _newer(path: Path) -> Iterator[Path]:
    """Yield the checkpoints of the same run that are further than one of them."""
    return (each for each in path.parent.glob("epoch-*.zip") if each.stem > path.stem)


def _is_whole(path: Path) -> bool:
    try:
        open_bundle(path).close()
    except (BundleError, OSError):
        return False
    return True


def _clean(directories: Iterable[Path]) -> None:
    """Remove what trainings that died while they were writing have left."""
    for directory in directories:
        remove_leftovers(directory)


def _readable(paths: Iterable[Path], spec: dict[str, Any], others: list[str] | None = None) -> Iterator[Resumed]:
    """Yield the checkpoints that can be read, newest first; the others are warned of and left out.

    Args:
        paths: Of the checkpoints.
        spec: The spec of the training that is to go on.
        others: Takes what is said of those of another training; None to raise it.

    Raises:
        TrainingError: One is of another training.
    """
    for path in _newest_first(paths):
        try:
            with open_bundle(path) as bundle:
                differing = _differing(bundle.spec, spec)
                refused = [key for key in differing if not key.startswith(_MAY_CHANGE_KEYS)]
                if refused:
                    told = (
                        f"{path} is of another training: {_shown(differing, refused)}; only {', '.join(MAY_CHANGE)} "
                        f"and the tracking may change"
                    )
                    if others is None:
                        raise TrainingError(f"resume: {told}")
                    if all(key.startswith("training/") for key in refused):  # the same model on the same data
                        others.append(told)
                    continue
                yield _resumed(path, bundle, differing)
        except (BundleError, OSError) as error:  # one may be deleted in the meantime, by the training that it is of
            warnings.warn(f"resume: {error}; it is passed over", stacklevel=2)


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    """Order checkpoints: the runs by when they last wrote one; those of a run by how far it was, whatever the clock."""
    runs: dict[Path, list[Path]] = {}
    for path in paths:
        runs.setdefault(path.parent, []).append(path)
    ordered = sorted(runs.values(), key=lambda run: max(map(_written_at, run)), reverse=True)
    return [path for run in ordered for path in sorted(run, key=lambda path: path.stem, reverse=True)]


def _written_at(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _resumed(path: Path, bundle: Bundle, changes: dict[str, str]) -> Resumed:
    training = bundle.training()
    if training is None:
        raise BundleError(f"{path} is no checkpoint: it does not say where a training stood", reason="inconsistent")
    # Copies, because training writes into them.
    tensors = {name: torch_tensor(tensor).clone() for name, tensor in training.tensors.items()}
    weights = {name: tensor.clone() for name, tensor in restored(bundle).items()}
    try:
        state = unflatten(training.values, tensors)
        return Resumed(path, state, {**weights, **state.pop("module")}, changes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{path}: training/: the members do not fit together: {type(error).__name__}: {error}"
        raise BundleError(message, reason="inconsistent") from error


_MAY_CHANGE_KEYS = (*(f"training/{name}" for name in MAY_CHANGE), "dataset/image_cache_gb")


def _differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    """Return what two specs differ in, flattened: the key, and both values."""
    flat = [{**model_params(spec), **training_params(spec)} for spec in (one, other)]
    return {
        key: f"{flat[0].get(key)!r} -> {flat[1].get(key)!r}"
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    }


def _shown(differing: dict[str, str], keys: list[str]) -> str:
    shown = [f"{key} ({differing[key]})" for key in keys[:5]]
    return ", ".join(shown) + (f" and {some(keys[5:])}" if len(keys) > 5 else "")
