"""A small training that writes checkpoints and saves over an older model, as often as wanted, dying where it is told.

As a program (`python faulty_training.py interposed|strace DIRECTORY`) it loads torch once, and forks a process for each
place between the first checkpoint and the end at which a training can be killed; each trains in a directory of its own
below DIRECTORY.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_injection import Interposer, Operation, calls_of, dying

from gymtrain import Callback, Trainer

NO_TRACING = 77


def make_trainer(root: Path | str, *, epochs: int = 3, keep_last: int | None = 2, **training: Any) -> Trainer:
    """Return a trainer whose training has a state in every part: optimizer, schedule, best weights, stopping."""
    training = {
        "epochs": epochs,
        "optimizer": {"type": "Adam", "lr": 0.05},
        "schedule": {"lr": {"type": "plateau", "patience": 0}},
        "validation_split": 0.2,
        "early_stopping": {"patience": 9},
        "checkpoint": None if keep_last is None else {"keep_last": keep_last},
        **training,
    }
    return Trainer(
        dataset={"dataset": "iris", "preprocessors": ["standard_scaler"]},
        model={"model": {"type": "mlp", "hidden": [4], "dropout": 0.1}, "training": training},
        tracking={"root": str(root), "log_system_metrics": False},
    )


def train_two_epochs(root: Path | str, callbacks: Sequence[Callback] = (), resume: str | bool = False) -> Trainer:
    """Train with one checkpoint after each epoch, the second in place of the first, and save over `model.zip`."""
    trainer = make_trainer(root, epochs=2, keep_last=1)
    trainer.train(callbacks, resume)
    trainer.save(Path(root) / "model.zip")
    return trainer


def outcome(trainer: Trainer) -> tuple[Any, ...]:
    """Return all that has to be the same, to the last bit, after whatever happened on the way."""
    result = trainer.result
    assert result is not None
    rows = np.random.default_rng(0).normal(size=(20, 4)) * 4
    probabilities = trainer.predict_proba(rows).tobytes()
    return result["metrics"], result["best"], result["stop_reason"], probabilities


def checkpoints(root: Path) -> list[Path]:
    """Return the checkpoints of all runs below a root, the oldest first."""
    return sorted(root.glob("*/*/checkpoints/*.zip"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def wait_for_checkpoints(root: Path, count: int = 1) -> list[Path]:
    """Return the checkpoints once there are so many and none is being written: another thread may do it."""
    for _ in range(1000):
        found = checkpoints(root)
        if len(found) >= count and not list(root.rglob(".gymtrain-*")):
            return found
        time.sleep(0.01)
    raise AssertionError(f"there are {found}; expected {count}")


def epochs_of(paths: list[Path]) -> list[int]:
    """Return which epochs checkpoints are of."""
    return [int(path.name.split("-")[1]) for path in paths]


@contextlib.contextmanager
def all_warnings() -> Iterator[list[str]]:
    """Yield a list in which all that was warned of is, afterwards."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
        gc.collect()  # a file that was not closed is told of by whoever collects it
    told += [str(warning.message) for warning in caught]


def is_watched(root: Path | str) -> Callable[[str], bool]:
    """Return what tells whether a path is about what has to be whole: checkpoints, bundles and results."""

    def tell(path: str) -> bool:
        name = os.path.basename(path)
        is_of_us = name.startswith(".gymtrain-") or name.endswith((".zip", "result.json")) or os.path.isdir(path)
        return is_of_us and f"{path}/".startswith(f"{root}/")

    return tell


class AtEpoch(Callback):
    """Calls something at the end of an epoch, before its checkpoint is written."""

    def __init__(self, epoch: int, what: Callable[[], object]) -> None:
        self.epoch, self.what = epoch, what

    def on_epoch_end(self, state: Any) -> None:
        if state.epoch == self.epoch:
            self.what()


def _main(kind: str, base: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # threads do not outlive a fork
    old = make_trainer(base / "old", epochs=1, keep_last=None)
    old.train()
    old.save(base / "old" / "model.zip")
    {"interposed": _die_at_every_operation, "strace": _die_at_every_system_call}[kind](base)


def _prepared(base: Path, name: str) -> Path:
    (base / name).mkdir()
    shutil.copy(base / "old" / "model.zip", base / name)
    return base / name


def _forked(what: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        what()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at_every_operation(base: Path) -> None:
    def attempt(name: str, before: Callable[[int, Operation], int | None]) -> int:
        root = _prepared(base, name)

        def run() -> None:
            interposer = Interposer(is_watched(root), before)
            train_two_epochs(root, [AtEpoch(2, lambda: wait_for_checkpoints(root) and interposer.__enter__())])

        return _ended(_forked(run))

    reader, writer = os.pipe()
    assert attempt("whole", lambda _, operation: os.write(writer, operation.kind.encode() + b"\n") and None) == 0
    os.close(writer)
    with os.fdopen(reader) as file:
        kinds = file.read().split()
    _check_deaths([attempt(f"{count:03d} {kind}", dying(count)) for count, kind in enumerate(kinds, start=1)])


def _die_at_every_system_call(base: Path) -> None:
    # strace counts the calls of each thread: where another thread makes as many before, the process dies there.
    is_about_files = is_watched(base / "whole")
    log = base / "strace.log"
    assert _traced(base, "whole", log, ["-y", "-xx", "-s", "10000000", "-e", "trace=%file,%desc"]) == 0
    calls = [call for call in calls_of(log.read_text()) if call.changes_files and is_about_files(call.file)]
    codes = []
    for count, call in enumerate(calls, start=1):
        options = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=KILL:when={call.ordinal}"]
        codes.append(_traced(base, f"{count:03d} {call.name}", Path(os.devnull), options))
    _check_deaths(codes)


def _check_deaths(codes: list[int]) -> None:
    # A thread that was still busy with the first checkpoint may have made one call more in the run that was counted.
    assert set(codes) <= {-signal.SIGKILL, 0}, codes
    assert codes.count(-signal.SIGKILL) > 40, codes


def _traced(base: Path, name: str, log: Path, options: list[str]) -> int:
    """Run a training that is traced from the end of its second epoch on."""
    root = _prepared(base, name)
    child = _forked(lambda: train_two_epochs(root, [AtEpoch(2, lambda: _wait_to_be_traced(root))]))
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    if name == "whole":
        shutil.copytree(root, base / "before")
    tracer = subprocess.Popen(["strace", "-f", "-p", str(child), "-o", log, *options], stderr=subprocess.DEVNULL)
    while not _is_traced(child):
        if tracer.poll() is not None:
            os.kill(child, signal.SIGKILL)
            raise SystemExit(NO_TRACING)
        time.sleep(0.002)
    os.kill(child, signal.SIGCONT)
    code = _ended(child)
    tracer.wait()
    return code


def _wait_to_be_traced(root: Path) -> None:
    wait_for_checkpoints(root)
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1 % 2**64), 0, 0, 0)  # PR_SET_PTRACER: anyone may
    os.kill(os.getpid(), signal.SIGSTOP)


def _is_traced(process: int) -> bool:
    statuses = (path.read_text() for path in Path(f"/proc/{process}/task").glob("*/status"))
    return all("TracerPid:\t0\n" not in status for status in statuses)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
