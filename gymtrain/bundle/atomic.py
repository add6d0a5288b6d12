"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_PREFIX, _SUFFIX = ".gymtrain-", ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes its place only when the block ends without an error.

    The bytes go to a hidden file in the same directory, are flushed to the disk and then renamed over `path`, so that
    neither an exception nor a power cut leaves half a file; after an error the old file is as it was. A new file gets
    the permissions that `open` would give it, an old one keeps its own, a symlink keeps pointing where it pointed.
    Hidden files that killed processes have left in the directory are removed.

    Args:
        path: Where the file goes; its directory must exist.

    Yields:
        The file, open for writing and seekable.

    Raises:
        IsADirectoryError: `path` is a directory.
        FileNotFoundError: The directory that should hold the file does not exist.
        OSError: The file could not be written (a full disk, no permission); its `filename` is `path`.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "result.json"
        >>> with atomic_write(target) as file:
        ...     _ = file.write(b"{}")
        >>> target.read_bytes()
        b'{}'
    """
    target = Path(os.path.realpath(path))
    check_place(path)
    remove_leftovers(target.parent)
    temporary: Path | None = None
    try:
        temporary, created, lock = _create_in(target.parent)
        with lock:
            with created as file:
                try:
                    if target.exists():
                        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    _discard(file)
                    raise
            os.replace(temporary, target)
        _sync_directory(target.parent)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):  # why it could not be written is what counts
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and _is_hidden_from_the_user(error.filename):
            error = type(error)(error.errno, error.strerror, os.fspath(path)).with_traceback(error.__traceback__)
            raise error from None
        raise


def remove_leftovers(directory: Path) -> None:
    """Delete the hidden files that processes have left in a directory which were killed while they wrote.

    Files that are being written, by this process or another one, are left alone: their writers hold a lock on them,
    which ends with the process, however it ends. A number of a process would say less: other machines and containers
    that share the directory have the same numbers.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> (directory / ".gymtrain-4711-0123456789ab.tmp").touch()
        >>> remove_leftovers(directory)
        >>> list(directory.iterdir())
        []
    """
    if sys.platform == "win32":  # where there is no such lock
        return
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            with open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError as error:
            logger.debug("%s: left where it is: %s", path, error)


def _create_in(directory: Path) -> tuple[Path, BinaryIO, AbstractContextManager[object]]:
    """Create a hidden file that nobody takes for a leftover until it is closed and the lock on it is left."""
    while True:
        # The name of the target is left out: with it a name of the longest allowed length would not fit any more.
        path = directory / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}{_SUFFIX}"
        file = open(path, "x+b")  # noqa: SIM115 - the caller closes it
        if sys.platform == "win32":
            return path, file, contextlib.nullcontext()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # then nobody else can lock it, and so nobody removes it
            logger.debug("%s: this file system has no locks: %s", directory, error)
        if os.fstat(file.fileno()).st_nlink:
            return path, file, open(os.dup(file.fileno()), "wb")
        file.close()  # taken for a leftover before it was locked


def _is_hidden_from_the_user(name: object) -> bool:
    return name is None or os.path.basename(str(name)).startswith(_PREFIX)


def check_place(path: str | os.PathLike[str]) -> None:
    """See whether a file could be written there, as far as that is seen before.

    Raises:
        OSError: It is a directory, or no regular file, or the directory that should hold it does not exist.
    """
    target, given = Path(os.path.realpath(path)), os.fspath(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory; name a file in it", given)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such directory; create it first", str(target.parent))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a regular file, cannot be replaced", given)


def _discard(file: BinaryIO) -> None:
    """Close without the error that flushing the rest to a full disk would raise over the one that counts."""
    with contextlib.suppress(OSError):
        file.close()


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    if os.name == "nt":
        return  # directories cannot be opened there, and the rename is journalled
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        logger.debug("%s: this file system cannot flush a directory: %s", directory, error)
    finally:
        os.close(descriptor)
