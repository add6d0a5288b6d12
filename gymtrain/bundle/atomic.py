"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes its place only when the block ends without an error.

    The bytes go to a hidden file in the same directory, are flushed to the disk and then renamed over `path`, so that
    neither an exception nor a power cut leaves half a file; after an error the old file is as it was. A new file gets
    the permissions that `open` would give it, an old one keeps its own, a symlink keeps pointing where it pointed.

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
    _check_target(target, os.fspath(path))
    # The name of the target is left out: with it a name of the longest allowed length would not fit any more.
    temporary = target.parent / f".gymtrain-{os.getpid()}-{secrets.token_hex(6)}.tmp"
    try:
        with open(temporary, "xb") as file:
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
        with contextlib.suppress(OSError):  # why it could not be written is what counts
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and str(error.filename) in ("None", str(temporary)):
            error = type(error)(error.errno, error.strerror, os.fspath(path)).with_traceback(error.__traceback__)
            raise error from None
        raise


def _check_target(target: Path, given: str) -> None:
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
