"""The named stages of a training: timed even when they fail, and announced to the callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from gymtrain.training.callbacks import Callbacks, TrainingState


class Stages:
    """Times the stages of one training.

    Args:
        state: Its `elapsed` is filled, in seconds.
        callbacks: Told of the beginning and the end of each stage.
    """

    def __init__(self, state: TrainingState, callbacks: Callbacks) -> None:
        self._state, self._callbacks = state, callbacks

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run a stage: `with stages("load_data"): …`."""
        began = perf_counter()
        try:
            self._callbacks.call(f"on_{name}_begin")
            yield
        except BaseException as error:
            self._state.elapsed[name] = perf_counter() - began
            self._callbacks.call_after(error, f"on_{name}_end")
            raise
        self._state.elapsed[name] = perf_counter() - began
        self._callbacks.call(f"on_{name}_end")
