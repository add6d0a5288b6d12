"""Files that survive a kill, a full disk and two processes: appended to as a whole, replaced as a whole, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from .errors import RunBusyError

DELIVERY_PATIENCE = 10.0
SECOND_LOOK = 0.05


class AppendFile:
    """A file to which each `write` adds everything or nothing, with one call of the operating system.

    What was written stays when this process is killed. Only a kill or a loss of power in the middle of a write leaves a
    part of one at the end.

    Args:
        path: The file; its directory must exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = AppendFile(Path(directory) / "lines")
        ...     file.write(b"one")
        ...     file.size, file.read(1, 10)
        (3, b'ne')
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self.size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append all of `data`; a file that was closed is opened again.

        Raises:
            OSError: it cannot be written; the file is as it was before.
        """
        if self._descriptor < 0:
            self._open()
        written = os.write(self._descriptor, data)
        if written < len(data):
            os.ftruncate(self._descriptor, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.size += written

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset` on."""
        return os.pread(self._descriptor, count, offset)

    def truncate(self, size: int) -> None:
        """Cut off what lies behind the first `size` bytes."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def replace(path: Path, content: str | bytes) -> None:
    """Give a file new content, so that whoever reads it finds the old or the new and never a part.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     replace(Path(directory) / "cursor.json", "{}")
        ...     [(path.name, path.read_text()) for path in Path(directory).iterdir()]
        [('cursor.json', '{}')]
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def is_within(path: Path, directory: Path) -> bool:
    """Whether a path lies in a directory, also when all links on the way are followed.

    Example:
        >>> [is_within(Path(path), Path("/tmp")) for path in ("/tmp/a", "/tmp/../etc/passwd", "/dev/null")]
        [True, False, False]
    """
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        return False


class RunLock:
    """Who may write the journal of a run and deliver it: one process at a time.

    The operating system gives the lock back when the process ends, however it ends; nothing has to be cleaned up.

    Args:
        directory: The run's.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     lock = RunLock(Path(directory))
        ...     lock.acquire()
        ...     is_held = RunLock(Path(directory)).is_held_elsewhere()
        ...     lock.release()
        ...     is_held, RunLock(Path(directory)).is_held_elsewhere()
        (True, False)
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "journal.lock"
        self._descriptor = -1

    def acquire(self, task: Literal["record", "deliver"] = "record") -> None:
        """Take the lock and write down by whom, and for what.

        Who records waits a while for one that only delivers: another run under the same root may be at it.

        Raises:
            RunBusyError: another process has it, or another part of this one.
            OSError: the directory cannot be written.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            # Readers hold it for a moment, when they ask whose it is.
            self._wait(descriptor, DELIVERY_PATIENCE if task == "record" else SECOND_LOOK)
        except RunBusyError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        # Only for people who read who has it: a full disk is no reason not to have it.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({**mine, "task": task}).encode(), 0)

    def _wait(self, descriptor: int, patience: float) -> None:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                owner, task = _owner(os.pread(descriptor, 1000, 0))
                waited = time.monotonic() - began
                # Whoever has just taken it has not yet written what for: that needs a second look.
                if waited > (patience if task == "deliver" else min(patience, SECOND_LOOK)):
                    raise RunBusyError(
                        f"the run {str(self._path.parent)!r} is still going: {owner} is at work on it"
                    ) from error
            time.sleep(SECOND_LOOK)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_held_elsewhere(self) -> bool:
        """Whether `acquire` would be refused now."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared: several may ask at the same time, and must not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _owner(content: bytes) -> tuple[str, str]:
    try:
        owner: dict[str, Any] = json.loads(content)
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']},", owner.get("task", "record")
    except (ValueError, KeyError, TypeError):
        return "another process", "record"
