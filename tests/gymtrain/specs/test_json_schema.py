from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gymtrain import register
from gymtrain.registry import BUILTIN, names
from gymtrain.specs import Experiment, json_schema

ROOT = Path(__file__).parents[3]
TYPES: dict[str, Any] = {
    "array": list,
    "boolean": bool,
    "null": type(None),
    "number": int | float,
    "object": dict,
    "string": str,
}
KNOWN = {
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maximum",
    "maxItems",
    "maxLength",
    "minimum",
    "minItems",
    "minLength",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
}


def valid(value: Any, schema: Mapping[str, Any] | bool) -> bool:
    """Check a value against the part of JSON Schema that ours uses."""
    if isinstance(schema, bool):
        return schema
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    checks = [
        "type" not in schema or any(_is(value, each) for each in _listed(schema["type"])),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(valid(value, each) for each in schema["anyOf"]),
        not isinstance(value, str) or _text_fits(value, schema),
        not _is(value, "number") or _number_fits(value, schema),
        not isinstance(value, list) or _list_fits(value, schema),
        not isinstance(value, dict) or _dict_fits(value, schema),
    ]
    return all(checks)


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return isinstance(value, TYPES[kind]) and not (kind == "number" and isinstance(value, bool))


def _text_fits(value: str, schema: Mapping[str, Any]) -> bool:
    return len(value) >= schema.get("minLength", 0) and re.search(schema.get("pattern", ""), value) is not None


def _number_fits(value: float, schema: Mapping[str, Any]) -> bool:
    return (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and value > schema.get("exclusiveMinimum", value - 1)
        and value < schema.get("exclusiveMaximum", value + 1)
    )


def _list_fits(value: list[Any], schema: Mapping[str, Any]) -> bool:
    fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
    return fits and all(valid(item, schema.get("items", True)) for item in value)


def _dict_fits(value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return set(schema.get("required", [])) <= set(value) and all(
        valid(item, properties.get(key, others)) for key, item in value.items()
    )


@pytest.fixture
def schema() -> dict[str, Any]:
    return json_schema()


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(names._registered)
    yield
    names._registered.clear()
    names._registered.update(before)


GOOD = [
    {"dataset": {"dataset": {"type": "iris"}}, "model": {"model": {"type": "mlp"}}},
    {"dataset": {"dataset": "iris", "preprocessors": ["divide"]}, "model": {"model": "package.module:Net"}},
    {
        "dataset": {
            "dataset": {"type": "csv", "path": "rows.csv", "target": ["a", "b"]},
            "samples": {"train": 0.7, "val": 100, "test": None, "group_by": "patient"},
            "preprocessors": [{"type": "tabular", "scale": None}, {"type": "package.module:Own", "anything": 1}],
            "data_augmentors": [{"type": "flip", "probability": 0.5}],
            "chunk_size": 1000,
        },
        "model": {
            "model": {"type": "sklearn", "estimator": "SVC", "C": 2.0},
            "training": {
                "max_steps": 5,
                "optimizer": {"type": "SGD", "lr": 0.1},
                "loss": "mse",
                "metrics": ["accuracy", {"type": "f1_score", "name": "f1"}],
                "class_weight": {"0": 1.0, "1": 2},
                "monitor": None,
                "schedule": {
                    "type": "chain",
                    "schedules": [{"type": "linear_warmup", "length": 5}, "cosine"],
                    "milestones": [5],
                },
            },
        },
        "tracking": {"trackers": [{"type": "mlflow", "tracking_uri": None}], "tags": {"a": 1}, "on_error": "raise"},
    },
]


@pytest.mark.parametrize(
    "schedule",
    ["cosine", "LinearLR", "math:exp", {"lr": {"type": "StepLR", "step_size": 3}, "weight_decay": "math:exp"}],
)
def test_every_way_to_write_a_schedule_passes(schema: dict[str, Any], schedule: Any) -> None:
    spec = {**GOOD[0], "model": {"model": "mlp", "training": {"schedule": schedule}}}

    assert valid(spec, schema)
    assert valid(Experiment(**spec).to_dict(), schema)


@pytest.mark.parametrize("spec", GOOD)
def test_a_right_spec_passes_as_written_and_as_resolved(schema: dict[str, Any], spec: dict[str, Any]) -> None:
    assert valid(spec, schema)
    if "package.module" not in str(spec):
        assert valid(Experiment(**spec).to_dict(), schema)


def test_the_examples_pass(schema: dict[str, Any]) -> None:
    paths = sorted((ROOT / "examples").glob("*.yaml"))

    assert paths
    assert all(valid(yaml.safe_load(path.read_text(encoding="utf-8")), schema) for path in paths)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("dataset", "dataset", None),
        ("dataset", "dataset", "irsi"),
        ("dataset", "dataset", {"type": "irsi"}),
        ("dataset", "dataset", {"type": "csv", "path": "x"}),
        ("dataset", "dataset", {"type": "csv", "path": "x", "target": []}),
        ("dataset", "dataset", {"type": "digits", "images": 1}),
        ("dataset", "samples", {"train": 1.5}),
        ("dataset", "samples", {"train": "0.8"}),
        ("dataset", "samples", {"trian": 0.8}),
        ("dataset", "preprocessors", "standard_scaler"),
        ("dataset", "preprocessors", [{"type": "divide", "fctor": 1}]),
        ("dataset", "preprocessors", [{"type": "kbest", "k": 0}]),
        ("dataset", "data_augmentors", [{"type": "flip", "probability": 2}]),
        ("dataset", "seed", -1),
        ("dataset", "shuffle", 1),
        ("dataset", "chunk_size", 0),
        ("dataset", "group_by", ""),
        ("model", "model", {"type": "mlp", "hidden": ["64"]}),
        ("model", "model", {"type": "mlp", "hiden": [64]}),
        ("model", "training", {"epochs": 0}),
        ("model", "training", {"batch_sise": 1}),
        ("model", "training", {"validation_split": 1.0}),
        ("model", "training", {"metrics": "accuracy"}),
        ("model", "training", {"class_weight": {"a": 0}}),
        ("model", "training", {"optimizer": {"lr": 0.1}}),
        ("model", "training", {"schedule": {"type": "chain", "schedules": ["cosine"]}}),
        ("model", "training", {"schedule": {"type": "chain", "schedules": [3], "milestones": []}}),
        ("model", "training", {"schedule": {"type": "StepLR"}}),
        ("model", "training", {"schedule": {"type": "StepLR", "step_size": 3, "gama": 0.1}}),
        ("model", "training", {"schedule": {"type": "StepLR", "step_size": 3, "by": "hour"}}),
        ("model", "training", {"schedule": "LambdaLR"}),
        ("tracking", "on_error", "ignore"),
        ("tracking", "root", ""),
        ("tracking", "tags", {"a": None}),
        ("tracking", "trackers", [{"type": "mlflow", "tracking_url": "x"}]),
        ("tracking", "log_every_n_steps", -1),
    ],
)
def test_a_wrong_value_is_refused(schema: dict[str, Any], section: str, field: str, value: Any) -> None:
    spec = {**GOOD[0], section: {**GOOD[0].get(section, {}), field: value}}

    assert not valid(spec, schema)


@pytest.mark.parametrize("spec", [{}, {"dataset": GOOD[0]["dataset"]}, {**GOOD[0], "extra": 1}, [], None])
def test_a_spec_with_a_part_missing_or_too_many_is_refused(schema: dict[str, Any], spec: Any) -> None:
    assert not valid(spec, schema)


def test_the_schema_is_json_and_describes_every_field(schema: dict[str, Any]) -> None:
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    for section in ("dataset", "model", "tracking"):
        for name, field in schema["properties"][section]["properties"].items():
            assert field.get("description") or field.get("properties"), name


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_every_built_in_type_is_offered(schema: dict[str, Any], kind: str) -> None:
    offered = schema["properties"][kind]["properties"][kind]["anyOf"]
    constants = {each["properties"]["type"].get("const") for each in offered if "properties" in each}

    assert set(BUILTIN[kind]) <= constants


def test_a_registered_type_is_offered_and_one_that_json_cannot_describe_takes_anything(registered: None) -> None:
    class Sized:
        def __init__(self, size: int = 1) -> None: ...

    class Odd:
        def __init__(
            self, matrix: np.ndarray[Any, Any] | None = None, unset: Any = object(), size: int = 1
        ) -> None: ...

    register("model", "sized")(Sized)
    register("model", "odd")(Odd)
    schema = json_schema()

    assert valid({**GOOD[0], "model": {"model": {"type": "sized", "size": 2}}}, schema)
    assert not valid({**GOOD[0], "model": {"model": {"type": "sized", "size": "2"}}}, schema)
    assert valid({**GOOD[0], "model": {"model": {"type": "odd", "size": 2}}}, schema)
