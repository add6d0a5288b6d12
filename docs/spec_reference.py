"""Write the tables of docs/spec.md from the code: `python docs/spec_reference.py`. A test compares the two."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic

from gymtrain.models.networks.layer_list import LAYERS
from gymtrain.models.tasks import Binary, Multiclass, Multilabel, Regression
from gymtrain.registry import BUILTIN, find, find_foreign
from gymtrain.specs import Dataset, Model, Samples, Tracking, Training
from gymtrain.specs.components import INJECTED
from gymtrain.specs.model import LOSS_ALIASES, METRIC_ALIASES, Checkpoint, EarlyStopping, Ema, StartFrom

PAGE = Path(__file__).with_name("spec.md")
MARKER = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)

# What pydantic cannot tell about fields that are checked by functions of ours.
TYPES = {
    "dataset.dataset": "component",
    "dataset.samples": "dict",
    "dataset.preprocessors": '`"auto"` or list of components',
    "dataset.data_augmentors": "list of components",
    "samples.train": "fraction, rows or null",
    "samples.val": "fraction, rows or null",
    "samples.test": "fraction, rows or null",
    "model.model": "component",
    "model.training": "dict",
    "training.optimizer": "name or component",
    "training.schedule": "name, component, dict of them or null",
    "training.early_stopping": "dict or null",
    "training.checkpoint": "dict or null",
    "training.ema": "dict or null",
    "training.start_from": "path, dict or null",
    "training.lr_multipliers": "dict of numbers or null",
    "training.loss": '`"auto"`, name or component',
    "training.metrics": '`"auto"` or list of names and components',
    "training.class_weight": '`"balanced"`, dict of numbers or null',
    "tracking.experiment": "text or null",
    "tracking.run_name": "text or null",
    "tracking.tags": "dict of texts",
    "tracking.trackers": "list of components",
}


def reference() -> dict[str, str]:
    """Return the text of each generated part of the page, by the name of its marker."""
    sections: dict[str, type[pydantic.BaseModel]] = {
        "dataset": Dataset,
        "samples": Samples,
        "model": Model,
        "training": Training,
        "early_stopping": EarlyStopping,
        "checkpoint": Checkpoint,
        "ema": Ema,
        "start_from": StartFrom,
        "tracking": Tracking,
    }
    kinds = ("dataset", "preprocessor", "augmentor", "model", "schedule", "tracker")
    tables = {name: _table("key", _keys(name, section)) for name, section in sections.items()}
    components = {
        f"{kind}_types": "\n".join(_component(kind, name) for name in sorted(BUILTIN[kind])) for kind in kinds
    }
    layers = "\n".join(f"#### Layer `{name}`\n\n{_layer(layer)}" for name, layer in LAYERS.items())
    return (
        tables
        | components
        | {"layer_types": layers, "tasks": _tasks(), "optimizer_defaults": _adam(), "short_names": _short_names()}
    )


def refreshed(page: str) -> str:
    """Return the page with its generated parts as the code has them now."""
    parts = reference()
    return MARKER.sub(lambda found: f"<!-- {found[1]} -->\n{parts[found[1]].rstrip()}\n<!-- end -->", page)


def _table(first: str, rows: Iterator[tuple[str, str, str, str]]) -> str:
    lines = [f"| {first} | type | default | meaning |", "| --- | --- | --- | --- |"]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


def _keys(section_name: str, section: type[pydantic.BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        annotation = typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        type_text = TYPES.get(f"{section_name}.{name}") or _type_text(annotation)
        value = field.get_default(call_default_factory=True)
        is_section = isinstance(value, pydantic.BaseModel)
        default = "required" if field.is_required() else "below" if is_section else _code(value)
        yield f"`{name}`", type_text, default, " ".join((field.description or "").split())


def _layer(layer: type[pydantic.BaseModel]) -> str:
    rows = list(_keys("layer", layer))
    table = f"\n{_table('argument', iter(rows))}\n" if rows else ""
    return f"{inspect.cleandoc(layer.__doc__ or '')}\n{table}"


def _component(kind: str, name: str) -> str:
    target = find(kind, name)
    function = target.__init__ if inspect.isclass(target) else target
    hints = _hints(function)
    texts = _described_arguments(target)
    summary = inspect.cleandoc(target.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
    rows: list[tuple[str, str, str, str]] = []
    for parameter in inspect.signature(target).parameters.values():
        if parameter.name in INJECTED.get(kind, ()) or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        is_rest = parameter.kind is parameter.VAR_KEYWORD
        required = parameter.default is parameter.empty
        default = "" if is_rest else "required" if required else _code(parameter.default)
        type_text = "" if is_rest else _type_text(hints.get(parameter.name, Any))
        label = "any other" if is_rest else f"`{parameter.name}`"
        rows.append((label, type_text, default, texts[parameter.name]))
    return f"#### `{name}`\n\n{summary}\n" + (f"\n{_table('argument', iter(rows))}\n" if rows else "")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolve the annotations of the arguments; that of the result may need a module that is not loaded."""
    arguments = {key: hint for key, hint in getattr(function, "__annotations__", {}).items() if key != "return"}
    namespace = getattr(function, "__globals__", {})
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=arguments), namespace, include_extras=True)


def _described_arguments(target: Callable[..., Any]) -> dict[str, str]:
    """Read the section `Args` of a docstring in Google's style."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n(?=    ))+)", inspect.cleandoc(target.__doc__ or ""), re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _type_text(annotation: Any) -> str:
    return "anything" if annotation is Any else _schema_text(pydantic.TypeAdapter(annotation).json_schema())


def _schema_text(schema: dict[str, Any]) -> str:
    if schema.get("title") in {"component", "layer"}:
        return str(schema["title"])
    if "anyOf" in schema:
        return " or ".join(map(_schema_text, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_schema_text(schema.get('items', {}))}{_range_text(schema, 'Items')}"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    return words.get(schema.get("type", ""), "anything") + _bounds_text(schema)


def _bounds_text(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    # A bound beyond what anybody writes is not worth a word.
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema and abs(schema[key]) < 2**40]
    return f" {', '.join(bounds)}" if bounds else ""


def _range_text(schema: dict[str, Any], what: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    return f", {least} of them" if least is not None and least == most else ""


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _tasks() -> str:
    lines = ["| task | losses, the usual one first | usual metrics |", "| --- | --- | --- |"]
    for task in (Binary, Multiclass, Multilabel, Regression):
        losses, metrics = (", ".join(f"`{name}`" for name in names) for names in (task.losses, task.metrics))
        lines.append(f"| `{task.name}` | {losses} | {metrics} |")
    return "\n".join(lines)


def _adam() -> str:
    adam = find_foreign("optimizer", Training.model_fields["optimizer"].default)
    assert adam is not None
    learning_rate = adam.arguments["lr"][0]
    return f"The default is `{adam.name}` with `lr` {learning_rate}."


def _short_names() -> str:
    lines = ["| short name | stands for |", "| --- | --- |"]
    lines += [f"| loss `{short}` | `{name}` |" for short, name in LOSS_ALIASES.items()]
    lines += [
        f"| metric `{short}` | {', '.join(f'`{key}: {json.dumps(value)}`' for key, value in component.items())} |"
        for short, component in METRIC_ALIASES.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
