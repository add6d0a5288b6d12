"""Where a bundle is written to: a path, an address or a file object; each of them gets all of it or nothing."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

from gymtrain.bundle import remote
from gymtrain.bundle.addresses import is_of_mlflow, is_url, path_of
from gymtrain.bundle.atomic import atomic_write, check_place
from gymtrain.bundle.source import name_of
from gymtrain.errors import SaveError, naming

Writable: TypeAlias = str | os.PathLike[str] | BinaryIO

_CHUNK_BYTES = 1 << 20


@contextmanager
def whole_write(target: Writable) -> Iterator[BinaryIO]:
    """Open a binary file whose content reaches the target when the block ends without an error.

    Args:
        target: A path, as `atomic_write` takes it; an address, to which is uploaded; or a file object, open for
            writing bytes, which gets them at its position and stays open.

    Yields:
        The file, open for writing and seekable.

    Raises:
        SaveError: It is none of these, no address that can be written to, or the upload fails.
        MissingDependencyError: The package for such addresses is not installed.
        OSError: The file could not be written.

    Example:
        >>> import io
        >>> buffer = io.BytesIO()
        >>> with whole_write(buffer) as file:
        ...     _ = file.write(b"PK")
        >>> buffer.getvalue()
        b'PK'
    """
    _check_not_mlflow(target)
    if is_url(target):
        remote.check_target(target)
        path = path_of(target)
        with remote.upload(target) if path is None else atomic_write(path) as file:
            yield file
    elif isinstance(target, str | os.PathLike):
        with atomic_write(target) as file:
            yield file
    else:
        _check_takes_bytes(target)
        with naming(tempfile.gettempdir()), tempfile.TemporaryFile(prefix="gymtrain-") as copy:
            yield copy
            copy.flush()
            copy.seek(0)
            with naming(name_of(target)):
                while chunk := copy.read(_CHUNK_BYTES):
                    _write_all(target, memoryview(chunk))


def _write_all(target: BinaryIO, data: memoryview) -> None:
    while data:
        written: object = target.write(data)  # files without a buffer may take less than all
        if written is not None and not (isinstance(written, int) and 0 < written <= len(data)):
            raise SaveError(f"<{type(target).__name__}>: of {len(data)} bytes write() says that it took {written!r}")
        data = data[len(data) if written is None else written :]


def _check_takes_bytes(target: object) -> None:
    is_closed = getattr(target, "closed", False) is True
    if is_closed or isinstance(target, io.TextIOBase) or not callable(getattr(target, "write", None)):
        got = f"<{type(target).__name__}>{', which is closed' if is_closed else ''}"
        raise SaveError(f"got {got}; expected a path, an address, or a file that is open for writing bytes")


def check_target(target: str | os.PathLike[str]) -> None:
    """See whether a bundle could be written to a path or an address, before the work is done and not after.

    Raises:
        SaveError: It is an address that cannot be written to.
        MissingDependencyError: The package for such addresses is not installed.
        OSError: It is a directory, or in none.
    """
    _check_not_mlflow(target)
    if is_url(target):
        remote.check_target(target)
    else:
        check_place(target)


def _check_not_mlflow(target: object) -> None:
    if is_of_mlflow(target):
        trackers = 'tracking={"trackers": [{"type": "mlflow"}]}'
        what = "a place in MLflow, where the tracker of a training puts its bundle"
        raise SaveError(f"{target!r} is {what}; train with {trackers}, or name a file")
