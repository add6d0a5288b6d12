"""Saves over a bundle that are killed at random moments.

As a program (`python killed_saves.py FOLDER COUNT SEED`) it prints one JSON object per save: whether it was killed, and
whether the old or the new bundle is there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gymtrain import Trainer
from gymtrain.bundle import open_bundle


def killed_saves(folder: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Save two trainers in turn, each time in a process that is killed; yield what is there then.

    Raises:
        BundleError: What is there is neither, or not whole.
    """
    torch.set_num_threads(1)  # a process that is forked has no other threads
    path, chance = folder / "model.zip", random.Random(seed)
    trainers = {_digest(path, trainer): trainer for trainer in map(_trainer, (folder, folder), (0, 1))}
    lasts = min(_seconds(trainer, path) for trainer in trainers.values())
    for _ in range(count):
        old = _weights(path)
        new = next(digest for digest in trainers if digest != old)
        is_killed = _save_and_kill(trainers[new], path, chance.uniform(0.0, 1.5 * lasts))
        found = _weights(path)
        assert found in (old, new)
        yield {"killed": is_killed, "is": "new" if found == new else "old", "left": len(os.listdir(folder)) - 1}


def _trainer(folder: Path, seed: int) -> Trainer:
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={"model": {"type": "mlp", "hidden": [200, 200]}, "training": {"epochs": 1, "seed": seed}},
        tracking={"root": str(folder.parent / "runs"), "trackers": [], "log_figures": False, "log_bundle": False},
    )
    trainer.train()
    return trainer


def _digest(path: Path, trainer: Trainer) -> str:
    trainer.save(path)
    return _weights(path)


def _seconds(trainer: Trainer, path: Path) -> float:
    begin = time.perf_counter()
    trainer.save(path)
    return time.perf_counter() - begin


def _weights(path: Path) -> str:
    with open_bundle(path) as bundle:  # verifies all of it
        digest: str = bundle.manifest["members"]["weights.safetensors"]["sha256"]
        return digest


def _save_and_kill(trainer: Trainer, path: Path, after: float) -> bool:
    """Save in a process that is killed after some seconds; return whether it was, and had not ended before."""
    ready, begun = os.pipe()
    process = os.fork()
    if process == 0:
        os.write(begun, b"x")
        trainer.save(path)
        os._exit(0)
    os.read(ready, 1)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    os.close(ready)
    os.close(begun)
    return os.WIFSIGNALED(status)


def _main(folder: Path, count: int, seed: int) -> None:
    for told in killed_saves(folder, count, seed):
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
