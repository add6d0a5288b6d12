"""Disks that fail and processes that die: file operations that are recorded, refused, cut short or the last ones.

`Interposer` stands between Python and the system calls of this process; `strace_log` and `operations_of` see the system
calls themselves, where strace is installed. Either gives `Operation`s, from which `crash_states` works out what a power
cut may leave on a disk.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

FILE_SYSTEM_CALLS = ("mkdir", "unlink", "remove", "rename", "replace", "chmod")


class Operation(NamedTuple):
    """One operation on files: what, where, and for a write, which bytes at which place."""

    kind: str
    path: str
    offset: int = 0
    data: bytes = b""
    target: str = ""


class Interposer:
    """While this is entered, shows each operation on some files to a function, before it is done.

    Args:
        watched: Which paths are meant.
        before: Given the number of the operation, from 1, and the operation. It may raise, kill the process, or return
            how many bytes of a write are to be written; None for all of them.
    """

    def __init__(self, watched: Callable[[str], bool], before: Callable[[int, Operation], int | None]) -> None:
        self._watched, self._before = watched, before
        self._lock = threading.Lock()
        self._count = 0
        self._paths: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in (*FILE_SYSTEM_CALLS, "open", "write", "fsync", "close")}
        self._open = builtins.open

    def __enter__(self) -> Interposer:
        builtins.open = io.open = self._open_file  # type: ignore[assignment]
        for name in FILE_SYSTEM_CALLS:
            setattr(os, name, self._named(name))
        os.open, os.write, os.fsync, os.close = self._os_open, self._write, self._fsync, self._close
        return self

    def __exit__(self, *_: object) -> None:
        builtins.open = io.open = self._open  # type: ignore[assignment]
        for name, function in self._real.items():
            setattr(os, name, function)

    def about_to(self, operation: Operation) -> int | None:
        with self._lock:
            self._count += 1
            count = self._count
        return self._before(count, operation)

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = isinstance(file, str | os.PathLike) and set(mode) & set("wxa") and self._watched(os.fspath(file))
        if not writes:
            return self._open(file, mode, *args, **kwargs)
        self.about_to(Operation("create", os.fspath(file)))
        raw = _File(self, os.fspath(file), mode.replace("b", "").replace("t", ""))
        self._paths[raw.fileno()] = os.fspath(file)
        if (args[0] if args else kwargs.get("buffering")) == 0:
            return raw
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=kwargs.get("encoding"))

    def _named(self, name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | os.PathLike) and self._watched(os.fspath(path)):
                target = os.fspath(args[0]) if name in ("rename", "replace") else ""
                kind = {"remove": "unlink", "replace": "rename"}.get(name, name)
                self.about_to(Operation(kind, os.fspath(path), target=target))
            return self._real[name](path, *args, **kwargs)

        return call

    def _os_open(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        watched = isinstance(path, str | os.PathLike) and self._watched(os.fspath(path))
        if watched and flags & os.O_CREAT:
            self.about_to(Operation("create", os.fspath(path)))
        descriptor: int = self._real["open"](path, flags, *args, **kwargs)
        if watched:
            self._paths[descriptor] = os.fspath(path)
        return descriptor

    def _write(self, descriptor: int, data: Any) -> int:
        if descriptor in self._paths:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
            size = self.about_to(Operation("write", self._paths[descriptor], offset, bytes(data)))
            data = memoryview(data).cast("B")[:size]
        written: int = self._real["write"](descriptor, data)
        return written

    def _fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if number in self._paths:
            self.about_to(Operation("fsync", self._paths[number]))
        self._real["fsync"](descriptor)

    def _close(self, descriptor: int) -> None:
        path = self._paths.pop(descriptor, None)
        self._real["close"](descriptor)
        if path is not None:
            self.about_to(Operation("close", path))


class _File(io.FileIO):
    def __init__(self, interposer: Interposer, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._interposer, self._path = interposer, path

    def write(self, data: Any) -> int:
        size = self._interposer.about_to(Operation("write", self._path, self.tell(), bytes(data)))
        return super().write(memoryview(data).cast("B")[:size])

    def close(self) -> None:
        if not self.closed:
            self._interposer._paths.pop(self.fileno(), None)
            super().close()  # the file is closed, whatever the system says of it
            self._interposer.about_to(Operation("close", self._path))


def failing(at: int, number: int, kinds: tuple[str, ...] = ("write",)) -> Callable[[int, Operation], None]:
    """Return what makes the n-th operation of some kinds fail with an error of the system; the others work."""
    seen = 0

    def before(count: int, operation: Operation) -> None:
        nonlocal seen
        seen += operation.kind in kinds
        if operation.kind in kinds and seen == at:
            raise OSError(number, os.strerror(number))

    return before


def dying(at: int) -> Callable[[int, Operation], None]:
    """Return what kills this process before the n-th operation; in the middle of it, where it is a write."""

    def before(count: int, operation: Operation) -> None:
        if count == at and operation.kind == "write":
            descriptor = os.open(operation.path, os.O_WRONLY)
            os.pwrite(descriptor, operation.data[: len(operation.data) // 2], operation.offset)
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


class _Inode:
    def __init__(self, content: bytes = b"") -> None:
        self.durable = content
        self.pending: list[tuple[int, bytes]] = []

    def content(self, writes: int) -> bytes:
        content = bytearray(self.durable)
        for offset, data in self.pending[:writes]:
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
        return bytes(content)


def crash_states(before: dict[str, bytes], operations: list[Operation]) -> Iterator[dict[str, bytes]]:
    """Yield what a disk may hold after a power cut, in the order of time.

    What was not flushed is there up to any point: of the writes to files, and of the changes of directories,
    independently of each other. What was flushed is there.

    Args:
        before: The content of each file that is on the disk at the beginning, by its path.
        operations: What was done then.
    """
    durable = {path: _Inode(content) for path, content in before.items()}
    now = dict(durable)
    changes: list[dict[str, _Inode]] = []  # the directories after each change that was not flushed
    for operation in operations:
        path = operation.path
        if operation.kind == "create":  # or emptied, which takes what was there with it
            now.setdefault(path, _Inode())
            now[path].durable, now[path].pending = b"", []
        elif operation.kind == "rename":
            now[operation.target] = now.pop(path)
        elif operation.kind == "unlink":
            now.pop(path, None)
        elif operation.kind == "write":
            now[path].pending.append((operation.offset, operation.data))
        elif operation.kind == "fsync" and path in now:
            now[path].durable, now[path].pending = now[path].content(len(now[path].pending)), []
        elif operation.kind == "fsync":  # a directory: in this journal the changes of others come with it
            durable, changes = dict(now), []
        if operation.kind in ("create", "rename", "unlink"):
            changes.append(dict(now))
        for names in (durable, *changes):
            for writes in range(1 + max((len(inode.pending) for inode in names.values()), default=0)):
                yield {name: inode.content(writes) for name, inode in names.items()}


_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) = (?P<result>-?\d+)(?P<rest>.*)$")
_UNFINISHED = re.compile(r"^(?P<thread>\d+) +(?P<text>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<text>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"^\d+<((?:\\x[0-9a-f]{2}|[^>])*)>")


class Call(NamedTuple):
    """A system call that succeeded: by which thread, the how many-eth of its name there, and the files it is about."""

    thread: int
    name: str
    ordinal: int
    texts: list[bytes]
    file: str
    arguments: str
    result: int

    @property
    def changes_files(self) -> bool:
        """Whether it does; a kill before one that does not leaves what a kill before the next that does leaves."""
        names = ("write", "fsync", "fdatasync", "chmod", "fchmod", "close", "ftruncate", "copy_file_range", "sendfile")
        renaming = self.name.startswith(("rename", "unlink", "mkdir", "pwrite", "writev"))
        return self.name in names or renaming or "O_CREAT" in self.arguments


def calls_of(log: str) -> Iterator[Call]:
    """Read what `strace -f -y -xx` has written."""
    begun: dict[str, str] = {}
    counts: dict[tuple[str, str], int] = {}
    for line in log.splitlines():
        if match := _UNFINISHED.match(line):
            begun[match["thread"]] = match["text"]
            continue
        if match := _RESUMED.match(line):
            line = f"{match['thread']} {begun.pop(match['thread'], '')}{match['text']}"
        if match := _CALL.match(line):
            key = match["thread"], match["name"]
            counts[key] = counts.get(key, 0) + 1
            arguments = match["arguments"]
            file = _FILE.match(arguments)
            texts = [_plain(text) for text in _TEXT.findall(arguments)]
            named = os.fsdecode(_plain(file[1])) if file else os.fsdecode(texts[0]) if texts else ""
            yield Call(int(match["thread"]), match["name"], counts[key], texts, named, arguments, int(match["result"]))


def _plain(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())


def operations_of(calls: list[Call]) -> list[Operation]:
    """Return what the system calls did to files, in their order; those that failed are left out."""
    operations: list[Operation] = []
    positions: dict[str, int] = {}
    for call in (call for call in calls if call.result >= 0):
        named = [os.fsdecode(text) for text in call.texts]
        if call.name in ("open", "openat", "creat") and "O_CREAT" in call.arguments:
            operations.append(Operation("create", named[0]))
            positions[named[0]] = 0
        elif call.name == "lseek":
            positions[call.file] = call.result
        elif call.name == "write":
            offset = positions.get(call.file, 0)
            operations.append(Operation("write", call.file, offset, call.texts[0][: call.result]))
            positions[call.file] = offset + call.result
        elif call.name in ("fsync", "fdatasync"):
            operations.append(Operation("fsync", call.file))
        elif call.name in ("rename", "renameat", "renameat2"):
            operations.append(Operation("rename", named[0], target=named[1]))
        elif call.name in ("unlink", "unlinkat"):
            operations.append(Operation("unlink", named[0]))
        elif call.name in ("pwrite64", "writev", "ftruncate", "copy_file_range", "sendfile"):
            raise AssertionError(f"{call.name} is not replayed yet")
    return operations


DISK_ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO")}


def names_below(directory: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob(pattern))


def fill(directory: Path) -> None:
    """Leave no byte free on a disk."""
    with contextlib.suppress(OSError), open(directory / "ballast", "wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
