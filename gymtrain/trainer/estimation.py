"""What a trained model costs: parameters, memory, time of a prediction."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from gymtrain.data.frames import Frame
from gymtrain.data.images import Images
from gymtrain.data.rows import taken
from gymtrain.errors import InputError
from gymtrain.models.torch_learner import TorchLearner, as_input
from gymtrain.trainer.predictor import Array, Predictor

WARM_UP = 10
BATCH_SIZES = (1, 8, 64, 512)


def estimate(predictor: Predictor, repetitions: int) -> dict[str, Any]:
    """Measure a predictor on its examples, raw rows that it was trained on.

    Args:
        predictor: What was learned.
        repetitions: How often one prediction is timed, after a warm-up.

    Raises:
        InputError: The predictor has no example rows, or `repetitions` is not a whole number of at least 1.
    """
    if isinstance(repetitions, bool) or not isinstance(repetitions, int) or repetitions < 1:
        raise InputError(f"estimate: got repetitions={repetitions!r}; expected a whole number of at least 1")
    if predictor.examples is None or len(predictor.examples) == 0:
        raise InputError("estimate: the bundle holds no rows to predict; save it again from a trainer that was trained")
    one = _rows(predictor, 1)
    milliseconds = [1e3 * seconds for seconds in _times(lambda: predictor.scores(one), repetitions)]
    found: dict[str, Any] = {
        "parameters": None,
        "bytes": None,
        "activation_bytes": None,
        "latency_ms": {
            "mean": float(np.mean(milliseconds)),
            "std": float(np.std(milliseconds)),
            **{f"p{percent}": float(np.percentile(milliseconds, percent)) for percent in (50, 95, 99)},
        },
        "rows_per_second": {str(size): _throughput(predictor, size, repetitions) for size in BATCH_SIZES},
        "repetitions": repetitions,
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }
    if isinstance(predictor.learner, TorchLearner):
        found |= _of_module(predictor, predictor.learner)
    return found


def latency_ms(predictor: Predictor, repetitions: int = 50, seconds: float = 0.2) -> tuple[float, float]:
    """Return mean and standard deviation of the time that the prediction of one raw row takes, in milliseconds.

    Args:
        predictor: What was learned, with examples.
        repetitions: How often it is timed, at the most.
        seconds: When to be content with fewer, but for three.
    """
    one = _rows(predictor, 1)
    predictor.scores(one)  # the first one makes what the others use again
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < repetitions and sum(spent) < seconds):
        began = perf_counter()
        predictor.scores(one)
        spent.append(perf_counter() - began)
    return 1e3 * float(np.mean(spent)), 1e3 * float(np.std(spent))


def _of_module(predictor: Predictor, learner: TorchLearner) -> dict[str, Any]:
    parameters = list(learner.module.parameters())
    trainable = sum(each.numel() for each in parameters if each.requires_grad)
    sizes: dict[str, int] = {}
    for tensor in [*parameters, *learner.module.buffers()]:
        name = str(tensor.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + tensor.numel() * tensor.element_size()
    rows = predictor.features.check(_rows(predictor, 1), missing=True)
    return {
        "parameters": {
            "total": sum(each.numel() for each in parameters),
            "trainable": trainable,
            "frozen": sum(each.numel() for each in parameters) - trainable,
        },
        "bytes": sizes,
        "activation_bytes": _activation_bytes(learner, predictor.inputs(rows)),
        "device": str(learner.device),
    }


def _activation_bytes(learner: TorchLearner, inputs: Array) -> int:
    """Return the most bytes that go into and come out of one layer, for one row: what a prediction holds at a time."""
    most = 0

    def look(layer: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        nonlocal most
        tensors = [each for each in (*given, result) if isinstance(each, torch.Tensor)]
        most = max(most, sum(each.numel() * each.element_size() for each in tensors))

    layers = [layer for layer in learner.module.modules() if next(layer.children(), None) is None]
    handles = [layer.register_forward_hook(look) for layer in layers]
    try:
        with torch.inference_mode():
            learner.module(as_input(inputs).to(learner.device, learner.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return most


def _throughput(predictor: Predictor, size: int, repetitions: int) -> float:
    rows = _rows(predictor, size)
    # As much work as the single predictions, so that large batches do not take minutes.
    times = _times(lambda: predictor.scores(rows), max(repetitions // size, 5))
    return size / float(np.median(times))


def _times(act: Callable[[], Any], repetitions: int) -> list[float]:
    for _ in range(WARM_UP):
        act()
    seconds = []
    for _ in range(repetitions):
        began = perf_counter()
        act()
        seconds.append(perf_counter() - began)
    return seconds


def _rows(predictor: Predictor, size: int) -> Frame | Images | Array:
    examples = predictor.examples
    assert examples is not None
    chosen = np.arange(size, dtype=np.int64) % len(examples)
    return taken(examples, chosen)
