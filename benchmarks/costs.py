"""What accumulation, bf16 autocast and an average of the weights cost a step, against the same written by hand.

Each is trained by gymtrain and by the hand-written loop, and so is the plain training: the ratios are of the seconds of
each against its own plain training, so that what gymtrain costs anyway does not hide in them.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _measure import arguments, header, interleaved, ratios, spread_text, table
from torch import nn

from gymtrain import Trainer

ROWS, SIZES, BATCH = 20_000, [784, 256, 256, 10], 128
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate 4": {"accumulate": 4, "batch_size": BATCH // 4},
    "bf16 autocast": {"precision": "bf16"},
    "average of the weights": {"ema": {"decay": 0.999, "warmup": False}},
}


def by_hand(X: torch.Tensor, y: torch.Tensor, change: str) -> float:
    """Train one epoch with the hand-written loop; return seconds."""
    began = perf_counter()
    torch.manual_seed(0)
    layers = [layer for sizes in pairwise(SIZES) for layer in (nn.Linear(*sizes), nn.ReLU())][:-1]
    model, loss_of = nn.Sequential(*layers), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    average = copy.deepcopy(model).requires_grad_(False)
    pairs = [list(average.parameters()), list(model.parameters())]
    parts = 4 if change == "accumulate 4" else 1
    for chosen in torch.randperm(len(X)).split(BATCH):
        optimizer.zero_grad(set_to_none=True)
        for rows in chosen.split(BATCH // parts):
            with torch.autocast("cpu", torch.bfloat16, enabled=change == "bf16 autocast"):
                loss = loss_of(model(X.index_select(0, rows)), y.index_select(0, rows))
            (loss * (len(rows) / len(chosen)) if parts > 1 else loss).backward()
        optimizer.step()
        if change == "average of the weights":
            with torch.no_grad():
                torch._foreach_lerp_(*pairs, 0.001)
    return perf_counter() - began


def with_gymtrain(X: torch.Tensor, y: torch.Tensor, change: str, root: str) -> float:
    """Train one epoch with gymtrain; return the seconds of the stage `fit_model`."""
    trainer = Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X.numpy(), "y": y.numpy(), "task": "multiclass"},
            "samples": {"train": 1.0},
            "preprocessors": [],
        },
        model={
            "model": {"type": "mlp", "hidden": SIZES[1:-1]},
            "training": {"epochs": 1, "batch_size": BATCH, "device": "cpu", **CHANGES[change]},
        },
        tracking={"root": root, "log_every_n_steps": 0},
    )
    seconds: float = trainer.train()["elapsed"]["fit_model"]
    return seconds


def main() -> None:
    options = arguments("The cost of accumulation, bf16 autocast and an average of the weights.", rounds=7)
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)
    rows = ROWS // 10 if options.quick else ROWS
    y = torch.from_numpy(generator.integers(10, size=rows))
    X = torch.from_numpy(generator.standard_normal((rows, SIZES[0]), dtype=np.float32))
    print(header("gymtrain", "torch", rounds=options.rounds, threads=options.threads), end="\n\n")
    with tempfile.TemporaryDirectory() as root:
        contenders: dict[str, Callable[[], float]] = {}
        for change in CHANGES:
            contenders[f"by hand: {change}"] = lambda change=change: by_hand(X, y, change)
            contenders[f"gymtrain: {change}"] = lambda change=change: with_gymtrain(X, y, change, root)
        seconds = interleaved(contenders, options.rounds)
    steps = -(-rows // BATCH)
    lines = []
    for name, spent in seconds.items():
        who, change = name.split(": ")
        per_step = 1e6 * sorted(spent)[len(spent) // 2] / steps
        own, hand = seconds[f"{who}: plain"], seconds[f"by hand: {change}"]
        lines.append([name, *spread_text(ratios(spent, own)), *spread_text(ratios(hand, spent)), f"{per_step:.0f}"])
    print(table(["training", "time / plain", "range", "speed / by hand", "range", "µs per step"], lines))


if __name__ == "__main__":
    main()
