"""What people read about a trained model, in Markdown."""

from __future__ import annotations

from typing import Any


def model_card(
    spec: dict[str, Any], labels: dict[str, Any], result: dict[str, Any], sizes: dict[str, int] | None
) -> str:
    """Return a page about a model: what it is, how it was trained, how good it is, how it is used.

    Args:
        spec: The resolved spec.
        labels: The task and its labels.
        result: What `train()` returned, or as much of it as there is.
        sizes: The number of rows of each part; None where it is not known any more.
    """
    dataset, model = spec["dataset"]["dataset"], spec["model"]["model"]
    lines = [f"# {model['type']} on {dataset['type']}", ""]
    lines += [f"- task: {labels['task']}"]
    if "classes" in labels:
        names = [str(each) for each in labels["classes"]]
        lines += [f"- classes: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"]
    if sizes:
        lines += [f"- rows: {', '.join(f'{count} {part}' for part, count in sizes.items() if count)}"]
    best = result.get("best")
    if best:
        lines += [f"- weights: of epoch {best['epoch']}, the best by {best['metric']} ({best['value']:.6g})"]
    else:
        lines += ["- weights: of the last epoch"]
    lines += ["", "| metric | value |", "| --- | --- |"]
    for name, value in sorted(result.get("metrics", {}).items()):
        last = value[-1] if isinstance(value, list) else value
        if last is not None:
            lines += [f"| {name}{' (last epoch)' if isinstance(value, list) else ''} | {last:.6g} |"]
    lines += ["", "```python", "from gymtrain import Trainer", "", 'trainer = Trainer.load("model.zip")']
    lines += ["trainer.predict(X)         # raw rows in, labels out"]
    if labels["task"] != "regression":
        lines += ["trainer.predict_proba(X)   # columns in the order of trainer.classes_"]
    return "\n".join([*lines, "```", ""])
