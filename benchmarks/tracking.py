"""What tracking costs: a value on the thread that trains, a whole training, a million values, the start, a dead server.

python benchmarks/tracking.py               # all of it
python benchmarks/tracking.py --only calls  # one part
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
from _measure import arguments_parser, differences, header, interleaved, ratios, spread_text, table

from gymtrain import Callback, Trainer
from gymtrain_trackers import Metric, Recorder, Run, load

BOTH = [{"type": "mlflow"}, {"type": "tensorboard"}]
_PAUSE = 0.01
PARTS = ("calls", "training", "million", "start", "outage")


# A value, on the thread that logs.


def calls(options: argparse.Namespace) -> None:
    """One value a call, or a block of them as `Trainer` logs them, while the threads of the trackers are at work."""
    count = 2000 if options.quick else 20_000
    rows = []
    with tempfile.TemporaryDirectory() as root:
        contenders: dict[str, Callable[[], tuple[float, float]]] = {
            "gymtrain_trackers, both, one by one": lambda: _recorded(root, count, 1),
            "gymtrain_trackers, both, blocks of 100": lambda: _recorded(root, count, 100),
            "TensorBoard, SummaryWriter.add_scalar": lambda: _summary_writer(root, count),
            "MLflow, MlflowClient.log_metric": lambda: _mlflow(root, count // 200, synchronous=True),
            "MLflow, log_metric(synchronous=False)": lambda: _mlflow(root, count // 200, synchronous=False),
        }
        measured = {name: [each() for _ in range(options.rounds)] for name, each in contenders.items()}
    for name, figures in measured.items():
        wall, cpu = ([each[index] for each in figures] for index in (0, 1))
        rows.append([name, f"{median(wall):.1f}", f"{min(wall):.1f} to {max(wall):.1f}", f"{median(cpu):.1f}"])
    print(table(["one value", "µs on the calling thread", "range", "CPU µs of it"], rows), end="\n\n")


@contextmanager
def _timed(spent: list[float]) -> Iterator[None]:
    began, cpu = time.perf_counter(), time.thread_time()
    yield
    spent[0] += time.perf_counter() - began
    spent[1] += time.thread_time() - cpu


def _per_value(count: int, log: Callable[[int], None], block: int = 1) -> tuple[float, float]:
    spent = [0.0, 0.0]
    for step in range(0, count, block):
        with _timed(spent):
            log(step)
    return spent[0] / count * 1e6, spent[1] / count * 1e6


def _recorded(root: str, count: int, block: int) -> tuple[float, float]:
    with Recorder([load(each["type"]) for each in BOTH], Run.new(root, "calls", "run")) as recorder:
        recorder.wait_started()

        def log(step: int) -> None:
            now = time.time()
            recorder.log_metric_points([Metric("loss", 0.5, step + each, now) for each in range(block)])

        return _per_value(count, log, block)


def _summary_writer(root: str, count: int) -> tuple[float, float]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(f"{root}/summary") as writer:
        return _per_value(count, lambda step: writer.add_scalar("loss", 0.5, step))


def _mlflow(root: str, count: int, *, synchronous: bool) -> tuple[float, float]:
    from mlflow import MlflowClient

    uri = f"sqlite:///{root}/plain.db"
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("plain")
    number = experiment.experiment_id if experiment else client.create_experiment("plain", f"file://{root}/plain")
    run = client.create_run(number).info.run_id
    waiting: list[Any] = []
    figures = _per_value(
        count, lambda step: waiting.append(client.log_metric(run, "loss", 0.5, step=step, synchronous=synchronous))
    )
    for each in waiting:
        if each is not None:
            each.wait()
    return figures


# A whole training.


def training(options: argparse.Namespace) -> None:
    """A small training that logs the loss of every step to both, against the same without."""
    from train import synthetic

    X, y = synthetic(3000 if options.quick else 30080)
    epochs = 2 if options.quick else 5
    steps = epochs * -(-len(X) // 128)
    others: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as root:

        def train(name: str, trackers: list[dict[str, Any]], every: int) -> float:
            threads = _OtherThreads()
            result = _trainer(X, y, root, trackers, every, epochs).train([threads])
            others[name] = threads.seconds
            seconds: float = result["elapsed"]["fit_model"]
            return seconds

        kinds = {
            "nothing logged": ([], 0),
            "nothing logged, again": ([], 0),
            "the journal alone, every step": ([], 1),
            "both trackers, every step": (BOTH, 1),
            "both trackers, every 50th step": (BOTH, 50),
        }
        contenders = {name: lambda name=name, kind=kind: train(name, *kind) for name, kind in kinds.items()}
        seconds = interleaved(contenders, options.rounds)
    own = seconds["nothing logged"]
    rows = [
        [name, *spread_text(ratios(spent, own)), f"{median(spent):.2f}", f"{others[name]:.2f}"]
        for name, spent in seconds.items()
    ]
    columns = [f"{steps} steps of 784-256-256-10", "time / nothing logged", "range", "s", "CPU s of other threads"]
    print(table(columns, rows), end="\n\n")


def _trainer(X: Any, y: Any, root: str, trackers: list[dict[str, Any]], every: int, epochs: int) -> Any:
    return Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X, "y": y, "task": "multiclass"},
            "samples": {"train": 1.0},
            "preprocessors": [],
        },
        model={
            "model": {"type": "mlp", "hidden": [256, 256]},
            "training": {"epochs": epochs, "batch_size": 128, "device": "cpu"},
        },
        tracking={"root": root, "trackers": trackers, "log_every_n_steps": every},
    )


class _OtherThreads(Callback):
    """Measures the CPU time of all threads but that which trains, while the model is fitted."""

    seconds = 0.0

    def on_fit_model_begin(self, state: Any) -> None:
        self.seconds = time.thread_time() - time.process_time()

    def on_fit_model_end(self, state: Any) -> None:
        self.seconds += time.process_time() - time.thread_time()


class _Steps(Callback):
    """Waits a little at each step, and notes when it is over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, state: Any) -> None:
        time.sleep(_PAUSE)
        self.times.append(time.perf_counter())


# A million values.


def million(options: argparse.Namespace) -> None:
    """Logged as fast as they come, then delivered."""
    count = 20_000 if options.quick else 1_000_000
    rows = []
    for names in (["jsonl"], ["tensorboard"], ["mlflow"]):
        command = [sys.executable, __file__, "--million", json.dumps([count, names])]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            [f"{count} values, {names[0]}", *(f"{answer[key]:.1f}" for key in ("log", "deliver", "peak", "journal"))]
        )
    print(table(["values", "s to log", "s until delivered", "memory MB more", "journal MB"], rows), end="\n\n")


def _million(count: int, names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        recorder = Recorder([load(name) for name in names], Run.new(root, "million", "run"), close_timeout=600)
        with recorder:
            recorder.wait_started()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.perf_counter()
            for start in range(0, count, 1000):
                now = time.time()
                recorder.log_metric_points([Metric("loss", 0.5, start + step, now) for step in range(1000)])
            logged = time.perf_counter() - began
        delivered = time.perf_counter() - began
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = (recorder.run.directory / "journal.jsonl").stat().st_size / 1e6
    print(json.dumps({"log": logged, "deliver": delivered, "peak": peak, "journal": size}))


# The start.

_START = """
import sys, tempfile, time
began = time.perf_counter()
import numpy as np
from gymtrain import Callback, Trainer, register
@register("dataset", "slow")
class Slow:
    def __init__(self, seconds: float): self.seconds = seconds
    def load(self):
        time.sleep(self.seconds)
        return np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32), np.arange(1000) % 2
class First(Callback):
    def on_step_end(self, state):
        if state.step == 1:
            print(time.perf_counter() - began)
with tempfile.TemporaryDirectory() as root:
    Trainer(
        dataset={
            "dataset": {"type": "slow", "seconds": float(sys.argv[2])},
            "preprocessors": [{"type": "standard_scaler"}],
        },
        model={"model": {"type": "mlp"}, "training": {"max_steps": 3}},
        tracking={"root": root, "trackers": eval(sys.argv[1])},
    ).train([First()])
"""


def start(options: argparse.Namespace) -> None:
    """From the start of Python to the end of the first step, with a store that is made for it."""

    def first_step(trackers: list[dict[str, Any]], loading: float) -> float:
        command = [sys.executable, "-c", _START, repr(trackers), str(loading)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    rows = []
    for loading in (0.0, 4.0):
        kinds = {"no tracker": [], "TensorBoard": BOTH[1:], "MLflow and TensorBoard": BOTH}
        contenders = {
            name: lambda kind=kind, loading=loading: first_step(kind, loading) for name, kind in kinds.items()
        }
        seconds = interleaved(contenders, options.rounds)
        for name, spent in seconds.items():
            more = differences(spent, seconds["no tracker"])
            rows.append([f"{name}, {loading:.0f} s of loading", f"{median(spent):.2f}", *spread_text(more, 2)])
    print(table(["until the first step is over", "s", "s more than without", "range"], rows), end="\n\n")


# A server that is not there, or never answers.


def outage(options: argparse.Namespace) -> None:
    """The longest step of a training of 300 steps of 10 ms, whatever the server does."""
    X, y = np.zeros((300, 4), np.float32), np.arange(300) % 2
    rows = []
    with _silent_server() as silent:
        servers = {
            "no tracker": None,
            "SQLite": "",
            "refuses connections": f"http://127.0.0.1:{_free_port()}",
            "accepts and never answers": f"http://127.0.0.1:{silent}",
        }
        for name, uri in servers.items():
            stalls, ends = [], []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    trackers = [] if uri is None else [{"type": "mlflow", **({"tracking_uri": uri} if uri else {})}]
                    steps = _Steps()
                    Trainer(
                        dataset={"dataset": {"type": "arrays", "X": X, "y": y}, "samples": {"train": 1.0}},
                        model={"model": {"type": "linear"}, "training": {"epochs": 1, "batch_size": 1}},
                        tracking={"root": root, "trackers": trackers, "log_every_n_steps": 1},
                    ).train([steps])
                    ends.append(time.perf_counter() - steps.times[-1])
                    stalls.append(1e3 * (max(np.diff(steps.times)) - _PAUSE))
            rows.append([name, f"{median(stalls):.1f}", f"{max(stalls):.1f}", f"{median(ends):.1f}"])
    print(table(["MLflow", "longest stall of a step, ms", "at most", "s from the last step to the end"], rows))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _silent_server() -> Iterator[int]:
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def main() -> None:
    parser = arguments_parser("What tracking costs.", rounds=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the parts")
    parser.add_argument("--million", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if options.million is not None:
        _million(*options.million)
        return
    import torch

    torch.set_num_threads(options.threads)
    packages = ("gymtrain", "torch", "mlflow", "tensorboard")
    print(header(*packages, rounds=options.rounds, threads=options.threads), end="\n\n")
    for part in options.only:
        gc.collect()
        {"calls": calls, "training": training, "million": million, "start": start, "outage": outage}[part](options)


if __name__ == "__main__":
    main()
