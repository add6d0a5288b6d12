"""Checkpoints whose state somebody has changed, with digests that are right.

As a program (`python hostile_states.py ROOT`) it resumes from each of them and prints how it went, one JSON object per
line: what was changed, and `begun`, then `refused`, `trained on`, or the error that should not have come.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_forge import take_apart
from faulty_training import checkpoints, make_trainer
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from gymtrain import Trainer, TrainingError
from gymtrain.bundle.format import TRAINING_STATE, TRAINING_TENSORS

Place = tuple[str | int, ...]

PLACES_OF_A_KIND = 8
# What is put in place of something in the state; `SOME` is the name of a tensor that is there.
SOME = "the name of a tensor"
KINDS: dict[str, Any] = {
    "removed": ...,
    "null": None,
    "true": True,
    "text": "../../etc/passwd",
    "below zero": -1,
    "fraction": 1.5,
    "large": 10**15,
    "empty list": [],
    "empty object": {},
    "nested": [[[{}]]],
    "tensor that is not there": {"$tensor": "nowhere"},
    "tensor named by a list": {"$tensor": [1]},
    "tensor of something else": {"$tensor": SOME},
    "array of objects": {"$array": SOME, "dtype": "O", "shape": [1]},
    "array of an unknown type": {"$array": SOME, "dtype": "os.system", "shape": [1]},
    "array that is too large": {"$array": SOME, "dtype": "uint8", "shape": [10**12]},
    "array without a shape": {"$array": SOME},
    "tuple of nothing": {"$tuple": None},
    "items that are no pairs": {"$items": [1, 2, 3]},
    "items named by lists": {"$items": [[[1], 2]]},
    "number that is code": {"$float": "__import__('os').abort()"},
}
TENSOR_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one more axis": lambda tensor: np.zeros((*tensor.shape, 2), tensor.dtype),
    "one row": lambda tensor: tensor[:1] if tensor.ndim else tensor,
}


def refused_or_harmless(trainer: Trainer, resume: Path) -> str | None:
    """Return what is said of a checkpoint that is refused; None where it is trained on. All else is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.train(resume=resume)
        except TrainingError as error:
            return "\n".join([*(str(warning.message) for warning in caught), str(error)])
    return None


def places_in(tree: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of everything in a tree."""
    yield place
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places_in(value, (*place, key))


def replaced(tree: Any, place: Place, value: Any) -> Any:
    """Put something in a place of a tree, or remove what is there."""
    if not place:
        return {} if value is ... else value
    above = tree
    for key in place[:-1]:
        above = above[key]
    if value is ...:
        del above[place[-1]]
    else:
        above[place[-1]] = value
    return tree


def changed_checkpoints(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of checkpoints that somebody has made of a good one."""
    forge = take_apart(content)
    state = forge.part(TRAINING_STATE).content
    tensors = load_tensors(forge.part(TRAINING_TENSORS).content)
    for kind, value in KINDS.items():
        if value is not ...:
            value = json.loads(json.dumps(value).replace(SOME, min(tensors)))
        places = list(places_in(json.loads(state)))
        of_tensors = [place[:-1] for place in places if place[-1:] == ("$tensor",)]
        chosen = random.Random(kind).sample(places, PLACES_OF_A_KIND)
        for place in [(), *chosen, *(of_tensors if kind == "tensor of something else" else ())]:
            changed = json.dumps(replaced(json.loads(state), place, value)).encode()
            yield f"{kind} at {place}", take_apart(content).replace(TRAINING_STATE, changed).pack()
    for kind, change in TENSOR_CHANGES.items():
        for name in tensors:
            changed = save_tensors({**tensors, name: np.ascontiguousarray(change(tensors[name]))})
            yield f"{name} {kind}", take_apart(content).replace(TRAINING_TENSORS, changed).pack()
    yield "no tensors", take_apart(content).replace(TRAINING_TENSORS, save_tensors({})).pack()


def _main(root: Path) -> None:
    torch.set_num_threads(1)  # the tensors are tiny
    newest = checkpoints(root)[-1]
    for name, content in changed_checkpoints(newest.read_bytes()):
        newest.write_bytes(content)
        _tell(name, "begun")
        try:
            told = refused_or_harmless(make_trainer(root, epochs=4, keep_last=None), newest)
        except Exception as error:
            _tell(name, f"{type(error).__name__}: {error}")
        else:
            _tell(name, "trained on" if told is None else "refused")


def _tell(name: str, outcome: str) -> None:
    sys.stdout.write(json.dumps({"name": name, "outcome": outcome}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
