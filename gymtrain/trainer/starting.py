"""Training that begins with weights that were learned elsewhere."""

from __future__ import annotations

import hashlib
import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gymtrain.bundle import open_bundle
from gymtrain.bundle.tensors import parse
from gymtrain.errors import BundleError, Fault, SpecError, TrainingError, some
from gymtrain.models.parameter_names import spoken_of
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.specs import StartFrom
from gymtrain.trainer.storage import restored
from gymtrain.trainer.tensors import torch_tensor

Tensors = dict[str, torch.Tensor]

_PATH = "model.training.start_from"


def start_from(start: StartFrom, learner: TorchLearner) -> dict[str, Any]:
    """Give a module the weights of a file, as far as they are of it; the others stay as they are, made anew.

    Args:
        start: Which file, and what of it.
        learner: With the module, as its constructor made it.

    Returns:
        What was done, as JSON can hold it: `path` and `sha256` of the file, the number of tensors that are `loaded`,
        the names of those that were made `anew`, and of those of the file that were `left_out`.

    Raises:
        TrainingError: The file is gone, or another one than it was.
        BundleError: It is neither a bundle nor safetensors, or damaged.
        SpecError: Nothing in it is of the module; or not all is, where that is asked for.
    """
    given = _without_prefix(_read(start), start)
    own: Tensors = learner.module.state_dict()
    replaced = spoken_of(start.replace, list(own), f"{_PATH}.replace")
    wanted = {name: tensor for name, tensor in own.items() if name not in replaced}
    loaded = {name: given[name] for name, tensor in wanted.items() if name in given and _fits(given[name], tensor)}
    if not loaded:
        raise SpecError([Fault(_PATH, _nothing_fits(start, given, own))])
    others = [_misfit(name, tensor, given.get(name)) for name, tensor in wanted.items() if name not in loaded]
    left_out = [name for name in given if name not in own]
    if others or left_out:
        told = f"{len(loaded)} of {len(own)} tensors of the model are those of {start.path!r}"
        told += f"; made anew: {', '.join(others[:5])}{_more(others)}" if others else ""
        told += f"; left out: {some(left_out)}" if left_out else ""
        if start.strict:
            raise SpecError([Fault(f"{_PATH}.strict", told)])
        warnings.warn(f"{_PATH}: {told}", stacklevel=2)
    learner.module.load_state_dict(loaded, strict=False)  # the names were compared above
    return {
        "path": start.path,
        "sha256": start.sha256,
        "loaded": len(loaded),
        "anew": [name for name in own if name not in loaded],
        "left_out": left_out,
    }


def _read(start: StartFrom) -> Tensors:
    path = Path(start.path).expanduser()
    try:
        with path.open("rb") as file:
            # Copy-on-write: torch wants memory that can be written to.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        why = error.strerror if isinstance(error, OSError) else "it is empty"
        had = f"; the spec means the file with SHA-256 {start.sha256}" if start.sha256 else ""
        raise TrainingError(f"{_PATH}.path: {start.path!r} cannot be read: {why}{had}") from error
    found = hashlib.sha256(content).hexdigest()
    if start.sha256 is not None and found != start.sha256:
        raise TrainingError(
            f"{_PATH}.path: {start.path!r} has SHA-256 {found}, and the spec means the file with {start.sha256}; put "
            f"that one there, or leave sha256 out"
        )
    try:
        if content[:2] == b"PK":
            with open_bundle(path, sha256=found) as bundle:
                return restored(bundle)
        return {name: torch_tensor(tensor) for name, tensor in parse(memoryview(content), where=start.path).items()}
    except BundleError as error:
        raise BundleError(f"{_PATH}.path: {error}", reason=error.reason) from error


def _without_prefix(given: Tensors, start: StartFrom) -> Tensors:
    found = {name.removeprefix(start.prefix): each for name, each in given.items() if name.startswith(start.prefix)}
    if not found:
        begin = sorted({f"{name.partition('.')[0]}." for name in given if "." in name})
        has = f"; there they begin with {some(begin)}" if given else "; it holds no tensors of a torch module"
        raise SpecError([Fault(f"{_PATH}.prefix", f"no tensor in {start.path!r} begins with {start.prefix!r}{has}")])
    return found


def _fits(tensor: torch.Tensor, own: torch.Tensor) -> bool:
    is_of_kind = tensor.dtype == own.dtype or (tensor.is_floating_point() and own.is_floating_point())
    return tensor.shape == own.shape and is_of_kind


def _misfit(name: str, own: torch.Tensor, given: torch.Tensor | None) -> str:
    if given is None:
        return f"{name!r}, which it lacks"
    if given.shape != own.shape:
        return f"{name!r}, which has shape {tuple(given.shape)} there and {tuple(own.shape)} here"
    return f"{name!r}, which is {given.dtype} there and {own.dtype} here"


def _more(items: list[str]) -> str:
    return f" and {len(items) - 5} more" if len(items) > 5 else ""


def _nothing_fits(start: StartFrom, given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    return (
        f"no tensor of the model has the name and the shape of one in {start.path!r}: that has {some(given, limit=3)}, "
        f"the model {some(own, limit=3)}; give the prefix that the names there have, or the weights of such a model"
    )
