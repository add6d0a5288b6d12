"""The training stage against the hand-written loop that does the same work; on a GPU with `--device cuda`.

The hand-written loop is as fast as plain PyTorch gets with reasonable effort: one permutation per epoch, batches by
`index_select`, fused Adam, `zero_grad(set_to_none=True)`, the loss added up where it is and read once an epoch. Both
are timed over the same epochs, the making of model and optimizer included; nothing is validated or tracked. The
hand-written loop takes part twice: the ratio of its two turns shows how far chance reaches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from _measure import arguments_parser, differences, header, interleaved, ratios, spread_text, table
from sklearn.datasets import load_digits
from torch import nn

from gymtrain import Trainer


class Case(NamedTuple):
    """What is trained on what."""

    name: str
    X: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    hidden: list[int]
    batch_size: int
    epochs: int

    @property
    def steps(self) -> int:
        return self.epochs * -(-len(self.X) // self.batch_size)


def synthetic(rows: int, features: int = 784, classes: int = 10) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Clusters around random centres, one for each class: float32 features, int64 labels."""
    generator = np.random.default_rng(0)
    y = generator.integers(classes, size=rows)
    centres = generator.standard_normal((classes, features), dtype=np.float32)
    X = generator.standard_normal((rows, features), dtype=np.float32)
    X += centres[y] * np.float32(0.1)
    return X, y


def hand_written(case: Case, device: str) -> float:
    """Train with the hand-written loop; return seconds."""
    started = perf_counter()
    inputs, targets = torch.from_numpy(case.X).to(device), torch.from_numpy(case.y).to(device)
    torch.manual_seed(0)
    sizes = [case.X.shape[1], *case.hidden]
    layers: list[nn.Module] = []
    for size, width in pairwise(sizes):
        layers += [nn.Linear(size, width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_of = nn.CrossEntropyLoss()
    model.train()
    for _ in range(case.epochs):
        total = torch.zeros((), device=device)
        for chosen in torch.randperm(len(inputs)).to(device).split(case.batch_size):
            batch, labels = inputs.index_select(0, chosen), targets.index_select(0, chosen)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(batch), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
    return perf_counter() - started


def trainer_for(case: Case, root: str, device: str = "cpu") -> Trainer:
    """Describe the same training."""
    return Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": case.X, "y": case.y, "task": "multiclass"},
            "samples": {"train": 1.0},
            "preprocessors": [],
        },
        model={
            "model": {"type": "mlp", "hidden": case.hidden},
            "training": {"epochs": case.epochs, "batch_size": case.batch_size, "optimizer": "Adam", "device": device},
        },
        tracking={"root": root, "trackers": [], "log_every_n_steps": 0},
    )


def with_gymtrain(case: Case, root: str, device: str) -> float:
    """Train with gymtrain; return the seconds of the stage `fit_model`."""
    seconds: float = trainer_for(case, root, device).train()["elapsed"]["fit_model"]
    return seconds


def compared(case: Case, rounds: int, root: str, device: str) -> list[list[str]]:
    """Return the rows of the table."""
    contenders: dict[str, Callable[[], float]] = {
        "hand-written": lambda: hand_written(case, device),
        "hand-written again": lambda: hand_written(case, device),
        "gymtrain": lambda: with_gymtrain(case, root, device),
    }
    seconds = interleaved(contenders, rounds)
    own = seconds["hand-written"]
    rows = []
    for name, spent in seconds.items():
        extra = differences([1e6 * each / case.steps for each in spent], [1e6 * each / case.steps for each in own])
        per_step = 1e6 * sorted(spent)[len(spent) // 2] / case.steps
        rows.append(
            [f"{case.name}: {name}", *spread_text(ratios(own, spent)), f"{per_step:.0f}", *spread_text(extra, 0)]
        )
    return rows


def main() -> None:
    parser = arguments_parser("Training against the hand-written loop.", rounds=9)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = load_digits()
    small = Case(
        "digits, 64-64-10, batch 32",
        digits.data.astype(np.float32),
        digits.target,
        [64],
        32,
        5 if options.quick else 20,
    )
    large = Case(
        "60000 rows, 784-256-256-10, batch 128", *synthetic(6000 if options.quick else 60000), [256, 256], 128, 2
    )
    if options.quick:
        large = large._replace(name="6000 rows, 784-256-256-10, batch 128")
    print(header("gymtrain", "torch", "numpy", rounds=options.rounds, threads=options.threads), end="\n\n")
    with tempfile.TemporaryDirectory() as root:
        rows = [row for case in (large, small) for row in compared(case, options.rounds, root, options.device)]
    print(table(["training", "speed / hand-written", "range", "µs per step", "extra µs per step", "range"], rows))


if __name__ == "__main__":
    main()
