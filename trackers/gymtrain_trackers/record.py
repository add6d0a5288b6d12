"""What the journal of a run comes to: its params, tags and data, and the last value of each metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .entries import arguments
from .errors import TrackerError
from .files import RunLock
from .journal import Entry, entries
from .run import ENDING_TAGS, DatasetInput, Metric, Run, Status, is_time
from .starts import recipes_of

HEAD_BYTES = 128 << 10
TAIL_BYTES = 256 << 10

RecordStatus: TypeAlias = Status | Literal["RUNNING", "DIED"]

_TOLD = {"start", "log_params", "log_tags", "log_metrics", "log_inputs", "end"}


@dataclass(frozen=True)
class Record:
    """What is known of a run.

    Args:
        run: The run, at the place where its directory is now.
        status: As it ended; RUNNING while a process is at work on it, DIED if that went without a word, also where
            somebody has ended the run as KILLED since.
        ended: Unix time in seconds of the end, or of the last sign of life of a run that died; None while it runs.
        params: The params, as they were given.
        tags: The last value of each tag.
        metrics: The last point of each metric.
        inputs: The data.
        trackers: How those of its trackers are made again of which the journal knows: `name`, `type` and `arguments`;
            what lay beside the run's directory is named where it is now.
    """

    run: Run
    status: RecordStatus
    ended: float | None
    params: dict[str, Any] = field(repr=False)
    tags: dict[str, Any] = field(repr=False)
    metrics: dict[str, Metric] = field(repr=False)
    inputs: list[DatasetInput] = field(repr=False)
    trackers: list[dict[str, Any]] = field(repr=False)


def read_record(directory: str | Path) -> Record:
    """Read what is known of a run from the beginning and the end of its journal.

    It takes milliseconds and little memory however long the journal is: of one that has more than `HEAD_BYTES` and
    `TAIL_BYTES`, what lies between these is left out, and with it a metric that ended long before the run did. Lines
    that are damaged or cut short are passed over.

    Args:
        directory: The run's; it is only read.

    Raises:
        TrackerError: There is no journal, or it does not say which run it is of.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([], Run.new(root, "digits")) as recorder:
        ...         for epoch in (1, 2):
        ...             recorder.log_metrics({"train/loss": 1 / epoch}, step=epoch)
        ...     record = read_record(recorder.run.directory)
        >>> record.run.experiment, record.status, record.metrics["train/loss"].value
        ('digits', 'FINISHED', 0.5)
    """
    place = Path(directory).absolute()
    path = place / "journal.jsonl"
    if not path.is_file():
        raise TrackerError(f"{str(place)!r} is not the directory of a run: it has no journal.jsonl")
    # Asked before the journal is read: the end of a run that ends in between is in it.
    is_going = RunLock(place).is_held_elsewhere()
    run: Run | None = None
    end: Status | None = None
    seen: float | None = None
    params, tags, metrics = dict[str, Any](), dict[str, Any](), dict[str, Metric]()
    inputs: list[DatasetInput] = []
    trackers: list[dict[str, Any]] = []
    for entry, told, when in _understood(path, place):
        end = None
        seen = when or seen
        match entry["verb"], told:
            case "start", Run():
                run = told
                trackers = [each for each in recipes_of(entry, told.root) if each["arguments"] is not None]
                for tag in ENDING_TAGS:  # it goes on
                    tags.pop(tag, None)
            case "log_params", dict():
                params |= told
            case "log_tags", dict():
                tags |= told
            case "log_metrics", [*points]:
                metrics |= {point.key: point for point in points}
            case "log_inputs", [*_]:
                inputs += told
            case "end", "FINISHED" | "FAILED" | "KILLED":
                end = told
    if run is None:
        raise TrackerError(f"{path} has no entry that starts a run")
    has_died = tags.get("gymtrain.ended") == "process died" or (end is None and not is_going)
    status: RecordStatus = "DIED" if has_died else end or "RUNNING"
    return Record(run, status, None if status == "RUNNING" else seen, params, tags, metrics, inputs, trackers)


_DAMAGED = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError)


def _understood(path: Path, directory: Path) -> Iterator[tuple[Entry, Any, float]]:
    """Yield the entries that say what the run comes to, what each tells a tracker, and when; 0 where it is silent."""
    for entry in _ends_of(path):
        if entry["verb"] in _TOLD:
            try:
                (told,) = arguments(entry, directory)
                if entry["verb"] == "log_metrics":
                    told = [point for point in told if isinstance(point[0], str)]
                    told = [Metric(key, value, int(step), float(timestamp)) for key, value, step, timestamp in told]
                    when = max((point.timestamp for point in told), default=0.0)
                else:
                    when = float(entry.get("time", 0.0))
            except _DAMAGED:  # yet still an object of JSON
                continue
            yield entry, told, when if is_time(when) else 0.0


def _ends_of(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        size = path.stat().st_size
        data = file.read(HEAD_BYTES) + file.readline()
        if size - file.tell() > TAIL_BYTES:
            file.seek(size - TAIL_BYTES)
            file.readline()
        data += file.read()
    yield from (entry for entry, _ in entries(data, 0) if entry is not None)
