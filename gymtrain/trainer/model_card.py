"""What people read about a trained model, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# What decides the most of how a model is fitted; all of it is in the spec.
_TRAINING = ("start_from", "freeze", "epochs", "max_steps", "batch_size", "optimizer", "schedule", "loss", "seed")


def model_card(spec: Mapping[str, Any], schema: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return a page about a model: what it is, what it was trained on, how and where, how good it is, how it is used.

    Args:
        spec: The resolved spec.
        schema: What a row looks like (`features`), and the task with its labels (`labels`).
        result: What `train()` returned, or as much of it as there is.
    """
    dataset, model = spec["dataset"]["dataset"], spec["model"]["model"]
    features, labels = schema["features"], schema["labels"]
    lines = [f"# {model['type']} on {dataset['type']}", "", f"- task: {labels['task']}"]
    if "classes" in labels:
        names = [_line(each) for each in labels["classes"][:20]]
        lines += [f"- classes: {', '.join(names)}{' …' if len(labels['classes']) > 20 else ''}"]
    lines += _images(features)
    best = result.get("best")
    if best:
        value = "infinite" if best["value"] is None else f"{best['value']:.6g}"  # JSON has no infinity
        lines += [f"- weights: of epoch {best['epoch']}, the best by {_line(best['metric'])} ({value})"]
    else:
        lines += ["- weights: of the last epoch"]
    lines += _data(result.get("data") or {}, result.get("bad_samples") or {})
    lines += ["", "## Training", "", *_training(spec, result), *_machine(result.get("hardware_info") or {})]
    lines += ["", "## Results", "", "| metric | value |", "| --- | --- |"]
    for name, value in sorted(result.get("metrics", {}).items()):
        last = value[-1] if isinstance(value, list) else value
        if last is not None:
            lines += [f"| {name}{' (last epoch)' if isinstance(value, list) else ''} | {last:.6g} |"]
    lines += ["", "## Use", "", "```python", "from gymtrain import Trainer", "", 'trainer = Trainer.load("model.zip")']
    if features["dtype"] == "image":
        lines += ['X = ["photo.jpg"]          # or one path, a folder, bytes, images of PIL, arrays of pixels']
    lines += ["trainer.predict(X)         # raw rows in, labels out"]
    if labels["task"] != "regression":
        lines += ["trainer.predict_proba(X)   # columns in the order of trainer.classes_"]
    lines += ["```", ""]
    if features["dtype"] == "image":
        lines += ["```console", "$ gymtrain predict model.zip photo.jpg folder/", "```", ""]
    return "\n".join(lines)


def _images(features: Mapping[str, Any]) -> Iterator[str]:
    if features["dtype"] == "image":
        yield f"- input: images of any size, up to {features['max_pixels']:,} pixels; preprocessors make them alike"


def _data(data: Mapping[str, Any], bad: Mapping[str, Any]) -> Iterator[str]:
    if data:
        yield from ("", "## Data", "", "| part | rows | SHA-256 of rows and targets |", "| --- | --- | --- |")
        for part, rows in sorted(data.items()):
            yield f"| {part} | {rows['rows']} | {rows['sha256']} |"
    if bad:
        first = "; ".join(map(_line, bad["first"]))
        yield from ("", f"{bad['count']} images could not be used and were left out, the first of them: {first}")


def _training(spec: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    steps, training = spec["dataset"].get("preprocessors"), spec["model"].get("training", {})
    if steps:
        names = steps if isinstance(steps, str) else ", ".join(str(step["type"]) for step in steps)
        yield f"- preprocessors: {names}"
    # A model that fits all by itself takes no more than the seed.
    for name in ("seed",) if result.get("stop_reason") == "fitted" else _TRAINING:
        value = training.get(name)
        if value is not None and value != []:
            yield f"- {name}: {_line(value if isinstance(value, str) else _json(value))}"


def _machine(hardware: Mapping[str, Any]) -> Iterator[str]:
    if hardware:
        processors = [hardware["cpu"]["brand"], *(gpu["name"] for gpu in hardware["gpu"])]
        yield f"- machine: {_line(', '.join(str(each) for each in processors if each))}; {hardware['platform']}"
        versions = {"python": hardware["python"], **hardware["libraries"]}
        yield f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}"


def _json(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if item is not None}
    return json.dumps(value, ensure_ascii=False)


def _line(value: object) -> str:
    """Text of somebody else's in a line of its own."""
    return " ".join(str(value).split())
