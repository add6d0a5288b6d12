"""What the journal of a run holds before a recorder goes on with it."""

from __future__ import annotations

from collections.abc import Iterable

from .journal import Entry, Journal, entries
from .run import JSON, Metric


class Recorded:
    """What was recorded of a run by earlier processes; nothing of it is to be recorded twice.

    A key has its points in the order of their steps, so that its last step says which of them are there.

    Args:
        journal: Of the run; it is read to its end, in pieces.

    Attributes:
        starts: How many processes have recorded the run.
        last_steps: By the key of a metric.
        images: The files of all images, relative to the directory of the run.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     journal = Journal(Path(directory) / "journal.jsonl")
        ...     journal.append({"verb": "log_metrics", "metrics": [["loss", 0.5, 1, 0.0], ["loss", 0.4, 2, 1.0]]})
        ...     recorded = Recorded(journal)
        ...     journal.close()
        >>> [point.step for point in recorded.new([Metric("loss", 0.4, 2, 9.0), Metric("loss", 0.3, 3, 9.5)])]
        [3]
    """

    def __init__(self, journal: Journal) -> None:
        self.starts = 0
        self.last_steps: dict[str, int] = {}
        self.images: set[str] = set()
        self._inputs: list[JSON] = []
        offset = 0
        while data := journal.read(offset):
            for entry, _ in entries(data, offset):
                if entry is not None:
                    self._add(entry)
            offset += len(data)

    def _add(self, entry: Entry) -> None:
        match entry["verb"]:
            case "log_metrics":
                last = self.last_steps
                for key, _, step, _ in entry["metrics"]:
                    if step > last.get(key, step - 1):
                        last[key] = step
            case "start":
                self.starts += 1
            case "log_image":
                self.images.add(entry["path"])
            case "log_inputs":
                self._inputs += entry["inputs"]

    def new(self, points: Iterable[Metric]) -> list[Metric]:
        """Return the points that are not there."""
        last = self.last_steps
        return [point for point in points if point.key not in last or point.step > last[point.key]]

    def new_inputs(self, inputs: Iterable[JSON]) -> list[JSON]:
        """Return the inputs, as an entry has them, that are not there."""
        return [each for each in inputs if each not in self._inputs]
