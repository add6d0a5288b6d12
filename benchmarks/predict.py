"""`predict_proba` against the bare module under `inference_mode`: one row, many rows, and the memory that it takes.

The bare module is fed in batches of 8192 rows, from an array into an array of probabilities. Memory is the growth of
the peak of the resident set while all rows are predicted, in a process of its own; what remains when the output is
subtracted must not grow with the rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _measure import arguments, header, interleaved, ratios, spread_text, table
from train import Case, synthetic, trainer_for

from gymtrain import Trainer
from gymtrain.bundle import open_bundle, to_numpy
from gymtrain.models.networks.dense import mlp

FEATURES, CLASSES, HIDDEN, BATCH = 784, 10, [256, 256], 8192
Predict = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def bare_module(bundle: Path) -> Predict:
    """Return what a hand-written server would call, with the weights of the bundle."""
    module = mlp(input_shape=(FEATURES,), output_size=CLASSES, hidden=HIDDEN)
    with open_bundle(bundle) as opened:
        weights = opened.weights() or {}
        module.load_state_dict({name: torch.tensor(to_numpy(each)) for name, each in weights.items()})
    module.eval()

    @torch.inference_mode()
    def predict(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        inputs = torch.from_numpy(X)
        scores = torch.empty((len(X), CLASSES))
        for start in range(0, len(X), BATCH):
            scores[start : start + BATCH] = module(inputs[start : start + BATCH]).softmax(dim=1)
        return scores.numpy()

    return predict


def seconds_of(predict: Predict, X: np.ndarray[Any, Any], repeats: int) -> float:
    """Return the seconds of one call."""
    started = perf_counter()
    for _ in range(repeats):
        predict(X)
    return (perf_counter() - started) / repeats


def compared(contenders: dict[str, Predict], X: np.ndarray[Any, Any], repeats: int, rounds: int) -> list[list[str]]:
    """Return the rows of the table."""
    seconds = interleaved({name: partial(seconds_of, call, X, repeats) for name, call in contenders.items()}, rounds)
    bare = seconds["bare module"]
    rows = []
    for name, spent in seconds.items():
        median = sorted(spent)[len(spent) // 2]
        rows.append(
            [f"{len(X)} row{'s' * (len(X) != 1)}: {name}", *spread_text(ratios(spent, bare)), f"{1e6 * median:.0f}"]
        )
        rows[-1] += [f"{ratios(bare, spent).median:.3f}", f"{len(X) / median:.0f}"]
    return rows


def peak_growth(bundle: Path, which: str, rows: int, threads: int) -> tuple[float, float]:
    """Predict in a process of its own; return by how many MB the peak of its memory grew, and the MB of the output."""
    command = [sys.executable, __file__, "--measure-memory", str(bundle), which, str(rows), str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(output[0]), float(output[1])


def measure_memory(bundle: str, which: str, rows: str, threads: str) -> None:
    """Print what `peak_growth` reads."""
    torch.set_num_threads(int(threads))
    predict = Trainer.load(bundle).predict_proba if which == "gymtrain" else bare_module(Path(bundle))
    X, _ = synthetic(int(rows))
    # The first batch makes room for activations, which is none of the growth that is asked about.
    predict(X[:BATCH])
    before = _peak_bytes(reset=True)
    output = predict(X)
    print((_peak_bytes() - before) / 1e6, output.nbytes / 1e6)


def _peak_bytes(*, reset: bool = False) -> int:
    """Return the peak of the resident set in bytes; Linux can forget the earlier peak, elsewhere it stays."""
    if not Path("/proc/self/clear_refs").exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory_rows(bundle: Path, sizes: list[int], threads: int) -> list[list[str]]:
    rows = []
    for which in ("bare module", "gymtrain"):
        for size in sizes:
            growth, output = peak_growth(bundle, which, size, threads)
            rows.append([f"{size} rows: {which}", f"{growth:.1f}", f"{output:.1f}", f"{growth - output:.1f}"])
    return rows


def main() -> None:
    options = arguments("predict_proba against the bare module.", rounds=15)
    torch.set_num_threads(options.threads)
    many = 10000 if options.quick else 100000
    X, y = synthetic(many)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(Case("", X[:1000], y[:1000], HIDDEN, 128, 1), folder)
        trainer.train()
        bundle = Path(folder) / "model.zip"
        trainer.save(bundle)
        contenders: dict[str, Predict] = {
            "bare module": bare_module(bundle),
            "gymtrain": Trainer.load(bundle).predict_proba,
        }
        np.testing.assert_allclose(contenders["gymtrain"](X[:100]), contenders["bare module"](X[:100]), rtol=1e-5)
        print(header("gymtrain", "torch", "numpy", rounds=options.rounds, threads=options.threads), end="\n\n")
        rows = compared(contenders, X[:1], 50 if options.quick else 500, options.rounds)
        rows += compared(contenders, X, 1, options.rounds)
        print(
            table(["predict_proba", "time / bare", "range", "µs per call", "speed / bare", "rows per s"], rows),
            end="\n\n",
        )
        memory = memory_rows(bundle, [many // 4, many], options.threads)
    print(table(["peak memory", "growth MB", "output MB", "beyond the output MB"], memory))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure-memory"]:
        measure_memory(*sys.argv[2:])
    else:
        main()
