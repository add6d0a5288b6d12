"""What the journal of a run holds before a recorder goes on with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .entries import started_run
from .errors import TrackerError
from .journal import Entry, Journal, entries, start_entries
from .run import JSON, Metric, Run


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


def run_in(directory: str | Path) -> Run:
    """Return the run whose journal lies in a directory, for a `Recorder` that goes on with it.

    A directory that was moved is the run; one that was copied is not, while the original is there.

    Raises:
        TrackerError: There is no journal, it is no run's, or the directory is a copy.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([], Run.new(root)) as recorder:
        ...         pass
        ...     run_in(recorder.run.directory) == recorder.run
        True
    """
    place = Path(directory).absolute()
    try:
        entry = next(start_entries(place / "journal.jsonl"), None)
    except OSError as error:
        raise TrackerError(f"{str(place)!r} is not the directory of a run: {error}") from error
    if entry is None:
        raise TrackerError(f"{place / 'journal.jsonl'} has no entry that starts a run")
    original = Path(entry["directory"])
    if original.exists() and not original.samefile(place):
        raise TrackerError(f"{str(place)!r} is a copy of the run in {str(original)!r}")
    return started_run(entry, place)
