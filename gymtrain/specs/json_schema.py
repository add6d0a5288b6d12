"""The spec as a JSON Schema, for editors."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from gymtrain.registry import UnknownTypeError, arguments_model, find, find_foreign, foreign_names, known_names
from gymtrain.specs.components import INJECTED, with_unit
from gymtrain.specs.dataset import Dataset, Samples
from gymtrain.specs.model import Checkpoint, EarlyStopping, Ema, Model, StartFrom, Training
from gymtrain.specs.section import Section
from gymtrain.specs.tracking import Tracking

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_AUTO: Schema = {"const": "auto"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_SHARE: Schema = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "maximum": 1}, _NULL],
}
_WEIGHTS: Schema = {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}}
_TAGS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def json_schema() -> Schema:
    """Return a JSON Schema (draft 2020-12) of the whole spec, for editors that complete and check YAML and JSON.

    It knows what is built in, registered or installed. What passes it may still be refused: it cannot say that
    fractions sum to at most 1.

    Example:
        >>> sorted(json_schema()["properties"])
        ['dataset', 'model', 'tracking']
    """
    samples = _section(Samples, train=_SHARE, val=_SHARE, test=_SHARE)
    of_torch = foreign_names("schedule")
    schedule: Schema = {"anyOf": [*_component("schedule")["anyOf"], *map(_scheduler, of_torch), {"enum": of_torch}]}
    # Without `type`, which tells one schedule from several by name.
    by_name: Schema = {"type": "object", "properties": {"type": False}, "additionalProperties": schedule}
    training = _section(
        Training,
        optimizer=_foreign("optimizer"),
        schedule={"anyOf": [_NULL, schedule, by_name]},
        checkpoint={"anyOf": [_NULL, _section(Checkpoint)]},
        ema={"anyOf": [_NULL, _section(Ema)]},
        start_from={"anyOf": [_NULL, {"type": "string", "minLength": 1}, _section(StartFrom)]},
        lr_multipliers={"anyOf": [_NULL, _WEIGHTS]},
        early_stopping={"anyOf": [_NULL, _section(EarlyStopping)]},
        loss=_foreign("loss"),
        metrics={"anyOf": [_AUTO, {"type": "array", "items": _foreign("metric")}]},
        class_weight={"anyOf": [_NULL, {"const": "balanced"}, _WEIGHTS]},
    )
    dataset = _section(
        Dataset,
        dataset=_component("dataset"),
        samples=samples,
        preprocessors={"anyOf": [_AUTO, _components("preprocessor")]},
        data_augmentors=_components("augmentor"),
    )
    model = _section(Model, model=_component("model"), training=training)
    tracking = _section(
        Tracking, experiment=_TEXT_OR_NULL, run_name=_TEXT_OR_NULL, tags=_TAGS, trackers=_components("tracker")
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gymtrain experiment",
        "type": "object",
        "properties": {"dataset": dataset, "model": model, "tracking": tracking},
        "required": ["dataset", "model"],
        "additionalProperties": False,
    }


def _section(section: type[Section], **checked_by_us: Schema) -> Schema:
    """Describe a section.

    Args:
        section: The section.
        checked_by_us: The schemas of the fields of which pydantic knows only that anything goes.
    """
    properties: dict[str, Schema] = {}
    for name, field in section.model_fields.items():
        schema = checked_by_us.get(name)
        if schema is None:
            annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            schema = pydantic.TypeAdapter(annotation).json_schema()
        properties[name] = {"description": " ".join((field.description or "").split()), **schema}
        if isinstance(field.default, str | int | float | bool):
            properties[name]["default"] = field.default
    required = [name for name, field in section.model_fields.items() if field.is_required()]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _components(kind: str) -> Schema:
    return {"type": "array", "items": _component(kind)}


def _component(kind: str) -> Schema:
    names = known_names(kind)
    located: Schema = {"type": "string", "pattern": ":", "description": "'package.module:Class'"}
    own: Schema = {"type": "object", "properties": {"type": located}, "required": ["type"]}
    return {"anyOf": [*(_registered(kind, name) for name in names), own, {"enum": names}, located]}


def _registered(kind: str, name: str) -> Schema:
    try:
        target = find(kind, name)
        arguments = arguments_model(target, INJECTED.get(kind, frozenset())).model_json_schema()
    except (UnknownTypeError, TypeError, ValueError, pydantic.errors.PydanticUserError):
        # A plug-in that cannot be imported, or arguments of types that JSON knows nothing of.
        arguments = {}
    if "additionalProperties" not in arguments or "$defs" in arguments:
        return {"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]}
    return {
        "type": "object",
        "description": (target.__doc__ or "").strip().split("\n")[0],
        "properties": {"type": {"const": name}, **arguments.get("properties", {})},
        "required": ["type", *arguments.get("required", [])],
        "additionalProperties": arguments["additionalProperties"],
    }


def _scheduler(name: str) -> Schema:
    """Describe a scheduler of torch, whose name may be written in other ways too."""
    target = find_foreign("schedule", name)
    assert target is not None
    arguments = with_unit(target).arguments
    return {
        "type": "object",
        "description": f"{name} of torch",
        "properties": {"type": {"const": name}, **dict.fromkeys(arguments, True), "by": {"enum": ["epoch", "step"]}},
        "required": ["type", *(key for key, default in arguments.items() if not default)],
        "additionalProperties": False,
    }


def _foreign(kind: str) -> Schema:
    name: Schema = {"type": "string", "examples": foreign_names(kind)}
    return {"anyOf": [name, {"type": "object", "properties": {"type": name}, "required": ["type"]}]}
