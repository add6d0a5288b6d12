"""What a bundle is read from, by position: a file, bytes in memory or a file object; what lies elsewhere is fetched."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

from gymtrain.bundle import remote
from gymtrain.bundle.addresses import is_url, shown
from gymtrain.bundle.format import MAX_FILE_BYTES
from gymtrain.errors import BundleError

Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# For memory that a forked process does not share: what one of the two writes is not the other's.
PRIVATE: dict[str, Any] = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
_CHUNK_BYTES = 1 << 20


def name_of(given: Readable) -> str:
    """Return what messages call it: its path or address, or what it is.

    Example:
        >>> name_of(b"PK"), name_of(io.BytesIO())
        ('<bytes of 2>', '<BytesIO>')
    """
    if isinstance(given, str | os.PathLike):
        return shown(given) if is_url(given) else os.fsdecode(given)
    if isinstance(given, bytes | bytearray | memoryview):
        return f"<{type(given).__name__} of {memoryview(given).nbytes}>"
    name = getattr(given, "name", None)
    return name if isinstance(name, str) else f"<{type(given).__name__}>"


class Source:
    """Bytes that are read from one place that stays open, so that what was checked is what is read.

    Args:
        given: The path of a regular file, of which a symlink is followed; an address, from where it is downloaded; the
            bytes; or a file object, open for reading bytes and seekable. All that is in it is read, wherever it stands;
            it is left there, and open.

    Raises:
        BundleError: `not_a_file` (a directory, a pipe, a device, a stream, an address of an unknown kind),
            `not_fetched` or `too_large`.
        FileNotFoundError: There is no such file.

    Attributes:
        name: What messages call it.
        file: What is read.
        size: In bytes.
    """

    def __init__(self, given: Readable) -> None:
        self.name = name_of(given)
        self._position: int | None = None  # of a file object that is not ours
        if isinstance(given, str | os.PathLike):
            self.file: BinaryIO = _open(given, self.name)
        elif isinstance(given, bytes | bytearray | memoryview):
            self.file = io.BytesIO(given)
        else:
            self.file = given
            self._position = self._begin()
        try:
            self.file.seek(0, os.SEEK_END)
            self.size = self.file.tell()
            if self.size > MAX_FILE_BYTES:
                message = f"{self.name}: {self.size} bytes, more than the {MAX_FILE_BYTES} that are allowed"
                raise BundleError(message, reason="too_large")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, or leave it where it stood if it is the caller's; a map of it stays."""
        if self._position is None:
            self.file.close()
        else:
            self.file.seek(self._position)

    @property
    def is_borrowed(self) -> bool:
        """Whether it reads a file object of the caller's, who may go on with it once a call returns."""
        return self._position is not None

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
        # A file has one position for all threads, and for the processes that were forked while it was open.
        descriptor = _descriptor(self.file) if hasattr(os, "pread") else None
        while length > 0:
            wanted = min(length, _CHUNK_BYTES)
            chunk = self._read_at(offset, wanted) if descriptor is None else os.pread(descriptor, wanted, offset)
            if not chunk:
                raise BundleError(f"{self.name}: {length} bytes are missing at the end", reason="truncated")
            length -= len(chunk)
            offset += len(chunk)
            yield chunk

    def _read_at(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(length)

    def map(self) -> mmap.mmap:
        """Map the file copy-on-write: it can be written to in memory, which never reaches the file.

        What is no file of this machine is copied, once, into memory that begins at a page.

        Raises:
            BundleError: `truncated`: the file is shorter than it was when it was opened.
        """
        descriptor = _descriptor(self.file)
        try:
            if descriptor is not None:
                return mmap.mmap(descriptor, self.size, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise BundleError(f"{self.name}: the file changes while it is read: {error}", reason="truncated") from None
        mapped = mmap.mmap(-1, self.size, **PRIVATE)
        for chunk in self.chunks(0, self.size):
            mapped.write(chunk)
        return mapped

    def _begin(self) -> int:
        """Return where a file object stands; refuse what is none that can be read."""
        expected = "expected a path, bytes, or a file that is open for reading bytes and can be read from any position"
        try:
            position = self.file.tell()
            self.file.seek(0)
            if isinstance(self.file.read(0), bytes):
                return position
        except (AttributeError, OSError, ValueError, TypeError) as error:
            raise BundleError(f"{self.name} cannot be read: {error}; {expected}", reason="not_a_file") from error
        raise BundleError(f"{self.name} gives text; {expected}", reason="not_a_file")


def _open(given: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a regular file, or download what is no file of this machine."""
    path = os.fsdecode(given)
    if is_url(given):
        local = remote.local_path(given)
        if local is None:
            return _downloaded(given)
        path = local
    if "\0" in path:
        raise BundleError(f"{path!r} is not the path of a file: it has a zero in it", reason="not_a_file")
    # Without O_NONBLOCK a named pipe would be waited for.
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    try:
        file = io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))
    except IsADirectoryError:
        raise BundleError(f"{name} is a directory, expected a file", reason="not_a_file") from None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise BundleError(f"{name} is a socket or a device, expected a file", reason="not_a_file") from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError(f"{name} is a pipe or a device, expected a file", reason="not_a_file")
    return file


def _downloaded(url: str) -> BinaryIO:
    """Return a temporary file without a name, so that nobody else opens it and it is gone with the process."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(prefix="gymtrain-"))
        remote.download(url, file)
        stack.pop_all()
    return file


def _descriptor(file: BinaryIO) -> int | None:
    """Return the descriptor of what reads a regular file just as it is; None where another object stands between."""
    raw = file.raw if isinstance(file, io.BufferedReader | io.BufferedRandom) else file
    if isinstance(raw, io.FileIO) and stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return raw.fileno()
    return None
