"""A resolved spec as flat params, so that runs line up in a table and differ where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gymtrain_trackers.addresses import without_password

JSON = Any


def written(spec: JSON) -> JSON:
    """Return a spec as it may be written to disk: without the passwords of servers.

    Example:
        >>> written({"tracking": {"trackers": [{"type": "mlflow", "tracking_uri": "https://me:secret@host"}]}})
        {'tracking': {'trackers': [{'type': 'mlflow', 'tracking_uri': 'https://me:***@host'}]}}
    """
    if isinstance(spec, dict):
        return {key: written(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [written(value) for value in spec]
    return without_password(spec) if isinstance(spec, str) else spec


def model_params(spec: dict[str, JSON]) -> dict[str, JSON]:
    """Return what the data and the model are, flat.

    Example:
        >>> model_params({"dataset": {"dataset": {"type": "iris"}, "seed": 0}, "model": {"model": {"type": "mlp"}}})
        {'dataset/type': 'iris', 'dataset/seed': 0, 'model/type': 'mlp'}
    """
    dataset = {key: value for key, value in spec["dataset"].items() if key != "dataset"}
    return dict(
        [
            *flat("dataset", spec["dataset"]["dataset"]),
            *flat("dataset", dataset),
            *flat("model", spec["model"]["model"]),
        ]
    )


def training_params(spec: dict[str, JSON]) -> dict[str, JSON]:
    """Return how the model is fitted, flat: `training/epochs`, `training/optimizer/lr` and so on."""
    return dict(flat("training", spec["model"]["training"]))


def flat(path: str, value: JSON) -> Iterator[tuple[str, JSON]]:
    """Yield what a nested value holds, with the path to each; a list of plain values is one of them.

    Example:
        >>> dict(flat("features", {"shape": [4], "columns": [{"name": "a"}]}))
        {'features/shape': [4], 'features/columns/0/name': 'a'}
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(f"{path}/{key}", item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from flat(f"{path}/{position}", item)
    else:
        yield path, value
