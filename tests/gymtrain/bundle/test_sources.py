from __future__ import annotations

import hashlib
import io
import mmap
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import make_contents, read_all

from gymtrain.bundle import inspect, open_bundle, write
from gymtrain.errors import BundleError, SaveError


def in_a_zip(content: bytes) -> Any:
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.zip", content)
    return zipfile.ZipFile(outer).open("inner.zip")


IN_MEMORY: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "a part of bytes": lambda content: memoryview(b"PK" + content)[2:],
    "BytesIO": io.BytesIO,
    "a member of a zip": in_a_zip,
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_a_bundle_in_memory_is_read_like_a_file(kind: str, good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    given = IN_MEMORY[kind](good)

    assert read_all(given) == read_all(tmp_path / "good.zip")
    assert inspect(given) == inspect(tmp_path / "good.zip")


def test_an_open_file_is_read_wherever_it_stands_and_left_there(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    for mode, buffering in [("rb", -1), ("rb", 0), ("r+b", -1)]:
        with open(tmp_path / "good.zip", mode, buffering) as file:
            file.seek(7)

            assert open_bundle(file).readme == "# A model\n"
            assert (file.tell(), file.closed) == (7, False)


def test_weights_of_an_open_file_are_mapped_and_those_in_memory_are_copies(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    given = bytearray(good)
    with open(tmp_path / "good.zip", "rb") as file:
        bundles = [open_bundle(file), open_bundle(given)]

    for bundle in bundles:
        weights = bundle.weights()
        assert weights is not None
        for tensor in weights.values():
            tensor.data[:] = bytes(tensor.data.nbytes)
    assert bytes(given) == (tmp_path / "good.zip").read_bytes() == good
    del given[:]  # nothing holds on to it


def test_what_is_changed_in_a_file_before_it_is_flushed_is_read(good: bytes, tmp_path: Path):
    with open(tmp_path / "new.zip", "w+b") as file:
        file.write(good)

        assert open_bundle(file).readme == "# A model\n"


class Deaf(io.RawIOBase):
    """Can be read, but only once."""

    def readable(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            io.StringIO("PK"),
            r"^<StringIO> gives text; expected a path, bytes, or a file that is open for reading bytes",
        ),
        (Deaf(), r"^<Deaf> cannot be read: .*; expected a path"),
        (5, r"^<int> cannot be read: 'int' object has no attribute 'tell'"),
        (None, r"^<NoneType> cannot be read"),
    ],
)
def test_what_cannot_be_read_from_any_position_is_refused(given: Any, message: str):
    for read in (open_bundle, inspect):
        with pytest.raises(BundleError, match=message) as caught:
            read(given)
        assert caught.value.reason == "not_a_file"


def test_a_closed_file_is_refused(tmp_path: Path):
    file = (tmp_path / "new.zip").open("w+b")
    file.close()

    with pytest.raises(BundleError, match=r"new\.zip cannot be read: .* closed file"):
        open_bundle(file)


@pytest.mark.parametrize("length", [0, 2, 21, 500, -1])
def test_half_a_bundle_in_memory_is_refused_by_its_size(length: int, good: bytes):
    half = good[:length]

    with pytest.raises(BundleError, match=rf"^<bytes of {len(half)}>"):
        open_bundle(half)
    with pytest.raises(BundleError, match=r"^<BytesIO>"):
        inspect(io.BytesIO(half))


def test_a_digest_is_asked_of_every_kind_of_source(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    digest = hashlib.sha256(good).hexdigest()

    for given in (good, io.BytesIO(good), tmp_path / "good.zip"):
        for read in (open_bundle, inspect):
            assert read(given, sha256=digest.upper())
            with pytest.raises(BundleError, match=r"has SHA-256 [0-9a-f]{64}, expected 0000") as caught:
                read(given, sha256="0" * 64)
            assert caught.value.reason == "digest"


@pytest.mark.parametrize("sha256", ["", "abc", 5, b"0" * 64])
def test_what_is_no_digest_is_refused(sha256: Any, good: bytes):
    with pytest.raises(
        BundleError, match=rf"sha256: got {re.escape(repr(sha256))}; expected the 64 hexadecimal digits"
    ):
        open_bundle(good, sha256=sha256)


class Stream(io.RawIOBase):
    """Takes bytes and gives none, like a socket or a pipe."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(data)


def test_a_bundle_is_written_to_file_objects_at_their_position(tmp_path: Path):
    contents = make_contents()
    write(tmp_path / "file.zip", contents)
    expected = (tmp_path / "file.zip").read_bytes()
    buffer, stream = io.BytesIO(b"before"), Stream()
    buffer.seek(6)

    write(buffer, contents)
    write(stream, contents)

    assert buffer.getvalue() == b"before" + expected
    assert stream.taken == expected
    assert not buffer.closed


@pytest.mark.parametrize("target", [io.StringIO(), None, 5, b"x.zip"])
def test_what_takes_no_bytes_is_refused(target: Any):
    message = r"^got <\w+>; expected a path, an address, or a file that is open for writing bytes$"

    with pytest.raises(SaveError, match=message):
        write(target, make_contents())


@pytest.mark.parametrize("taken", [0, -5, "x", 10**9])
def test_a_file_that_does_not_say_how_much_it_takes_is_refused(taken: Any):
    class Odd(io.BytesIO):
        def write(self, data: Any) -> Any:
            return taken

    with pytest.raises(SaveError, match=rf"^<Odd>: of \d+ bytes write\(\) says that it took {taken!r}$"):
        write(Odd(), make_contents())


def test_a_mapped_file_of_another_kind_can_be_given(good: bytes):
    mapped = mmap.mmap(-1, len(good))
    mapped[:] = good

    assert open_bundle(mapped).readme == "# A model\n"


def test_a_file_object_is_the_callers_again_when_it_is_read_also_lazily(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    with open(tmp_path / "good.zip", "rb") as file:
        bundle = open_bundle(file, verify="lazy")

    assert bundle.verification is None
    assert bundle.weights() is not None
    with open_bundle(tmp_path / "good.zip", verify="lazy") as bundle:
        assert bundle.verification is not None


def test_a_file_that_takes_a_few_bytes_at_a_time_gets_all_of_them():
    class Narrow(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:100])
            return min(len(data), 100)

    target, whole = Narrow(), io.BytesIO()

    for file in (target, whole):
        write(file, make_contents())

    assert target.taken == whole.getvalue()
