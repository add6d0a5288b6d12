"""What a bundle holds, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymtrain.bundle.tensors import Tensor


@dataclass(frozen=True)
class State:
    """What one preprocessor has learned, or where a training stands.

    Args:
        values: What JSON can hold.
        tensors: Its arrays by name; may be empty.
        skops: What skops made of a fitted scikit-learn object.

    Example:
        >>> State({"type": "standard_scaler"}).tensors
        {}
    """

    values: dict[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    skops: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that goes into a bundle; at least one of `weights`, `model_skops` and `model_state` is not None.

    Args:
        spec: The resolved spec.
        schema: Features and labels.
        results: What `train()` returned.
        selfcheck: A few raw rows and the outputs that they gave.
        readme: The model card, in Markdown.
        which_weights: Which weights these are: "best" or "last".
        versions: The versions of the libraries that made it, by name.
        created: When it was made, as an ISO 8601 time.
        weights: The tensors of the model, by name.
        storage: How the tensors of the model are made of these, where that is not one by one.
        onnx: The model as a file in ONNX, beside its weights.
        model_skops: What skops made of a fitted scikit-learn model.
        model_state: What a model keeps as JSON.
        preprocessors: In the order in which they are applied.
        training: What it takes to train on; only in a checkpoint.
        sources: The source of modules by their names, for people to read.

    Example:
        >>> contents = Contents(
        ...     spec={}, schema={}, results={}, selfcheck={}, readme="# digits", which_weights="best",
        ...     versions={"gymtrain": "0.1.0"}, created="2027-01-01T00:00:00+00:00", weights={},
        ... )
        >>> contents.preprocessors
        ()
    """

    spec: dict[str, Any]
    schema: dict[str, Any]
    results: dict[str, Any]
    selfcheck: Mapping[str, Tensor]
    readme: str
    which_weights: str
    versions: Mapping[str, str]
    created: str
    weights: Mapping[str, Tensor] | None = None
    storage: dict[str, Any] | None = None
    onnx: bytes | None = None
    model_skops: bytes | None = None
    model_state: dict[str, Any] | None = None
    preprocessors: Sequence[State] = ()
    training: State | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
