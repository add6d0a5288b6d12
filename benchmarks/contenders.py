"""The training stage against the hand-written loop and against other libraries, each in a process of its own.

The processes stay and take turns, so that each imports once and what else the machine does hits all of a round alike.
Processes differ even where they do the same: the hand-written loop has two, and the ratio of those shows how far chance
reaches. All train the same layers on the same rows; the accuracy on rows of the train part shows that they did.

    python benchmarks/contenders.py                  # those of contenders.txt that are installed
    python benchmarks/contenders.py --python PATH    # those that another interpreter has, beside gymtrain
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _contenders import CONTENDERS, HAND_WRITTEN, Case
from _measure import differences, header, interleaved, ratios, spread_text, table
from train import synthetic

CASES = ("mlp", "cnn", "digits")
SCORED_ROWS = 1000


@cache
def case_of(name: str, quick: bool) -> Case:
    """Return a case by its name."""
    if name == "digits":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return Case("digits, 64-64-10, batch 32", X.astype(np.float32), y, [64], [], 32, 5 if quick else 20)
    if name == "cnn":
        rows = 1280 if quick else 10000
        X, y = synthetic(rows)
        return Case(f"{rows} images, 28x28, batch 64", X.reshape(-1, 28, 28), y, [64], [16, 32], 64, 1)
    rows = 6000 if quick else 60000
    return Case(f"{rows} rows, 784-256-256-10, batch 128", *synthetic(rows), [256, 256], [], 128, 2)


class Worker:
    """The process of a contender.

    Args:
        name: The contender.
        process: Takes the name of a case in a line, and answers in a line of JSON.
        errors: What else it printed.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], errors: Path) -> None:
        self.name, self._process, self._errors = name, process, errors
        self.accuracy: dict[str, float] = {}

    def turn(self, case: str) -> float:
        """Let it train a case; return seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        answer = self.answer()
        self.accuracy[case] = answer["accuracy"]
        seconds: float = answer["seconds"]
        return seconds

    def answer(self) -> dict[str, Any]:
        """Return what it has to say."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; it printed:\n{self._errors.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(name: str, options: argparse.Namespace) -> Iterator[Worker]:
    """Start the process of a contender, and end it."""
    threads = str(options.threads)
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [options.python, __file__, "--worker", name, "--threads", threads, *["--quick"] * options.quick]
    with (
        tempfile.NamedTemporaryFile(suffix=".log") as errors,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        yield Worker(name, process, Path(errors.name))


def work(name: str, quick: bool, threads: int) -> None:
    """Be the process of a contender: say whether it is there, then take a turn for each line that comes in."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contender = CONTENDERS[name]
    try:
        import_module(contender.module)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers)
        return
    import torch

    torch.set_num_threads(threads)
    versions = {each: version(each) for each in ("torch", contender.distribution)}
    print(json.dumps({"versions": versions}), file=answers)
    for line in sys.stdin:
        case = case_of(line.strip(), quick)
        turn = contender.train(case)
        right = turn.scores(case.X[:SCORED_ROWS]).argmax(axis=1) == case.y[:SCORED_ROWS]
        print(json.dumps({"seconds": turn.seconds, "accuracy": float(right.mean())}), file=answers)


def compared(case_name: str, workers: Mapping[str, Worker], options: argparse.Namespace) -> list[list[str]]:
    """Return the rows of the table."""
    case = case_of(case_name, options.quick)
    takes_part = [name for name in workers if case.channels or "channels" not in name]
    seconds = interleaved({name: partial(workers[name].turn, case_name) for name in takes_part}, options.rounds)
    own = seconds[HAND_WRITTEN]
    rows = []
    for name, spent in seconds.items():
        extra = differences([1e6 * each / case.steps for each in spent], [1e6 * each / case.steps for each in own])
        per_step = 1e6 * statistics.median(spent) / case.steps
        speed = spread_text(ratios(own, spent))
        accuracy = f"{workers[name].accuracy[case_name]:.3f}"
        rows.append([f"{case.name}: {name}", *speed, f"{per_step:.0f}", *spread_text(extra, 0), accuracy])
    return rows


def some_of(text: str) -> list[str]:
    """Read the names of contenders, without the words behind a comma; the hand-written loop takes part in any case."""
    asked = [each.strip() for each in text.split(",") if each.strip()]
    known = dict.fromkeys(name.partition(",")[0] for name in CONTENDERS)
    unknown = [each for each in asked if each not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"got {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in CONTENDERS if name.startswith(HAND_WRITTEN) or name.partition(",")[0] in asked]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training against the hand-written loop and against other libraries.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender has its turn")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it runs, not how fast")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; one makes figures comparable")
    parser.add_argument("--only", type=some_of, default=list(CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="what is trained")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the contenders")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.worker is not None:
        work(options.worker, options.quick, options.threads)
        return
    with ExitStack() as stack:
        workers = {name: stack.enter_context(started(name, options)) for name in options.only}
        versions: dict[str, str] = {}
        for name, answer in [(name, worker.answer()) for name, worker in workers.items()]:
            if "missing" in answer:
                print(f"- {name} is left out: {answer['missing']}")
                del workers[name]
            versions |= answer.get("versions", {})
        print(header("numpy", rounds=options.rounds, threads=options.threads))
        print("- contenders: " + ", ".join(f"{name} {number}" for name, number in versions.items()), end="\n\n")
        rows = [row for case in options.cases for row in compared(case, workers, options)]
    columns = ["training", "speed / hand-written", "range", "µs per step", "extra µs per step", "range", "accuracy"]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
