"""The journal: every call of a run, one strict JSON object per line, in order.

Each line has the `verb`, its arguments and the time. The journal is the queue from which the trackers are told, and
the record of a run that does not depend on any store. Images lie in files beside it.

    {"verb":"start","id":"…","experiment":"digits","name":"mlp","started":1763750000.0,"version":1,"trackers":[…]}
    {"verb":"log_params","params":{"model/type":"mlp"},"time":1763750000.1}
    {"verb":"log_metrics","metrics":[["train/loss",0.25,1,1763750001.5]]}
    {"verb":"log_image","path":"figures/confusion_000001.png","name":"confusion","step":1,"time":1763750002.0}
    {"verb":"end","status":"FINISHED","time":1763750003.0}

A line that a kill or a loss of power cut short is closed by the next writer, and every reader passes over it.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from .errors import TrackerError
from .files import AppendFile

BACKLOG_ENTRIES = 100_000
READ_BYTES = 1 << 20
RETRY_SECONDS = 1.0

Entry: TypeAlias = dict[str, Any]

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_quoted = functools.lru_cache(maxsize=1000)(_encode)
_BEGINNING = b'{"verb":"'


class Journal:
    """An append-only file, also the queue of the trackers; each entry has left the process when `append` returns.

    While the disk is full, entries wait in memory, up to `BACKLOG_ENTRIES`, and are written when there is room again;
    readers see them at once and at the same place.

    Args:
        path: The file; its directory must exist.
        report: Told once when the disk is full, and by `close` what was not written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     journal = Journal(Path(directory) / "journal.jsonl")
        ...     journal.append({"verb": "log_tags", "tags": {"team": "a"}})
        ...     journal.close()
        ...     list(read_journal(journal.path))
        [{'verb': 'log_tags', 'tags': {'team': 'a'}}]
    """

    def __init__(self, path: Path, report: Callable[[str, OSError], None] | None = None) -> None:
        self.path = path
        self._report = report
        self._lock = threading.Lock()
        self._backlog: deque[bytes] = deque()
        self._dropped = 0
        self._next_try = 0.0
        self._file = AppendFile(path)
        self.end = self._file.size
        if self.end and self._file.read(self.end - 1, 1) != b"\n":
            self._add(b"\n")

    def append(self, entry: Entry) -> None:
        """Write one entry and hand it to the operating system, which keeps it even if this process is killed."""
        line = (_encode_points(entry["metrics"]) if entry["verb"] == "log_metrics" else _encode(entry)) + "\n"
        with self._lock:
            self._add(line.encode("ascii"))

    def read(self, offset: int) -> bytes:
        """Return whole lines from `offset` on, about a mebibyte of them; nothing if there are none yet."""
        count = READ_BYTES
        while True:
            data = self._read(offset, count)
            whole = data[: data.rfind(b"\n") + 1]
            if whole or len(data) < count:
                return whole
            count *= 2

    def close(self) -> None:
        """Try once more to write what waits in memory, and close the file; a second call does nothing."""
        with self._lock:
            error = self._write_backlog()
            if error is not None and self._report is not None:
                lost = len(self._backlog) + self._dropped
                self._report(f"journal {self.path}: {lost} entries could not be written: {error}", error)
            self._file.close()

    def _add(self, line: bytes) -> None:
        if self._backlog:
            self._keep(line)
            if time.monotonic() >= self._next_try:
                self._write_backlog()
            return
        try:
            self._file.write(line)
            self.end += len(line)
        except OSError as error:
            self._keep(line)
            self._next_try = time.monotonic() + RETRY_SECONDS
            if self._report is not None:
                self._report(
                    f"journal {self.path}: {error}; up to {BACKLOG_ENTRIES} entries wait in memory for room", error
                )

    def _keep(self, line: bytes) -> None:
        if len(self._backlog) >= BACKLOG_ENTRIES:
            self._dropped += 1
            return
        self._backlog.append(line)
        self.end += len(line)

    def _write_backlog(self) -> OSError | None:
        try:
            while self._backlog:
                self._file.write(self._backlog[0])
                self._backlog.popleft()
        except OSError as error:
            self._next_try = time.monotonic() + RETRY_SECONDS
            return error
        return OSError(f"the memory for them was full ({BACKLOG_ENTRIES})") if self._dropped else None

    def _read(self, offset: int, count: int) -> bytes:
        # Without the lock where that is possible: whoever logs must not wait for a disk to be read.
        if offset < self._file.size:
            return self._file.read(offset, count)
        with self._lock:
            if offset < self._file.size:
                return self._file.read(offset, count)
            begin = offset - self._file.size
            return b"".join(self._backlog)[begin : begin + count]


def _encode_points(points: list[list[Any]]) -> str:
    """Return the entry of points of curves: it is written at every step, and this takes half of json's time."""
    # The `repr` of an int or a finite float is JSON; what is not finite is a string by now.
    texts = [
        f"[{_quoted(key)},{value!r},{step!r},{when!r}]"
        if type(value) is float
        else f"[{_quoted(key)},{_encode(value)},{step!r},{when!r}]"
        for key, value, step, when in points
    ]
    return f'{{"verb":"log_metrics","metrics":[{",".join(texts)}]}}'


def entries(data: bytes, offset: int) -> Iterator[tuple[Entry | None, int]]:
    r"""Yield each entry of whole lines and the offset behind it; None for a line that is damaged or was cut short.

    Example:
        >>> list(entries(b'{"verb":"end"}\n{"ve\n', 100))
        [({'verb': 'end'}, 115), (None, 120)]
    """
    for line in data.splitlines(keepends=True):
        offset += len(line)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        yield (entry if isinstance(entry, dict) and isinstance(entry.get("verb"), str) else None), offset


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal; lines that a kill cut short are left out.

    Raises:
        TrackerError: a line is not an entry.
    """
    with path.open("rb") as file:
        for count, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            for entry, _ in entries(line, 0):
                if entry is not None:
                    yield entry
                elif not _is_cut_short(line):
                    raise TrackerError(
                        f"{path}, line {count}: got {line[:80].decode('latin-1')!r}; expected a JSON object"
                    )


def _is_cut_short(line: bytes) -> bool:
    start = line.rstrip(b"\n")
    # A loss of power may also leave a stretch of zeros where the data had not reached the disk.
    return start.startswith(_BEGINNING) or _BEGINNING.startswith(start) or not start.strip(b"\0")
