"""Two models learn the handwritten digits; the better one is saved, and predicts in another process.

python examples/digits.py [--epochs 20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from gymtrain import Trainer
from gymtrain.training.progress import ProgressBar

SAMPLES = {"train": 0.7, "val": 0.15, "test": 0.15, "stratify": True}
TRACKERS = [{"type": "mlflow"}, {"type": "tensorboard"}]
BUNDLE = "digits.zip"

# What the other process runs: it knows nothing but the file.
PREDICT = """
import json, sys
from gymtrain import Trainer
from sklearn.datasets import load_digits

trainer = Trainer.load(sys.argv[1])
X = load_digits().data.reshape(-1, *trainer.features.shape)
print(json.dumps(trainer.predict(X).tolist()))
"""


def mlp(epochs: int) -> Trainer:
    """Two hidden layers on the 64 pixels."""
    return Trainer(
        dataset={
            "dataset": {"type": "digits"},
            "samples": SAMPLES,
            "preprocessors": [{"type": "standard_scaler"}],
        },
        model={
            "model": {"type": "mlp", "hidden": [64, 64]},
            "training": {"epochs": epochs, "batch_size": 32, "monitor": "val/accuracy"},
        },
        tracking={"experiment": "digits", "run_name": "mlp", "trackers": TRACKERS},
    )


def cnn(epochs: int) -> Trainer:
    """Two convolutions on the 8 x 8 images, which are turned and lit a little differently in each epoch."""
    return Trainer(
        dataset={
            "dataset": {"type": "digits", "images": True},
            "samples": SAMPLES,
            "preprocessors": [{"type": "divide", "factor": 16.0}],
            "data_augmentors": [
                {"type": "rotate_range", "max_left_rotation": 10.0, "max_right_rotation": 10.0},
                {"type": "random_brightness", "min_factor": 0.8, "max_factor": 1.2},
            ],
        },
        model={
            "model": {"type": "cnn", "channels": [16, 32], "hidden": [64]},
            "training": {
                "epochs": epochs,
                "batch_size": 32,
                "optimizer": {"type": "AdamW", "lr": 0.003},
                "monitor": "val/accuracy",
            },
        },
        tracking={"experiment": "digits", "run_name": "cnn", "trackers": TRACKERS},
    )


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print a table with a row for each run."""
    table = Table("model", "best epoch", "val/accuracy", "test/accuracy", "test/loss", "seconds")
    for name, result in results.items():
        best, metrics = result["best"], result["metrics"]
        numbers = f"{best['value']:.4f}", f"{metrics['test/accuracy']:.4f}", f"{metrics['test/loss']:.4f}"
        table.add_row(name, str(best["epoch"]), *numbers, f"{result['elapsed']['total']:.1f}")
    Console().print(table)


def main() -> None:
    """Train, compare, save, and predict elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs

    trainers = {"mlp": mlp(epochs), "cnn": cnn(epochs)}
    results = {name: trainer.train(callbacks=[ProgressBar(name)]) for name, trainer in trainers.items()}
    show(results)

    better = max(results, key=lambda name: results[name]["best"]["value"])
    trainer = trainers[better]
    trainer.save(BUNDLE)
    print(f"The {better} is better on the validation rows; it is saved as {BUNDLE}.")

    command = [sys.executable, "-c", PREDICT, BUNDLE]
    elsewhere = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    here = trainer.predict(load_digits().data.reshape(-1, *trainer.features.shape)).tolist()
    agree = sum(there == ours for there, ours in zip(elsewhere, here, strict=True))
    print(f"Another process loaded it: {agree} of its {len(here)} predictions are the ones made here.")
    if agree != len(here):
        sys.exit("They should all be.")

    runs = [result["run"] for result in results.values()]
    both = quote(json.dumps([run["run_id"] for run in runs]))
    experiment = quote(json.dumps([runs[0]["experiment_id"]]))
    print("\nCompare the two runs in MLflow (make ui does the same):")
    print(f"  {runs[0]['ui']}")
    print(f"  http://127.0.0.1:5000/#/compare-runs?runs={both}&experiments={experiment}")


if __name__ == "__main__":
    main()
