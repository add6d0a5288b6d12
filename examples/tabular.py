"""A frame with text, missing values and labels that are words: a network and a random forest learn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

from gymtrain import Trainer

SAMPLES = {"train": 0.7, "val": 0.15, "test": 0.15, "stratify": True}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"type": "mlp", "hidden": [32]},
        "training": {"epochs": 40, "batch_size": 16, "class_weight": "balanced"},
    },
    "forest": {
        "model": {"type": "sklearn", "estimator": "RandomForestClassifier", "n_estimators": 200, "random_state": 0},
    },
}


def wines() -> pd.DataFrame:
    """The wines of scikit-learn as such tables often are: some columns are words, some values are missing."""
    frame: pd.DataFrame = load_wine(as_frame=True).frame
    frame["cultivar"] = frame.pop("target").map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    frame["hue"] = pd.cut(frame["hue"], [0, 0.8, 1.1, 2], labels=["brown", "red", "purple"]).astype(str)
    frame["colour"] = pd.qcut(frame.pop("color_intensity"), 3, labels=["light", "medium", "deep"]).astype(str)
    missing = np.random.default_rng(0).random(frame.shape) < 0.05
    return frame.mask(pd.DataFrame(missing, frame.index, frame.columns).assign(cultivar=False))


def main() -> None:
    """Train both models on the file, and predict what is not in it."""
    frame = wines()
    unknown = frame.sample(8, random_state=0)
    frame.drop(unknown.index).to_csv("wine.csv", index=False)

    trainers = {}
    for name, model in MODELS.items():
        trainers[name] = Trainer(
            dataset={"dataset": {"type": "csv", "path": "wine.csv", "target": "cultivar"}, "samples": SAMPLES},
            model=model,
            tracking={"experiment": "wine", "run_name": name},
        )
        result = trainers[name].train()
        print(f"{name}: test/accuracy {result['metrics']['test/accuracy']:.3f}")
    trainers["forest"].save("wine.zip")

    # The columns may come in any order, and values may be missing here too.
    rows = unknown.drop(columns="cultivar")[sorted(unknown.columns.drop("cultivar"))]
    answers = pd.DataFrame({"cultivar": unknown["cultivar"]})
    for name, trainer in trainers.items():
        answers[name] = trainer.predict(rows)
    forest = Trainer.load("wine.zip")
    answers[[f"forest: {label}" for label in forest.classes_]] = forest.predict_proba(rows).round(2)
    print(answers.to_string())

    rows.to_csv("unknown.csv", index_label="id")
    print("\nThe same on the command line:\n  gymtrain predict wine.zip unknown.csv --proba --id id")


if __name__ == "__main__":
    main()
