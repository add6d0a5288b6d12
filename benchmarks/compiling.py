"""Compiled training steps against eager ones, once they are compiled: where it pays, and where it does not.

`gated` has many small operations between its matrix products, which a compiler fuses; `mlp` has few. The epoch
in which the step is compiled is not counted; how long it takes stands in the last column.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _measure import arguments, header, interleaved, ratios, spread_text, table
from torch import nn

from gymtrain import Callback, Trainer

FEATURES, WIDTH, CLASSES, BATCH, EPOCHS = 64, 64, 10, 32, 3


class Gate(nn.Module):
    """Layer norm, two branches of which one opens the other, and a way around."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        value, gate = self.up(self.norm(inputs)).chunk(2, dim=1)
        return inputs + self.down(torch.tanh(value) * torch.sigmoid(gate) + nn.functional.softplus(value))


def gated() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), *[Gate() for _ in range(4)], nn.Linear(WIDTH, CLASSES))


def mlp() -> nn.Sequential:
    sizes = [FEATURES, WIDTH, WIDTH]
    layers = [layer for each in pairwise(sizes) for layer in (nn.Linear(*each), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


MODELS: dict[str, Callable[[], nn.Sequential]] = {"gated": gated, "mlp": mlp}


class Network(nn.Module):
    """A network of this script, as a spec names it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layers = MODELS[name]()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(inputs)
        return outputs


class Clock(Callback):
    """Notes when each epoch is over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_fit_model_begin(self, state: Any) -> None:
        self.times.append(perf_counter())

    def on_epoch_end(self, state: Any) -> None:
        self.times.append(perf_counter())


def by_hand(X: torch.Tensor, y: torch.Tensor, name: str, *, is_compiled: bool) -> list[float]:
    """Train with the hand-written loop; return the time after each epoch, and before the first."""
    torch.manual_seed(0)
    model, loss_of = MODELS[name](), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def forward(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_of(model(batch), labels)
        return loss

    step = torch.compile(forward, dynamic=False) if is_compiled else forward
    times = [perf_counter()]
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            step(X.index_select(0, rows), y.index_select(0, rows)).backward()
            optimizer.step()
        times.append(perf_counter())
    torch.compiler.reset()
    return times


def with_gymtrain(X: torch.Tensor, y: torch.Tensor, name: str, root: str, *, is_compiled: bool) -> list[float]:
    """Train with gymtrain; the same."""
    clock = Clock()
    Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X.numpy(), "y": y.numpy(), "task": "multiclass"},
            "samples": {"train": 1.0},
            "preprocessors": [],
        },
        model={
            "model": {"type": Network, "name": name},
            "training": {"epochs": EPOCHS, "batch_size": BATCH, "device": "cpu", "compile": is_compiled},
        },
        tracking={"root": root, "log_every_n_steps": 0},
    ).train([clock])
    return clock.times


def main() -> None:
    options = arguments("Compiled training steps against eager ones.", rounds=5)
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)
    rows = BATCH * (20 if options.quick else 200)
    y = torch.from_numpy(generator.integers(CLASSES, size=rows))
    X = torch.from_numpy(generator.standard_normal((rows, FEATURES), dtype=np.float32))
    print(header("gymtrain", "torch", rounds=options.rounds, threads=options.threads), end="\n\n")
    first: dict[str, list[float]] = {}

    def turn(name: str, train: Callable[[], list[float]]) -> float:
        times = train()
        first.setdefault(name, []).append(times[1] - times[0])
        return times[-1] - times[1]

    lines = []
    with tempfile.TemporaryDirectory() as root:
        for model in MODELS:
            kinds = {
                "by hand": lambda model=model: by_hand(X, y, model, is_compiled=False),
                "by hand, compiled": lambda model=model: by_hand(X, y, model, is_compiled=True),
                "gymtrain": lambda model=model: with_gymtrain(X, y, model, root, is_compiled=False),
                "gymtrain, compiled": lambda model=model: with_gymtrain(X, y, model, root, is_compiled=True),
            }
            contenders = {
                f"{model}: {kind}": lambda name=f"{model}: {kind}", train=train: turn(name, train)
                for kind, train in kinds.items()
            }
            seconds = interleaved(contenders, options.rounds)
            own = seconds[f"{model}: by hand"]
            for name, spent in seconds.items():
                per_step = 1e6 * sorted(spent)[len(spent) // 2] / (rows // BATCH * (EPOCHS - 1))
                lines.append([name, *spread_text(ratios(own, spent)), f"{per_step:.0f}", f"{min(first[name]):.2f}"])
    print(table(["training", "speed / by hand", "range", "µs per step", "s of the first epoch"], lines))


if __name__ == "__main__":
    main()
