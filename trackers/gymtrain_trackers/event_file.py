"""The event file of TensorBoard, so written that it can be gone on with: it tells how many events it holds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from .files import AppendFile

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_LENGTH = struct.Struct("<Q")
_CHECK = struct.Struct("<I")
_OVERHEAD = _LENGTH.size + 2 * _CHECK.size


class EventFile:
    """Appends events to a file, all of a batch or none.

    A record that a kill or a loss of power left incomplete is cut off when the file is opened again.

    Args:
        path: The file; its directory must exist.

    Attributes:
        count: How many events it holds.
    """

    def __init__(self, path: Path) -> None:
        self._file = AppendFile(path)
        self.count, end = _complete(self._file)
        if end < self._file.size:
            self._file.truncate(end)

    def write(self, events: list[Event]) -> None:
        """Append events.

        Raises:
            OSError: they cannot be written; the file is as it was before.
        """
        if events:
            self._file.write(b"".join(_record(event.SerializeToString()) for event in events))
            self.count += len(events)

    def overwrite(self, number: int, event: Event) -> None:
        """Put an event in the place of another, counted from 0, that takes the same room.

        Raises:
            ValueError: it takes another, or there is no such event.
            OSError: it cannot be written.
        """
        record = _record(event.SerializeToString())
        # What is opened for appending writes at the end, wherever it is told to.
        with self._file.path.open("r+b", buffering=0) as file:
            begin = end = 0
            for _ in range(number + 1):
                begin = file.seek(end)
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\0"))
                end = begin + length + _OVERHEAD
            if end - begin != len(record) or end > self._file.size:
                raise ValueError(f"{self._file.path}: event {number} has {end - begin} bytes; expected {len(record)}")
            file.seek(begin)
            file.write(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _record(data: bytes) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    header = _LENGTH.pack(len(data))
    return header + _CHECK.pack(masked_crc32c(header)) + data + _CHECK.pack(masked_crc32c(data))


def _complete(file: AppendFile) -> tuple[int, int]:
    """Return how many records are complete, and where the last of them ends."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    count, offset = 0, 0
    while offset + _OVERHEAD <= file.size:
        header = file.read(offset, _LENGTH.size)
        (length,) = _LENGTH.unpack(header)
        end = offset + _OVERHEAD + length
        if file.read(offset + _LENGTH.size, _CHECK.size) != _CHECK.pack(masked_crc32c(header)) or end > file.size:
            break
        # Whole records in front of the last were written before it; only the last may hold what never reached the disk.
        if end == file.size:
            data = file.read(end - _CHECK.size - length, length)
            if file.read(end - _CHECK.size, _CHECK.size) != _CHECK.pack(masked_crc32c(data)):
                break
        count, offset = count + 1, end
    return count, offset
