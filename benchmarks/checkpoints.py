"""How long a training stands still for a checkpoint, against `torch.save` of as many bytes.

A network of linear layers with Adam: weights and two moments, three tensors of the size of the model. Measured is the
time from the end of an epoch until the next begins, in which the state is copied; a thread then writes it, and how long
it takes until the file is on the disk and verified is shown beside it. `torch.save` neither flushes nor verifies.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import torch
from _measure import Spread, arguments, header, ratios, spread_text, table

from gymtrain import Callback, Trainer
from gymtrain.training.callbacks import TrainingState

WIDTH, LAYERS = 5000, 4


class Stalls(Callback):
    """Measures the checkpoint of each epoch, and `torch.save` of as many tensors once it is written."""

    def __init__(self, width: int, root: Path) -> None:
        self.root = root
        self.stalls: list[float] = []
        self.until_safe: list[float] = []
        self.torch_save: list[float] = []
        self._same = {name: torch.ones(LAYERS, width, width) for name in ("weights", "exp_avg", "exp_avg_sq")}
        self._ended = 0.0

    def on_epoch_end(self, state: TrainingState) -> None:
        state.checkpoint()
        self._before = set(self._checkpoints())
        self._ended = perf_counter()

    def on_epoch_begin(self, state: TrainingState) -> None:
        if not self._ended:
            return
        self.stalls.append(perf_counter() - self._ended)
        while set(self._checkpoints()) <= self._before:
            sleep(0.01)
        self.until_safe.append(perf_counter() - self._ended)
        began = perf_counter()
        torch.save(self._same, self.root / "state.pt")
        self.torch_save.append(perf_counter() - began)

    def _checkpoints(self) -> list[str]:
        return [path.name for path in self.root.glob("*/*/checkpoints/*.zip")]


def main() -> None:
    options = arguments("The time that a training stands still for a checkpoint.", rounds=5)
    torch.set_num_threads(options.threads)
    width = 500 if options.quick else WIDTH
    print(header("gymtrain", "torch", rounds=options.rounds, threads=options.threads), end="\n\n")
    with tempfile.TemporaryDirectory() as root:
        measured = measure(width, options.rounds, Path(root))
    seconds = {"torch.save": measured.torch_save[1:], "gymtrain": measured.stalls[1:]}
    rows = [
        [name, *spread_text(ratios(spent, seconds["torch.save"])), f"{Spread.of(spent).median:.3f}"]
        for name, spent in seconds.items()
    ]
    megabytes = 12 * LAYERS * width * width / 1e6
    print(f"{LAYERS * width * width / 1e6:.0f}M parameters with Adam, {megabytes:.0f} MB", end="\n\n")
    print(table(["checkpoint", "time / torch.save", "range", "seconds"], rows), end="\n\n")
    first, until = measured.stalls[0], Spread.of(measured.until_safe)
    print(f"the first one, for which memory has to be taken: {first:.3f} s")
    print(f"on the disk and verified after {until.median:.2f} s ({until.low:.2f} to {until.high:.2f})")


def measure(width: int, rounds: int, root: Path) -> Stalls:
    """Train as many epochs of one step as there are rounds, and one more."""
    stalls = Stalls(width, root)
    X = np.random.default_rng(0).standard_normal((8, width), dtype=np.float32)
    trainer = Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X, "y": np.arange(8.0), "task": "regression"},
            "samples": {"train": 1.0},
            "preprocessors": [],
        },
        model={
            "model": {"type": "mlp", "hidden": [width] * LAYERS},
            "training": {"epochs": rounds + 2, "checkpoint": {"every_epochs": 1000}},
        },
        tracking={"root": str(root)},
    )
    trainer.train([stalls])
    return stalls


if __name__ == "__main__":
    main()
