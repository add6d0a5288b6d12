from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import Forge, Part, make_contents, read_all, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain.bundle import write
from gymtrain.errors import BundleError

KINDS = ("content", "splice", "headers", "shuffle", "rename", "method", "drop", "copy", "raw")


def outcome(data: bytes, path: Path) -> str | None:
    """The reason for which a file is refused; None where it is read. Anything else is an error of the test."""
    path.write_bytes(data)
    try:
        read_all(path)
    except BundleError as error:
        return error.reason
    return None


@pytest.mark.slow
def test_every_flipped_bit_is_detected_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "tiny.zip"
    write(path, make_contents(spec={}, schema={}, results={}, weights={}, selfcheck={}, preprocessors=(), versions={}))
    good = path.read_bytes()
    expected = read_all(path)

    accepted = set()
    for position in range(len(good)):
        for bit in range(8):
            flipped = good[:position] + bytes([good[position] ^ 1 << bit]) + good[position + 1 :]
            if outcome(flipped, tmp_path / "flipped.zip") is None:
                assert read_all(tmp_path / "flipped.zip") == expected
                accepted.add(position)

    # Deflate can say the same in several ways, and has padding at its end; nothing else may be changed in silence.
    with zipfile.ZipFile(path) as archive:
        manifest = archive.getinfo("manifest.json")
    start = manifest.header_offset + 30 + len(manifest.filename)
    assert accepted <= set(range(start, start + manifest.compress_size))


def test_every_cut_is_detected(good: bytes, tmp_path: Path):
    reasons = {outcome(good[:length], tmp_path / "cut.zip") for length in range(4, len(good), 7)}

    assert reasons == {"truncated"}


@pytest.fixture(scope="module")
def expected(good: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is in the good bundle. Its file is not the one that is mutated: tensors are maps of their file."""
    path = tmp_path_factory.mktemp("expected") / "good.zip"
    path.write_bytes(good)
    return read_all(path)


@settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_bundle_is_refused_or_reads_the_same(
    data: st.DataObject, good: bytes, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.getbasetemp() / "mutated.zip"
    forge = take_apart(good)
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(forge, data)

    if outcome(forge.pack(zip64=data.draw(st.booleans())), path) is None:
        read = read_all(path)
        assert read == expected | {"manifest": read["manifest"]}


@settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_bundle_with_a_true_manifest_is_refused_or_read(
    data: st.DataObject, good: bytes, tmp_path_factory: pytest.TempPathFactory
):
    forge = take_apart(good)
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(forge, data, kinds=["content", "splice", "shuffle", "rename", "method", "copy"], spared=b"manifest.json")

    reason = outcome(forge.seal().pack(), tmp_path_factory.getbasetemp() / "sealed.zip")

    assert reason not in ("digest", "corrupt", "header_mismatch", "truncated")


def mutate(forge: Forge, data: st.DataObject, kinds: Sequence[str] = KINDS, spared: bytes = b"") -> None:
    """Change one thing about one member."""
    part = data.draw(st.sampled_from([part for part in forge.parts if part.name != spared]))
    kind = data.draw(st.sampled_from(kinds))
    position = data.draw(st.integers(0, len(part.content)))
    if kind == "content":
        part.content = part.content[:position] + data.draw(st.binary(max_size=9)) + part.content[position + 1 :]
    elif kind == "splice":
        other = data.draw(st.sampled_from(forge.parts))
        part.content = part.content[:position] + other.content[data.draw(st.integers(0, len(other.content))) :]
    elif kind == "headers":
        field = data.draw(st.sampled_from(["crc", "size", "stored_size", "method", "flags", "time", "version"]))
        value = data.draw(st.integers(0, 65535))
        data.draw(st.sampled_from([part.local, part.central]))[field] = value
    elif kind == "shuffle":
        forge.parts = data.draw(st.permutations(forge.parts))
    elif kind == "rename":
        names = [other.name for other in forge.parts if other.name != spared]
        part.name = data.draw(st.sampled_from([*names, b"x", b"", b"model.skops"]))
    elif kind == "method":
        part.method = data.draw(st.sampled_from([0, 8]))
    elif kind == "drop" and len(forge.parts) > 1:
        forge.parts.remove(part)
    elif kind == "copy":
        forge.parts.insert(0, Part(part.name, part.content))
    else:
        part.raw = data.draw(st.binary(max_size=len(part.content)))
