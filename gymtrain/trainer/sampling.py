"""Which rows of the train part a pass goes through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from gymtrain.data.randomness import draw, order
from gymtrain.errors import Fault, SpecError
from gymtrain.specs import Dataset, Training
from gymtrain.trainer.preparation import Array, Prepared


def order_of(data: Prepared, spec: Dataset, training: Training) -> Callable[[int], torch.Tensor]:
    """Return what says which rows a pass goes through.

    Args:
        data: The rows.
        spec: Has the seed, and says whether the order changes from pass to pass.
        training: Says how the rows are chosen.

    Returns:
        A function of the number of a pass, from 1, whose values are positions in the train part, int64 of shape (rows,)
        on the CPU: each of them once, or drawn with replacement.

    Raises:
        SpecError: Rows are to be drawn by classes or by weights, and there are none.
    """
    if data.in_order or training.sampling == "shuffle":
        shuffle = spec.shuffle and not data.in_order
        return partial(order, spec.seed, size=len(data.rows["train"]), shuffle=shuffle)
    weights = _balancing(data) if training.sampling == "balanced" else _given(data)
    return partial(draw, spec.seed, weights=torch.from_numpy(weights))


def _balancing(data: Prepared) -> Array:
    """Return a weight for each row that makes all classes equally frequent."""
    if data.task.name not in {"binary", "multiclass"}:
        raise _misfit(f"'balanced' draws each class equally often, and a {data.task.name} task has no classes")
    codes = data.codes("train")
    weights: Array = 1.0 / np.bincount(codes)[codes]
    return weights


def _given(data: Prepared) -> Array:
    if "train" not in data.weights:
        raise _misfit("'weighted' draws rows by their weights, and there are none; give dataset.dataset.sample_weight")
    return data.weights["train"]


def _misfit(message: str) -> SpecError:
    return SpecError([Fault("model.training.sampling", f"{message}; else use 'shuffle'")])
