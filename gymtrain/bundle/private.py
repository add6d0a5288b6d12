"""A file in the memory of this process alone."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from gymtrain.bundle.source import PRIVATE, Source
from gymtrain.errors import BundleError

_CHUNK_BYTES = 1 << 20


class PrivateCopy(Source):
    """What a source held when it was read: nobody can change it between the check of a signature and its use.

    Args:
        source: What is read, whole.

    Raises:
        BundleError: `truncated`: it ends before it should.
    """

    def __init__(self, source: Source) -> None:
        self.name, self.size = source.name, source.size
        self._memory = mmap.mmap(-1, max(self.size, 1), **PRIVATE)
        for chunk in source.chunks(0, self.size):
            self._memory.write(chunk)

    def close(self) -> None:
        """Keep the memory: it is gone with the last that uses it."""

    @property
    def is_borrowed(self) -> bool:
        """Never: it is this process's own."""
        return False

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Read exactly `length` bytes in pieces of at most 1 MiB.

        Raises:
            BundleError: `truncated`: the file ends before that.
        """
        if offset + length > self.size:
            missing = offset + length - self.size
            raise BundleError(f"{self.name}: {missing} bytes are missing at the end", reason="truncated")
        for start in range(offset, offset + length, _CHUNK_BYTES):
            yield self._memory[start : min(start + _CHUNK_BYTES, offset + length)]

    def map(self) -> mmap.mmap:
        """Return the memory."""
        return self._memory
