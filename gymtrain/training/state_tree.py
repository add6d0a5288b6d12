"""State of any shape, as JSON and tensors: what a checkpoint can hold without pickle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

# Marks in the JSON what JSON has no word for.
TENSOR, ARRAY, TUPLE, ITEMS, FLOAT = "$tensor", "$array", "$tuple", "$items", "$float"


def flatten(tree: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Take the tensors out of nested dicts, lists and tuples.

    Args:
        tree: Numbers, text, booleans, None, tensors and numpy arrays, in dicts (with keys of text or whole numbers),
            lists and tuples.

    Returns:
        The tree as JSON can hold it, and the tensors by their path.

    Raises:
        TypeError: There is something else in it; the message has its path.

    Example:
        >>> tree, tensors = flatten({"step": 3, "momentum": {0: torch.ones(2)}})
        >>> tree
        {'step': 3, 'momentum': {'$items': [[0, {'$tensor': 'momentum/0'}]]}}
        >>> unflatten(tree, tensors)
        {'step': 3, 'momentum': {0: tensor([1., 1.])}}
    """
    tensors: dict[str, torch.Tensor] = {}

    def visit(node: Any, path: str) -> Any:
        while path in tensors:  # a key may hold a slash
            path += "'"
        if isinstance(node, torch.Tensor):
            tensors[path] = node.detach().cpu()
            return {TENSOR: path}
        if isinstance(node, np.ndarray):
            tensors[path] = torch.from_numpy(np.ascontiguousarray(node).view(np.uint8))
            return {ARRAY: path, "dtype": str(node.dtype), "shape": list(node.shape)}
        if isinstance(node, dict):
            below = {key: visit(value, f"{path}/{key}" if path else str(key)) for key, value in node.items()}
            plain = all(isinstance(key, str) and not key.startswith("$") for key in below)
            return below if plain else {ITEMS: [[key, value] for key, value in below.items()]}
        if isinstance(node, list | tuple):
            listed = [visit(value, f"{path}/{position}") for position, value in enumerate(node)]
            return listed if isinstance(node, list) else {TUPLE: listed}
        if isinstance(node, np.generic):
            return node.item()
        if isinstance(node, float) and not math.isfinite(node):
            return {FLOAT: repr(node)}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(
            f"{path or 'the state'} is a {type(node).__name__}; a checkpoint holds numbers, text and tensors"
        )

    return visit(tree, ""), tensors


def unflatten(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Put the tensors back where `flatten` took them from."""
    if isinstance(tree, list):
        return [unflatten(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if TENSOR in tree:
        return tensors[tree[TENSOR]]
    if ARRAY in tree:
        return tensors[tree[ARRAY]].numpy().view(tree["dtype"]).reshape(tree["shape"])
    if TUPLE in tree:
        return tuple(unflatten(item, tensors) for item in tree[TUPLE])
    if FLOAT in tree:
        return float(tree[FLOAT])
    if ITEMS in tree:
        return {key: unflatten(value, tensors) for key, value in tree[ITEMS]}
    return {key: unflatten(value, tensors) for key, value in tree.items()}
