"""Archives that came from somewhere, zip and tar.gz: extracted whole or not at all, and to nowhere else."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gymtrain.errors import DataError

MOST_MEMBERS = 200_000
# What images compress to is near to what they are; small archives of zeros, as tests have them, are not.
MOST_GROWTH = 20
ALLOWANCE = 64 << 20

_BLOCK = 1 << 20


def extract(archive: Path, target: Path) -> None:
    """Extract a zip or a tar.gz into a directory, which appears when it is complete and replaces one that is there.

    Files and directories alone are taken, and only to below the directory: an archive with an absolute path, one that
    leads up, a link or a device is refused as a whole, as is one that holds more than 200,000 members or unpacks to
    more than 64 MiB and 20 times its own size.

    Args:
        archive: The file, whatever it is called.
        target: The directory.

    Raises:
        DataError: It is no archive, it is damaged, or it has what is refused.
        OSError: It cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with zipfile.ZipFile(folder / "pets.zip", "w") as file:
        ...     file.writestr("PetImages/README", "cats and dogs")
        >>> extract(folder / "pets.zip", folder / "pets")
        >>> (folder / "pets" / "PetImages" / "README").read_text()
        'cats and dogs'
    """
    beside = target.with_name(f"{target.name}.extracting")
    _remove(beside)
    beside.mkdir()
    try:
        _write_members(archive, beside)
        _swap(beside, target)
    finally:
        _remove(beside)


def _swap(new: Path, target: Path) -> None:
    old = target.with_name(f"{target.name}.old")
    _remove(old)
    if target.exists():
        target.rename(old)
    new.rename(target)
    _remove(old)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _write_members(archive: Path, directory: Path) -> None:
    with archive.open("rb") as file:
        room = _room(file)
        members = _zip_members if zipfile.is_zipfile(file) else _tar_members
        file.seek(0)
        read = members(file)
        for number in range(MOST_MEMBERS + 1):
            try:
                member = next(read, None)
            except Exception as error:  # damage shows as errors of all kinds
                raise DataError(f"{archive}: is no zip or tar.gz that can be read: {error}") from error
            if member is None:
                return
            if number == MOST_MEMBERS:
                break
            name, content = member
            room = _write(archive, directory / _place(archive, name), name, content, room)
    raise DataError(f"{archive}: holds more than {MOST_MEMBERS:,} members, which is refused")


def _zip_members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield the name and the content of each member; None for a directory."""
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{info.filename!r} is neither a file nor a directory")
            if info.filename.endswith("/"):
                yield info.filename, None
            else:
                with opened.open(info) as content:
                    yield info.filename, content


def _tar_members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes] | None]]:
    unpacked = _Bounded(gzip.GzipFile(fileobj=file), _room(file))
    with tarfile.open(fileobj=unpacked, mode="r|") as opened:
        for info in opened:
            if not info.isreg() and not info.isdir():
                raise ValueError(f"{info.name!r} is neither a file nor a directory")
            yield info.name, opened.extractfile(info)
    while unpacked.read(_BLOCK):  # up to where gzip has its check
        pass


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after so many bytes: headers of a tar can be as large as its members."""

    def __init__(self, stream: gzip.GzipFile, room: int) -> None:
        self._stream, self._room = stream, room

    def read(self, size: int = -1) -> bytes:
        if self._room < 0:
            raise ValueError(f"it unpacks to more than {MOST_GROWTH} times its size")
        block = self._stream.read(min(size, self._room + 1) if size >= 0 else self._room + 1)
        self._room -= len(block)
        return block


def _room(file: IO[bytes]) -> int:
    return MOST_GROWTH * os.fstat(file.fileno()).st_size + ALLOWANCE


def _place(archive: Path, name: str) -> str:
    parts = name.rstrip("/").split("/")
    if not name or any(part in ("", "..") or re.search(r"[\\:\0]", part) for part in parts):
        raise DataError(f"{archive}: the member {name!r} lies elsewhere or has a name that is not taken; it is refused")
    return "/".join(part for part in parts if part != ".")


def _write(archive: Path, place: Path, name: str, content: IO[bytes] | None, room: int) -> int:
    """Write a member; return how many bytes the others may have."""
    try:
        (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{archive}: the member {name!r} lies in what is a file, which is refused") from None
    if content is None:
        return room
    if place.exists():
        raise DataError(f"{archive}: holds {name!r} twice, which is refused")
    with place.open("xb") as file:
        while True:
            try:
                block = content.read(_BLOCK)
            except Exception as error:
                raise DataError(f"{archive}: the member {name!r} is damaged: {error}") from error
            if not block:
                return room
            room -= len(block)
            if room < 0:
                raise DataError(f"{archive}: it unpacks to more than {MOST_GROWTH} times its size, which is refused")
            file.write(block)
