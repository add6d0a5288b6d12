"""A training loop of your own, tracked without gymtrain's trainer: it needs `gymtrain_trackers`, not torch.

Kill it at any moment; `gymtrain sync <directory of the run>` or its next start completes what MLflow shows.
"""

from __future__ import annotations

import argparse
import random

from gymtrain_trackers import Recorder, Run, load


def main() -> None:
    """Fit a line to points by gradient descent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.1)
    given = parser.parse_args()
    rows = [(x, 3.0 * x + 1.0 + random.gauss(0.0, 0.1)) for x in (random.uniform(-1.0, 1.0) for _ in range(100))]

    run = Run.new("runs", experiment="lines", name=f"lr {given.lr}")
    trackers = [load("mlflow"), load("tensorboard"), load("jsonl")]
    with Recorder(trackers, run) as recorder:  # how the block is left decides the status of the run
        recorder.log_params(vars(given))
        slope, offset = 0.0, 0.0
        for epoch in range(1, given.epochs + 1):
            errors = [(slope * x + offset - y, x) for x, y in rows]
            slope -= given.lr * sum(2.0 * error * x for error, x in errors) / len(rows)
            offset -= given.lr * sum(2.0 * error for error, _ in errors) / len(rows)
            loss = sum(error**2 for error, _ in errors) / len(rows)
            recorder.log_metrics({"train/loss": loss, "train/slope": slope}, step=epoch)
            if loss > 1e6:
                raise ArithmeticError(f"the loss is {loss:.3g}; give a smaller --lr than {given.lr}")

    print(recorder.info()["mlflow"]["ui"])
    print(run.directory)


if __name__ == "__main__":
    main()
