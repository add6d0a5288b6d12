"""Bundles that lie elsewhere: downloaded into a file that nobody else sees, or written here whole and then uploaded.

Only addresses that the caller gives come here; none that stands in a bundle does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from gymtrain.bundle.addresses import PACKAGES, WEB, fault_of, path_of, scheme_of, shown, without_secrets
from gymtrain.bundle.format import MAX_FILE_BYTES
from gymtrain.errors import BundleError, MissingDependencyError, SaveError, naming

_CHUNK_BYTES = 1 << 20
# A server that sends a byte now and then is never silent, and never done.
_PATIENCE = 60.0  # seconds
_SLOWEST = 1000.0  # bytes per second, on average


def local_path(url: str) -> str | None:
    """Return the path that an address to read from names; None where it is of another machine, for `download`.

    Raises:
        BundleError: `not_a_file`: it is no address that bundles are read from.
    """
    if (fault := fault_of(url)) is not None:
        raise BundleError(fault, reason="not_a_file")
    return path_of(url)


def check_target(url: str) -> None:
    """See whether a bundle could be written to an address, before the work is done and not after.

    Raises:
        SaveError: It is no address that can be written to.
        MissingDependencyError: The package for such addresses is not installed.
    """
    if (fault := fault_of(url)) is not None:
        raise SaveError(fault)
    if scheme_of(url) in WEB:
        raise SaveError(f"{shown(url)}: nothing is written to web servers; name a path, or a store such as s3://")
    if url.endswith("/"):
        raise SaveError(f"{shown(url)} is a directory; name a file in it")
    if path_of(url) is None:
        _filesystem(url)


def download(url: str, file: BinaryIO) -> None:
    """Download a bundle into a file.

    Args:
        url: An address for which `local_path` returns None.
        file: Open for writing bytes.

    Raises:
        BundleError: `not_fetched` (there is no such file, or it cannot be had) or `too_large`.
        MissingDependencyError: The package for such addresses is not installed.
        OSError: It cannot be written here, for a full disk.
    """
    with _not_fetched(url):
        stream, announced = _opened(url)
    with contextlib.closing(stream):
        _copy(url, stream, announced, file)
    file.flush()


@contextlib.contextmanager
def upload(url: str) -> Iterator[BinaryIO]:
    """Open a file here that is uploaded when the block ends without an error.

    Args:
        url: An address that `check_target` lets pass.

    Yields:
        The file, open for writing and seekable.

    Raises:
        SaveError: The upload fails.
        MissingDependencyError: The package for such addresses is not installed.
    """
    filesystem, path = _filesystem(url)
    with tempfile.TemporaryDirectory(prefix="gymtrain-") as directory:
        local = os.path.join(directory, "bundle.zip")
        with naming(tempfile.gettempdir()), open(local, "xb") as file:
            yield file
            file.flush()
        try:
            filesystem.put_file(local, path)
        except Exception as error:  # each library has its own
            raise SaveError(f"{shown(url)}: cannot be written: {type(error).__name__}: {error}") from error


def _opened(url: str) -> tuple[IO[bytes], int | None]:
    """Open a stream, and say how many bytes are announced."""
    if scheme_of(url) in WEB:
        from gymtrain.bundle.web import open_url  # takes longer to import than a small bundle to read

        return open_url(url)
    filesystem, path = _filesystem(url)
    filesystem.invalidate_cache()  # what it was told of a file before may not be true any more
    stream = filesystem.open(path, "rb")
    return stream, getattr(stream, "size", None)


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that an address lies in, and the path there.

    Raises:
        MissingDependencyError: Its package is not installed.
    """
    package, extra = PACKAGES.get(scheme_of(url), ("fsspec", None))
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import get_filesystem_class

        get_filesystem_class(scheme_of(url))
    except ImportError as error:
        command = "pip install fsspec" if extra is None else f"pip install 'gymtrain[{extra}]'"
        message = f"{shown(url)}: the package {package!r} is not installed; install it with: {command}"
        raise MissingDependencyError(message) from error
    filesystem, path = url_to_fs(url)
    return filesystem, path


def _copy(url: str, stream: IO[bytes], announced: int | None, file: BinaryIO) -> None:
    """Copy a stream up to its end, whatever it announces, and no more than a bundle may have."""
    if announced is not None and announced > MAX_FILE_BYTES:
        message = f"{shown(url)}: {announced} bytes, and {MAX_FILE_BYTES} are allowed"
        raise BundleError(message, reason="too_large")
    received, began = 0, time.monotonic()
    while chunk := _read(url, stream):
        received += len(chunk)
        if received > MAX_FILE_BYTES:
            message = f"{shown(url)}: more than the {MAX_FILE_BYTES} bytes that are allowed"
            raise BundleError(message, reason="too_large")
        seconds = time.monotonic() - began
        if seconds > _PATIENCE and received < seconds * _SLOWEST:
            message = f"{shown(url)}: gave up, because less than {_SLOWEST:.0f} bytes a second came; try again"
            raise BundleError(message, reason="not_fetched")
        with naming(tempfile.gettempdir()):
            file.write(chunk)
    if announced is not None and received < announced:
        message = f"{shown(url)}: the connection ended after {received} of {announced} bytes; try again"
        raise BundleError(message, reason="not_fetched")


def _read(url: str, stream: IO[bytes]) -> bytes:
    with _not_fetched(url):
        # What has come, where that can be had: to wait for all of it would take as long as the other side likes.
        chunk: bytes = getattr(stream, "read1", stream.read)(_CHUNK_BYTES)
        return chunk


@contextlib.contextmanager
def _not_fetched(url: str) -> Iterator[None]:
    """Tell in one way what each library tells in its own."""
    try:
        yield
    except (BundleError, MissingDependencyError):
        raise
    except Exception as error:  # of urllib, http, ssl, and of each library under fsspec
        reason = getattr(error, "reason", None) or error  # urllib wraps what is wrong
        message = f"{shown(url)}: cannot be read: {type(reason).__name__}: {without_secrets(str(reason), url)}"
        raise BundleError(message, reason="not_fetched") from None  # whose text may hold the secrets
