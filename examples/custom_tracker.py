"""A tracker of your own: it writes the metrics of each run into a CSV file.

`gymtrain_trackers.conformance` has the tests that every tracker must pass; tests/test_examples.py runs them against
this one.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymtrain import Trainer, register
from gymtrain_trackers import Metric, Run, Status, Tracker


@register("tracker", "csv")
class CsvTracker(Tracker):
    """Writes `key,step,value` lines, and the status at the end.

    Args:
        name_of_file: What the file in the run's directory is called.
    """

    name = "csv"

    def __init__(self, name_of_file: str = "metrics.csv") -> None:
        self._name_of_file = name_of_file

    def start(self, run: Run) -> None:
        """Open the file. All calls come from one thread, which is not the one that trains."""
        self._path = run.directory / self._name_of_file
        self._file = self._path.open("w", encoding="utf-8", newline="")
        self._lines = csv.writer(self._file)
        self._lines.writerow(["key", "step", "value"])

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Write the points in the order in which they come."""
        self._lines.writerows((metric.key, metric.step, metric.value) for metric in metrics)
        self._file.flush()

    def end(self, status: Status) -> None:
        """Write the status and close the file."""
        self._lines.writerow(["status", "", status])
        self._file.close()

    def info(self) -> dict[str, Any]:
        """Return where the file is; it becomes a part of `result["run"]["trackers"]`."""
        return {"path": str(self._path)}


def main() -> None:
    """Train with it."""
    trainer = Trainer(
        dataset={"dataset": {"type": "iris"}, "samples": {"train": 0.6, "val": 0.2, "test": 0.2}},
        model={"model": {"type": "linear"}, "training": {"epochs": 3, "optimizer": {"type": "SGD", "lr": 0.1}}},
        tracking={"trackers": [{"type": "csv"}]},
    )
    result = trainer.train()
    path = Path(result["run"]["trackers"]["csv"]["path"])
    print(path)
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
