"""Small bundles of trainers of each kind, and what they answer.

As a program (`python trained_bundles.py`) it freezes those that are not yet as `data/bundles/format-1-*.zip`, and their
answers beside them: what is frozen once is loaded by every later gymtrain.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from user_code import rows_of

from gymtrain import Trainer
from gymtrain.bundle.format import FORMAT_VERSION

FROZEN = Path(__file__).parent / "data" / "bundles"


def _frame() -> dict[str, list[Any]]:
    generator = np.random.default_rng(0)
    age = [None if row % 7 == 0 else round(value, 1) for row, value in enumerate(generator.normal(40, 10, 60))]
    return {
        "age": age,
        "income": generator.normal(3, 1, 60).round(2).tolist(),
        "city": [("Porto", "Braga", None)[row % 3] for row in range(60)],
        "answer": [("ja", "nein: ü")[row % 2] for row in range(60)],
    }


def _specs() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return the datasets and the models, by a name for the bundle."""
    X, y = rows_of("regressions")
    network = {"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 2}}
    estimator = {"type": "sklearn", "estimator": "LogisticRegression"}
    pca = {"type": "sklearn", "transformer": "PCA", "n_components": 2}
    return {
        "network": ({"dataset": "iris", "preprocessors": ["standard_scaler"]}, network),
        "int8": ({"dataset": "iris", "preprocessors": ["standard_scaler"]}, network),
        "frame": (
            {"dataset": {"type": "dataframe", "data": _frame(), "target": "answer"}, "preprocessors": ["tabular"]},
            {"model": "linear", "training": {"epochs": 2}},
        ),
        "estimator": ({"dataset": "iris", "preprocessors": ["min_max_scaler", pca]}, {"model": estimator}),
        "regression": (
            {
                "dataset": {"type": "arrays", "X": X, "y": y, "task": "regression"},
                "preprocessors": [{"type": "divide", "factor": 4.0}],
            },
            {"model": "linear", "training": {"epochs": 1}},
        ),
    }


def make(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Train each that is not there and save it; return where, by name. Nothing in them tells of the machine."""
    specs = {name: each for name, each in _specs().items() if not (folder / f"{prefix}{name}.zip").exists()}
    paths = {name: folder.resolve() / f"{prefix}{name}.zip" for name in specs}
    tracking = {"trackers": [], "log_figures": False, "log_bundle": False, "log_system_metrics": False}
    with tempfile.TemporaryDirectory() as root, contextlib.chdir(root):
        for name, (dataset, model) in specs.items():
            trainer = Trainer(dataset=dataset, model=model, tracking=tracking)
            result = trainer.train()
            trainer._learned = {key: result[key] for key in ("metrics", "best", "status")}
            trainer.save(paths[name], dtype="int8" if name == "int8" else None)
    return paths


def questions(name: str) -> Any:
    """Return rows for the bundle of this name."""
    if name == "frame":
        return {key: column[:20] for key, column in _frame().items() if key != "answer"}
    return rows_of("regressions")[0][:20] if name == "regression" else np.linspace(0, 8, 80).reshape(20, 4)


def answers(trainer: Trainer, name: str) -> dict[str, Any]:
    """Return what a trainer answers, as JSON holds it."""
    rows = questions(name)
    found: dict[str, Any] = {"labels": trainer.predict(rows).tolist()}
    if name != "regression":
        found["probabilities"] = trainer.predict_proba(rows).tolist()
    return found


def _freeze() -> None:
    FROZEN.mkdir(parents=True, exist_ok=True)
    for name, path in make(FROZEN, f"format-{FORMAT_VERSION}-").items():
        found = answers(Trainer.load(path), name)
        path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    _freeze()
