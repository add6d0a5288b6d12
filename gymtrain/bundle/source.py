"""One open regular file, read by position."""

from __future__ import annotations

import errno
import io
import mmap
import os
import re
import stat
from collections.abc import Iterator
from types import TracebackType

from gymtrain.bundle.format import MAX_FILE_BYTES
from gymtrain.errors import BundleError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CHUNK_BYTES = 1 << 20


class Source:
    """A regular file that is read from one descriptor, so that what was checked is what is read.

    Args:
        path: The file; a symlink is followed.

    Raises:
        BundleError: `not_a_file` (a directory, a pipe, a device, a URL) or `too_large`.
        FileNotFoundError: There is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fsdecode(path)
        if _URL.match(self.name) or "\0" in self.name:
            message = (
                f"{self.name!r} is not the path of a file; download the bundle first and give the path of the copy"
            )
            raise BundleError(message, reason="not_a_file")
        self._file = self._open()
        status = os.fstat(self._file.fileno())
        self.size = status.st_size
        try:
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{self.name} is a pipe or a device, expected a file", reason="not_a_file")
            if self.size > MAX_FILE_BYTES:
                message = f"{self.name}: {self.size} bytes, more than the {MAX_FILE_BYTES} that are allowed"
                raise BundleError(message, reason="too_large")
        except BundleError:
            self._file.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a map of it stays."""
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes.

        Raises:
            BundleError: `truncated`: the file ends before that.
        """
        return b"".join(self.chunks(offset, length))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Read exactly `length` bytes in pieces of at most 1 MiB.

        Raises:
            BundleError: `truncated`: the file ends before that.
        """
        self._file.seek(offset)
        while length > 0:
            chunk = self._file.read(min(length, _CHUNK_BYTES))
            if not chunk:
                raise BundleError(f"{self.name}: {length} bytes are missing at the end", reason="truncated")
            length -= len(chunk)
            yield chunk

    def map(self) -> mmap.mmap:
        """Map the file copy-on-write: it can be written to in memory, which never reaches the file.

        Raises:
            BundleError: `truncated`: the file is shorter than it was when it was opened.
        """
        try:
            return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise BundleError(f"{self.name}: the file changes while it is read: {error}", reason="truncated") from None

    def _open(self) -> io.FileIO:
        # Without O_NONBLOCK a named pipe would be waited for.
        nonblocking = getattr(os, "O_NONBLOCK", 0)
        try:
            return io.FileIO(self.name, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))
        except IsADirectoryError:
            raise BundleError(f"{self.name} is a directory, expected a file", reason="not_a_file") from None
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise BundleError(
                    f"{self.name} is a socket or a device, expected a file", reason="not_a_file"
                ) from None
            raise
