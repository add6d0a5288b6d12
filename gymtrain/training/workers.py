"""Processes that make batches beside the training, so that slow augmentors do not hold it up."""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from gymtrain.data.batch import Batch
from gymtrain.errors import TrainingError

Key = tuple[int, npt.NDArray[np.int64]]
"""The number of a pass, from 1, and the positions of the rows of one of its batches."""

# What a hanging worker is asked to write its stack on; not there on Windows.
_SAY_WHERE = getattr(signal, "SIGUSR1", None)
_SECONDS_TO_SAY = 1.0
# How often it is looked whether the workers are alive, while a batch does not come.
_LOOK_SECONDS = 1.0
# How long a process that was killed may take to be gone: the system takes its memory back first.
_DYING_SECONDS = 4.0


class Workers:
    """Processes that make batches ahead, and hand them over in shared memory.

    They ignore Ctrl-C, which is for the training to act on, and end with it, also when it is killed.

    Args:
        make: Makes the batch of a key; a function of it and of nothing else, so that it does not matter who makes it.
        count: How many processes, at least 1.
        timeout: Seconds after which a batch that does not come is an error, above 0.
        pin: Whether a batch comes in page-locked memory, from which a GPU copies faster.

    Example:
        >>> def make(number, rows):
        ...     return Batch(torch.from_numpy(rows) * number, torch.zeros(len(rows)))
        >>> workers = Workers(make, count=1)
        >>> [batch.inputs.tolist() for batch in workers.stream([(1, np.array([2, 3])), (10, np.array([4]))])]
        [[2, 3], [40]]
        >>> workers.close()
    """

    def __init__(
        self, make: Callable[[int, npt.NDArray[np.int64]], Batch], count: int, timeout: float = 300.0, pin: bool = False
    ) -> None:
        self._timeout = timeout
        self._stacks = tempfile.TemporaryDirectory(prefix="gymtrain-workers-")
        self._keys = _Keys()
        with _more_than_cores():
            self._loader: DataLoader[Batch] = DataLoader(
                _Making(make),  # type: ignore[arg-type]  # a dataset is what has __getitem__
                batch_size=None,
                sampler=self._keys,
                num_workers=count,
                timeout=min(timeout, _LOOK_SECONDS),
                pin_memory=pin,
                persistent_workers=True,
                collate_fn=_as_it_is,
                worker_init_fn=partial(_begin, self._stacks.name),
                # Of its own, because an iterator draws a seed, and the global one belongs to the dropout.
                generator=torch.Generator(),
            )

    def stream(self, keys: Iterable[Key]) -> Iterator[Batch]:
        """Yield the batches of the keys, in their order; what was made for an earlier call is thrown away.

        Raises:
            TrainingError: A batch did not come within the timeout, with where the workers stand; or a worker died, with
                its process id and of what.
            Exception: What `make` raised, with the traceback of the worker in its message.
        """
        self._keys.given = keys
        with _more_than_cores():
            batches: Any = iter(self._loader)
        _leave_deaths_to_us(batches)
        while True:
            try:
                batch = self._next(batches)
            except StopIteration:
                return
            yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch:
        began = time.monotonic()
        while True:
            try:
                return next(batches)
            except (RuntimeError, OSError, EOFError) as error:  # the last two where a worker dies while it hands over
                is_late = "timed out" in str(error)
                died = self._died(patience=0.0 if is_late else _DYING_SECONDS)
                if died:
                    raise TrainingError(f"a worker died: {died}; is there enough memory?") from error
                if not is_late:
                    raise
                if time.monotonic() - began >= self._timeout:
                    raise TrainingError(
                        f"a batch did not come within {self._timeout:g} s (model.training.worker_timeout); the workers "
                        f"stand here:\n{self._where()}"
                    ) from error

    def close(self) -> None:
        """End the processes; one that hangs is ended after 5 s."""
        # There is no public way: without it they would live as long as whoever keeps the traceback of an error.
        iterator: Any = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None
        self._stacks.cleanup()

    @property
    def _processes(self) -> list[Any]:
        return list(getattr(self._loader._iterator, "_workers", ()))

    def _died(self, patience: float) -> str:
        """Return which workers are no more, and of what; one may be noticed before it is quite dead."""
        gone = wait([worker.sentinel for worker in self._processes], timeout=patience)
        for worker in self._processes:
            if worker.sentinel in gone:
                worker.join(_DYING_SECONDS)  # a process lets go of its sentinel a moment before it has an exit code
        codes = {worker.pid: worker.exitcode for worker in self._processes if worker.exitcode}
        return ", ".join(
            f"process {process} of {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
            for process, code in codes.items()
        )

    def _where(self) -> str:
        """Return the stack of each worker, from the innermost call on."""
        files = [Path(self._stacks.name) / str(worker.pid) for worker in self._processes if worker.is_alive()]
        files = [file for file in files if file.exists()]
        for file in files:
            _ask(int(file.name))
        time.sleep(_SECONDS_TO_SAY)
        return "\n".join(f"process {file.name}:\n{_own_part(file.read_text())}" for file in files)


def _leave_deaths_to_us(batches: Any) -> None:
    """Keep torch from raising, out of a signal handler and thus anywhere in the training, that a worker died."""
    if batches._worker_pids_set:
        signal_handling._remove_worker_pids(id(batches))  # type: ignore[attr-defined]
        batches._worker_pids_set = False


@contextmanager
def _more_than_cores() -> Iterator[None]:
    """Let there be more workers than cores: those that wait for a disk or a network may well be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


class _Keys:
    """What DataLoader takes for a sampler: the keys of the call of `stream` that is running."""

    given: Iterable[Key] = ()

    def __iter__(self) -> Iterator[Key]:
        return iter(self.given)


class _Making:
    """What DataLoader takes for a dataset."""

    def __init__(self, make: Callable[[int, npt.NDArray[np.int64]], Batch]) -> None:
        self._make = make

    def __getitem__(self, key: Key) -> Batch:
        return self._make(*key)


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin(stacks: str, worker: int) -> None:
    """Be a worker: leave Ctrl-C to the training, obey SIGTERM, and be ready to say where it hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _SAY_WHERE is not None:
        # Kept open as long as the process lives.
        file = open(Path(stacks) / str(os.getpid()), "w")  # noqa: SIM115
        faulthandler.register(_SAY_WHERE, file=file, all_threads=False)


def _own_part(stack: str) -> str:
    """Leave out what called the worker: the training that it was forked from."""
    calls = [line for line in stack.splitlines() if line.startswith("  File")]
    ends = [position for position, line in enumerate(calls) if "_worker_loop" in line]
    return "\n".join(calls[: ends[0]] if ends else calls) or "  (it waits, or does not answer)"


def _ask(process: int) -> None:
    if _SAY_WHERE is not None:
        try:
            os.kill(process, _SAY_WHERE)
        except ProcessLookupError:
            return
