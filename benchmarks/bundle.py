"""What a bundle costs: saving, loading, the first prediction, memory and bytes, against other ways to keep a model.

python benchmarks/bundle.py                      # 100 million parameters, and a small network
python benchmarks/bundle.py --only small

Every save and every load has a process of its own, whose imports are not counted; the file is in the page cache when
it is loaded, and the pages of a save are written behind its back but for those that flush. Memory is the growth of the
peak of the resident set, in multiples of the weights; what is mapped counts once it is touched. Libraries that are not
installed are left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _measure import Spread, arguments_parser, header, ratios, spread_text, table
from _model_files import FEATURES, KINDS, size_of

CASES = {"large": (5000, 4), "small": (64, 2)}
BASE = next(iter(KINDS))


def main() -> None:
    parser = arguments_parser("What a bundle costs, against other ways to keep a model.", rounds=5)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--turn", help="for the processes that this one starts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.turn is not None:
        print(json.dumps(_turn(*json.loads(options.turn))))
        return
    print(header("gymtrain", "torch", "safetensors", rounds=options.rounds, threads=options.threads), end="\n\n")
    for name, (width, layers) in CASES.items():
        if options.only in (None, name):
            _case(width // 10 if options.quick else width, layers, options.rounds)


def _case(width: int, layers: int, rounds: int) -> None:
    kinds = [
        name for name, kind in KINDS.items() if all(importlib.util.find_spec(each.split(".")[0]) for each in kind.needs)
    ]
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as root:
        for index in range(rounds):
            for name in kinds if index % 2 == 0 else kinds[::-1]:
                path = Path(root, f"{kinds.index(name)}{KINDS[name].suffix}")
                saved = _in_a_process("save", name, width, layers, str(path))
                turns[name].append(saved | _in_a_process("load", name, width, layers, str(path)))
    sizes = [FEATURES] + [width] * layers + [10]
    parameters = sum((one + 1) * other for one, other in pairwise(sizes))
    weights = 4 * parameters
    _print_times(f"{parameters:,} parameters", turns)
    _print_sizes(f"{parameters:,} parameters", turns, weights)


def _in_a_process(*turn: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--turn", json.dumps(turn)]
    environment = os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _turn(what: str, name: str, width: int, layers: int, path: str) -> dict[str, float]:
    kind = KINDS[name](width, layers)
    kind.warm_up()
    row = np.random.default_rng(1).normal(size=(1, FEATURES)).astype(np.float32)
    if what == "save":
        kind.prepare()
        before = _reset_peak()
        began = perf_counter()
        kind.save(Path(path))
        return {"save": perf_counter() - began, "save_memory": _peak() - before, "bytes": size_of(Path(path))}
    torch.nn.Linear(2, 2)(torch.zeros(1, 2)).softmax(dim=1)  # what torch sets up at its first call is nobody's
    before = _reset_peak()
    began = perf_counter()
    predict = kind.load(Path(path))
    loaded = perf_counter()
    predict(row)
    ended = perf_counter()
    return {"load": loaded - began, "answer": ended - began, "load_memory": _peak() - before}


def _reset_peak() -> int:
    """Let the peak of the resident set begin anew, and return what it is now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _print_times(title: str, turns: dict[str, list[dict[str, float]]]) -> None:
    def of(name: str, key: str) -> list[float]:
        return [turn[key] for turn in turns[name]]

    rows = []
    for name in turns:
        row = [name]
        for key in ("save", "load", "answer"):
            row += [f"{1e3 * Spread.of(of(name, key)).median:.1f}"]
            row += [" (".join(spread_text(ratios(of(name, key), of(BASE, key)), 2)) + ")"]
        rows.append(row)
    named = [title, "save ms", "/ bytes", "load ms", "/ map", "load and predict a row ms", "/ map"]
    print(table(named, rows), end="\n\n")


def _print_sizes(title: str, turns: dict[str, list[dict[str, Any]]], weights: int) -> None:
    rows = []
    for name, figures in turns.items():
        more = [Spread.of([turn[key] for turn in figures]).median / 1e6 for key in ("save_memory", "load_memory")]
        size = figures[0]["bytes"]
        rows.append([name, f"{size / 1e6:.2f}", f"{size - weights:,.0f}", *(f"{each:.0f}" for each in more)])
    named = [title, "file MB", "bytes beyond the weights", "memory to save MB", "to load and predict MB"]
    print(table(named, rows), end="\n\n")


if __name__ == "__main__":
    main()
