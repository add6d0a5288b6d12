"""Files that somebody publishes: fetched once, checked, shared by all processes, there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from gymtrain.data.archives import extract
from gymtrain.data.transfer import PROGRESS, BrokenError, Patience, RangeError, blocks, opened, patiently
from gymtrain.errors import DataError, DownloadError

logger = logging.getLogger(__name__)

VARIABLE = "GYMTRAIN_MIRROR"
"""The environment variable that names a place that has the files of all publishers."""

_MOST_STATED = 4096


@dataclass(frozen=True)
class Download:
    """A file that somebody publishes.

    Args:
        path: Where it is on a mirror; its last part is its name, also at the publisher's.
        places: The addresses of the directories that have it, the one that is asked first in front.
        sha256: Its SHA-256, 64 hexadecimal digits.
        size: How many bytes it has.

    Example:
        >>> Download("shapes/train.gz", ("https://example.org/data",), "0" * 64, 100).name
        'train.gz'
    """

    path: str
    places: tuple[str, ...]
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.path.rpartition("/")[2]


def fetch(download: Download, folder: Path, *, force: bool = False, patience: Patience = Patience()) -> Path:
    """Return the path of a file, which is downloaded unless it is there.

    A download that broke off goes on where it was, in this process or a later one. Of several processes one downloads,
    and the others wait for it.

    Args:
        download: What is fetched. Where the environment variable `GYMTRAIN_MIRROR` is set, to an address of http, https
            or file, it comes from `$GYMTRAIN_MIRROR/<path>`; its SHA-256 is then the one in `<path>.sha256` there, in
            the form of sha256sum, or the publisher's where there is no such file.
        folder: Where it is kept, in a directory that is named by its SHA-256.
        force: Download it again.
        patience: How long a server is waited for.

    Raises:
        DownloadError: It cannot be fetched, or what came has another SHA-256.
        DataError: `GYMTRAIN_MIRROR` holds no address.
        OSError: It cannot be written; `filename` says where.
    """
    return _once(download, folder, download.name, os.replace, force, patience)


def fetch_archive(download: Download, folder: Path, *, force: bool = False, patience: Patience = Patience()) -> Path:
    """Return the directory that has what is in an archive, zip or tar.gz; the archive itself is not kept.

    Args:
        download: What is fetched; see `fetch`.
        folder: Where it is kept.
        force: Download it again.
        patience: How long a server is waited for.

    Raises:
        DownloadError: It cannot be fetched, or what came has another SHA-256.
        DataError: It is no archive that can be extracted, or `GYMTRAIN_MIRROR` holds no address.
        OSError: It cannot be written; `filename` says where.
    """
    return _once(download, folder, "files", _unpack, force, patience)


def _unpack(archive: Path, target: Path) -> None:
    with _said(f"extracting to {target}"):
        extract(archive, target)
    archive.unlink()


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Say on stderr what is done, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield


def _once(
    download: Download,
    folder: Path,
    name: str,
    finish: Callable[[Path, Path], object],
    force: bool,
    patience: Patience,
) -> Path:
    from filelock import FileLock

    origin = _origin(download, folder, name, force, patience)
    place = _place(folder, origin.sha256)
    target = place / name
    if target.exists() and not force:
        return target
    place.mkdir(parents=True, exist_ok=True)
    with _held(FileLock(place / f"{download.name}.lock"), download.name):
        if target.exists() and not force:  # another process was faster
            return target
        part = _Part(place / f"{download.name}.part")
        if force:
            part.remove()
        _download(origin, download, part, patience)
        finish(part.path, target)
        part.remove()
        origin.remember()
    return target


def _place(folder: Path, sha256: str) -> Path:
    return folder / sha256[:16]


@contextlib.contextmanager
def _held(lock: Any, name: str) -> Iterator[None]:
    """Hold a lock, and say so where another process has it."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: another process downloads it, and is waited for", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Origin:
    """Where a file is fetched from, and what it has to be.

    Args:
        urls: The addresses, in the order in which they are asked.
        sha256: Its SHA-256.
        note: The file in which what a mirror said is kept; None for the publisher's.
    """

    urls: tuple[str, ...]
    sha256: str
    note: Path | None = None

    def remember(self) -> None:
        """Keep what the mirror said, so that it is not asked again for a file that is there."""
        if self.note is not None:
            temporary = self.note.with_suffix(f".{os.getpid()}")
            temporary.write_text(self.sha256)
            os.replace(temporary, self.note)


def _origin(download: Download, folder: Path, name: str, force: bool, patience: Patience) -> _Origin:
    mirror = os.environ.get(VARIABLE)
    if not mirror:
        urls = tuple(f"{place.rstrip('/')}/{download.name}" for place in download.places)
        return _Origin(urls, download.sha256)
    _check_mirror(mirror)
    url = f"{mirror.rstrip('/')}/{download.path}"
    note = folder / f"mirror-{hashlib.sha256(url.encode()).hexdigest()[:16]}.sha256"
    known = _kept(note)
    if force or known is None or not (_place(folder, known) / name).exists():
        known = _stated(url, patience) or download.sha256
    return _Origin((url,), known, note)


def _check_mirror(mirror: str) -> None:
    parts = urlsplit(mirror)
    if parts.scheme not in {"http", "https", "file"} or parts.username or parts.query or parts.fragment:
        raise DataError(
            f"{VARIABLE}: got an address of {parts.scheme or 'no scheme'!r}; expected one such as "
            f"https://example.org/data or file:///srv/data, without a user, a query or a fragment"
        )


def _kept(note: Path) -> str | None:
    try:
        text = note.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def _stated(url: str, patience: Patience) -> str | None:
    """Return the SHA-256 that a mirror says a file has; None where it says nothing."""
    place = f"{url}.sha256"

    def ask() -> str | None:
        reply = opened(place, {}, patience)
        if reply is None:
            return None
        content = b""
        with reply:
            for block in blocks(place, reply, patience):
                content += block
                if len(content) > _MOST_STATED:
                    break
        return content.decode("ascii", "replace")

    answer = patiently(ask, place, patience)
    if answer is None:
        return None
    digest = answer.split(maxsplit=1)[0].lower().lstrip("\\") if answer.strip() else ""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise DownloadError(f"{place}: got {answer[:40]!r}; expected a line of sha256sum, which begins with 64 digits")
    return digest


class _Part:
    """What there is of a file so far, with a note of what it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def note(self, url: str) -> dict[str, Any]:
        """Return what is known of the whole, `validator` and `total`; without it, it cannot be gone on with."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == url else {}

    def begin(self, url: str, headers: Mapping[str, str], total: int | None) -> None:
        """Make it empty, and note what it becomes a part of."""
        self.path.write_bytes(b"")
        validator = headers.get("ETag") or ""
        if not validator or validator.startswith("W/"):  # says that the meaning is the same, not the bytes
            validator = headers.get("Last-Modified") or ""
        self._note.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _download(origin: _Origin, download: Download, part: _Part, patience: Patience) -> None:
    """Make a part whole, from the first of several places that has it."""
    failures = []
    for url in origin.urls:
        try:
            with _progress(download) as show:
                patiently(partial(_attempt, url, origin.sha256, download, part, show, patience), url, patience)
            return
        except DownloadError as error:
            failures.append(str(error))
    elsewhere = "" if origin.note else f"; a copy elsewhere can be named in the environment variable {VARIABLE}"
    raise DownloadError(f"{'; '.join(failures)}{elsewhere}")


class Show(Protocol):
    """Shows how much of a file is there."""

    def __call__(self, done: int, *, total: int | None) -> object:
        """Show it; `total` is None where the server says no length."""


def _attempt(url: str, sha256: str, download: Download, part: _Part, show: Show, patience: Patience) -> None:
    resumed = _transfer(url, download, part, show, patience)
    with part.path.open("r+b") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == sha256:
        return
    part.remove()
    if resumed:
        # Its beginning may be of another file.
        raise BrokenError("the parts do not fit together")
    raise DownloadError(
        f"{url}: what came has the SHA-256 {digest}, and is removed; expected {sha256}: it was damaged or replaced on "
        f"its way, or there is another file now"
    )


def _transfer(url: str, download: Download, part: _Part, show: Show, patience: Patience) -> bool:
    """Fetch what is missing of a part; return whether some of it was there."""
    note = part.note(url)
    done = part.size() if note else 0
    total = note.get("total")
    if done and done == total:
        return True
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and note.get("validator"):
        headers["If-Range"] = note["validator"]
    try:
        reply = opened(url, headers, patience)
    except RangeError:
        part.remove()
        raise BrokenError("the server does not have the rest of what there is") from None
    if reply is None:
        raise DownloadError(f"{url}: there is no such file, or it may not be read")
    with reply:
        if reply.status == http.client.PARTIAL_CONTENT:
            if not done or not _goes_on(reply.headers, done, total):
                part.remove()
                raise BrokenError("the server sends another part than the one asked for")
        else:
            done, total = 0, _length(reply.headers)
            part.begin(url, reply.headers, total)
        _check_room(part.path, total, done)
        # What says no length may be without an end.
        most = 2 * download.size if total is None else total
        _receive(url, reply, part.path, done, most, partial(show, total=total), patience)
    if total is not None and part.size() < total:
        got = part.size()
        raise BrokenError(f"the connection ended after {got} of {total} bytes", advanced=got - done >= PROGRESS)
    return done > 0


def _receive(
    url: str, reply: Any, path: Path, done: int, most: int, show: Callable[[int], object], patience: Patience
) -> None:
    """Append what comes to a file."""
    with _appending(path) as write:
        for block in blocks(url, reply, patience):
            done += len(block)
            if done > most:
                raise DownloadError(f"{url}: sends more than {most} bytes, which cannot be what is asked for")
            write(block)
            show(done)


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Append to a file, without a buffer: what is written is there when the process is killed."""

    def write(block: bytes) -> None:
        try:
            while block:
                block = block[file.write(block) :]
        except OSError as error:
            kept = f"{error.strerror}; what is there of it is kept, and the next try goes on from it"
            raise OSError(error.errno, kept, str(path)) from None

    with path.open("ab", buffering=0) as file:
        yield write


def _check_room(path: Path, total: int | None, done: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if total is not None and total - done > free:
        needed = f"needs {(total - done) >> 20} MiB and {free >> 20} MiB are free"
        what = f"No space left on device: the download {needed}; what is there of it is kept"
        raise OSError(errno.ENOSPC, what, str(path))


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length") or ""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _goes_on(headers: Mapping[str, str], done: int, total: int | None) -> bool:
    """Tell whether a reply begins where a part ends, and is of a file of the same length."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", headers.get("Content-Range") or "")
    return found is not None and int(found[1]) == done and (total is None or found[2] in {"*", str(total)})


@contextlib.contextmanager
def _progress(download: Download) -> Iterator[Show]:
    """Show a bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, *, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(download.name, total=download.size)
        yield lambda done, *, total: progress.update(task, completed=done, total=total)
