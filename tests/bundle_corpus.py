"""Files that somebody made to do harm, each with the reason with which it must be refused.

The numbers H01 to H52 name families: containers, JSON, tensors. A case is made from the bytes of a good bundle.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from bundle_forge import ALL_ONES, Forge, Part, take_apart

Build = Callable[[Forge], Forge | bytes]

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
WEIGHTS = "weights.safetensors"


def tar_of(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("model")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def many(forge: Forge, count: int) -> bytes:
    forge.parts += [Part(b"x%d" % index, b"") for index in range(count)]
    return forge.pack(count=min(len(forge.parts), 0xFFFF), count_here=min(len(forge.parts), 0xFFFF))


def nested(forge: Forge, outer: str, inner: str) -> bytes:
    """A member whose content has the header and the content of another one in it, quoted as it were."""
    alone = Forge([forge.part(inner)]).pack()
    content = alone[: alone.index(b"PK\1\2")]
    forge.replace(outer, content)
    forge.part(inner).written = False
    return forge.change(inner, central={"offset": forge.pack().index(content)}).pack()


def misaligned(forge: Forge, name: str) -> bytes:
    forge.part(name).aligned = False
    return forge.pack()


def without_local_header(forge: Forge) -> bytes:
    """The second member has no signature before it."""
    packed = forge.pack()
    start = packed.index(b"PK\3\4", 1)
    return packed[:start] + b"PK\3\5" + packed[start + 4 :]


def flipped(forge: Forge, name: str) -> bytes:
    """One bit of content changed, with all checksums left as they were."""
    part = forge.part(name)
    part.raw = bytes([part.content[0] ^ 1]) + part.content[1:]
    return forge.pack()


def swapped(forge: Forge, name: str) -> bytes:
    """One bit of content changed, with the CRC made right and the digest left as it was."""
    part = forge.part(name)
    part.content = bytes([part.content[0] ^ 1]) + part.content[1:]
    return forge.pack()


def missing(forge: Forge, *names: str) -> bytes:
    for name in names:
        forge.remove(name)
    return (forge if "manifest.json" in names else forge.seal()).pack()


def listed(forge: Forge, name: str, **changes: object) -> bytes:
    members = forge.manifest()["members"]
    members[name] = members[name] | changes
    return forge.set_manifest(members=members).pack()


def without(forge: Forge, key: str) -> bytes:
    fields = {name: value for name, value in forge.manifest().items() if name != key}
    forge.part("manifest.json").content = json.dumps(fields).encode()
    return forge.pack()


def manifest(forge: Forge, content: bytes) -> bytes:
    forge.part("manifest.json").content = content
    return forge.pack()


def hidden(forge: Forge) -> bytes:
    """A member that the directory does not have."""
    packed = forge.add("schema.json").pack()
    start = packed.index(b"PK\1\2")
    length = 46 + len("schema.json")
    end = struct.unpack("<4s4H2IH", packed[-22:])
    end_record = struct.pack("<4s4H2IH", *end[:3], end[3] - 1, end[4] - 1, end[5] - length, *end[6:])
    return packed[:start] + packed[start + length : -22] + end_record


def inflating(forge: Forge, raw: bytes | None = None, size: int | None = None) -> bytes:
    forge.deflate("model.skops", bytes(range(256)) + bytes(40)).part("model.skops").raw = raw
    return forge.pack() if size is None else listed(forge.change("model.skops", size=size), "model.skops", size=size)


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([None, {}]), allow_pickle=True)
    return file.getvalue()


ALL = ("spec.json", "schema.json", "results.json", "model.json", "model.skops", WEIGHTS, "README.md")

NOT_A_BUNDLE: list[tuple[str, str, Build]] = [
    ("H01 empty", "is not a zip", lambda _: b""),
    ("H01 one byte", "is not a zip", lambda _: b"P"),
    ("H01 text", "is not a zip", lambda _: b"hello " * 100),
    ("H01 PNG", "is not a zip", lambda _: PNG + bytes(500)),
    ("H01 tar", "is not a zip", lambda _: tar_of(b"x")),
    ("H01 gzip", "is not a zip", lambda f: gzip.compress(f.pack())),
    ("H01 7z", "is not a zip", lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(500)),
    ("H01 HDF5", "is not a zip", lambda _: b"\x89HDF\r\n\x1a\n" + bytes(500)),
    ("H01 pickle", "is not a zip", lambda _: pickle.dumps({"a": 1})),
    ("H01 empty zip", "is not a zip", lambda _: zip_of()),
    ("H01 .pt", "has no manifest.json", lambda _: zip_of("archive/data.pkl", "archive/version")),
    ("H01 .keras", "has no manifest.json", lambda _: zip_of("metadata.json", "config.json", "model.weights.h5")),
    ("H01 .skops", "has no manifest.json", lambda _: zip_of("schema.json", "1.npy")),
    ("H01 sparse", "is not a zip", lambda _: bytes(1 << 20)),
]
POLYGLOT: list[tuple[str, str, Build]] = [
    ("H03 script before", "bytes before", lambda f: b"#!/bin/sh\nexit\n" + f.pack()),
    ("H03 script before, offsets right", "bytes before", lambda f: b"#!/bin/sh\n" + f.pack(shift=10)),
    ("H03 MZ before", "bytes before", lambda f: b"MZ" + bytes(100) + f.pack()),
    ("H03 PNG before", "bytes before", lambda f: PNG + f.pack()),
    ("H04 script after", "bytes or a comment after", lambda f: f.pack() + b"<script>"),
    ("H04 zeros after", "bytes or a comment after", lambda f: f.pack() + bytes(5000)),
    ("H04 comment", "bytes or a comment after", lambda f: f.pack(comment=b"hello")),
    ("H04 second archive after", "directory is not where", lambda f: f.pack() + zip_of("manifest.json")),
]
TRUNCATED: list[tuple[str, str, Build]] = [
    (f"H02 {percent} %", "the end is missing", lambda f, p=percent: f.pack()[: len(f.pack()) * p // 100])
    for percent in (1, 25, 50, 75, 99)
] + [
    ("H02 no end record", "the end is missing", lambda f: f.pack()[:-22]),
    ("H02 one byte", "the end is missing", lambda f: f.pack()[:-1]),
]
NAMES: list[tuple[str, str, Build]] = [
    (f"name {name[:20]!r}", "member name .* is not letters", lambda f, n=name: f.add(n))
    for name in (
        "../spec.json",
        "/spec.json",
        "C:\\spec.json",
        "\\\\srv\\x",
        "preprocessors\\000.json",
        "a/../spec.json",
        "./spec.json",
        "spec.json\0.png",
        "spec.json\n",
        "\x1b[2Jspec.json",
        "\u202ejson.ceps",
        "",
        ".",
        "..",
        "a//b",
        "spec.json ",
        "spec\u0307.json",
        "\uff53pec.json",
        "~/x",
        "x" * 10_000,
        b"\xff\xfe",
    )
] + [
    ("H06 case", "but for case", lambda f: f.add("SPEC.json")),
    ("H06 both added", "but for case", lambda f: f.add("a.TXT").add("A.txt")),
]
OVERLAPS: list[tuple[str, str, Build]] = [
    ("H07 a member in a member", "begins before the end", lambda f: nested(f, "model.skops", "README.md")),
    (
        "H07 directory in a member",
        "begins before the end",
        lambda f: f.change(
            "manifest.json",
            size=len(f.part("manifest.json").content) + 40,
            stored_size=len(f.part("manifest.json").content) + 40,
        ),
    ),
    ("H08 one body", "share one place", lambda f: f.change("schema.json", central={"offset": 0})),
]
TYPES: list[tuple[str, str, Build]] = [
    (f"H15 {kind}", "has attributes", lambda f, mode=mode: f.change("spec.json", central={"external": mode << 16}))
    for kind, mode in {"symlink": 0o120777, "device": 0o020644, "pipe": 0o010644, "setuid": 0o104755, "none": 0}.items()
] + [
    ("H15 DOS directory", "has attributes", lambda f: f.change("spec.json", central={"external": 0x10})),
    ("H15 directory by name", "'preprocessors/' is a directory", lambda f: f.add("preprocessors/", b"")),
]
COMPRESSED: list[tuple[str, str, Build]] = [
    ("H17 deflated 1000:1", "32-fold", lambda f: f.deflate("model.skops", bytes(10 << 20))),
    ("H17 deflated tensors", "expected stored", lambda f: f.deflate(WEIGHTS, f.part(WEIGHTS).content)),
] + [
    (f"H17 method {number}", f"compression method {number}", lambda f, n=number: f.change("spec.json", method=n))
    for number in (1, 9, 12, 14, 93, 99)
]
HEADERS: list[tuple[str, str, Build]] = [
    *[
        (
            f"H10 {where} {field}",
            "contradicts the directory|that bundles are not written with|fewer members|ZIP64",
            lambda f, where=where, changed={field: value}: f.change("spec.json", **{where: changed}),
        )
        for where in ("local", "central")
        for field, value in {
            "crc": 1,
            "size": 5,
            "stored_size": 5,
            "method": 8,
            "flags": 8,
            "time": 1,
            "date": 1,
            "version": 46,
        }.items()
    ],
    (
        "H09 another local name",
        "contradicts the directory",
        lambda f: f.change("spec.json", local={"name": b"spec.jsoN"}),
    ),
    ("H10 flags in both", "not written with", lambda f: f.change("spec.json", flags=0x800)),
    ("H10 sizes that differ, stored", "not written with", lambda f: f.change("spec.json", size=5)),
    ("H10 member comment", "not written with", lambda f: f.change("spec.json", central={"comment": b"x"})),
    ("H10 made by another system", "not written with", lambda f: f.change("spec.json", central={"made_by": 20})),
    ("H10 extra field", "extra field", lambda f: f.change("spec.json", extra=b"up\4\0abcd")),
    ("H10 half an extra field", "extra field", lambda f: f.change("spec.json", extra=b"\x35\xd9\xff")),
    (
        "H10 content in the alignment",
        "not written with",
        lambda f: f.change("spec.json", extra=b"\x35\xd9\4\0\x40\0hi"),
    ),
    ("H10 tensors that are not aligned", "expected a multiple of 64", lambda f: misaligned(f, WEIGHTS)),
    ("H11 no local header", "no member at byte", without_local_header),
    ("H11 fewer members than there are", "more in it", lambda f: f.pack(count=3, count_here=3)),
    ("H11 more members than there are", "fewer members", lambda f: f.pack(count=30, count_here=30)),
    ("H11 other counts by disk", "split", lambda f: f.pack(count_here=1)),
    ("H11 split", "split", lambda f: f.pack(disk=1, start_disk=1)),
    ("H11 directory elsewhere", "not where the end", lambda f: f.pack(start=0)),
    ("H11 directory of another length", "not where the end", lambda f: f.pack(length=1)),
    ("H11 directory beyond the end", "not where the end", lambda f: f.pack(start=ALL_ONES)),
    ("H11 a gap", "leaves a gap", lambda f: hidden(f)),
    ("H12 ZIP64 count", "ZIP64", lambda f: f.pack(zip64=True, record={"count": 1})),
    ("H12 ZIP64 count by disk", "ZIP64", lambda f: f.pack(zip64=True, record={"count_here": 1})),
    ("H12 ZIP64 start", "ZIP64", lambda f: f.pack(zip64=True, record={"start": 0})),
    ("H12 ZIP64 length", "ZIP64", lambda f: f.pack(zip64=True, record={"length": 1})),
    ("H12 ZIP64 size of record", "ZIP64", lambda f: f.pack(zip64=True, record={"size": 45})),
    ("H12 ZIP64 disk", "ZIP64", lambda f: f.pack(zip64=True, record={"disk": 1})),
    ("H12 ZIP64 version", "ZIP64", lambda f: f.pack(zip64=True, record={"version": 46})),
    ("H12 ZIP64 locator", "ZIP64", lambda f: f.pack(zip64=True, locator={"offset": 0})),
    ("H12 ZIP64 disks", "ZIP64", lambda f: f.pack(zip64=True, locator={"disks": 2})),
    ("H12 end record says less", "ZIP64", lambda f: f.pack(zip64=True, count=1)),
    ("H12 end record split", "ZIP64", lambda f: f.pack(zip64=True, disk=1)),
    (
        "H12 ZIP64 and far away",
        "ZIP64|not where",
        lambda f: f.pack(zip64=True, record={"start": 2**63}, start=ALL_ONES),
    ),
    ("H12 ZIP64 field for nothing", "ZIP64 field", lambda f: f.change("spec.json", extra=struct.pack("<HHQ", 1, 8, 1))),
    ("H12 no ZIP64 field", "ZIP64 field", lambda f: f.change("spec.json", size=ALL_ONES)),
]
MANIFESTS: list[tuple[str, str, Build]] = [
    ("H40 no versions", "missing 'versions'", lambda f: without(f, "versions")),
    ("H40 versions by number", "expected text", lambda f: f.set_manifest(versions={"torch": 2})),
    ("H40 created a number", "expected text", lambda f: f.set_manifest(created=1)),
    ("H40 weights unknown", "'weights' is not one of 'best', 'last'", lambda f: f.set_manifest(weights="x")),
    ("H40 weights a list", "'weights' is not one of", lambda f: f.set_manifest(weights=[])),
    ("H40 members a list", "'members' is not an object", lambda f: f.set_manifest(members=[])),
    ("H40 a member null", "expected 'size'", lambda f: f.set_manifest(members={"spec.json": None})),
    ("H40 a member with more", "expected 'size'", lambda f: listed(f, "spec.json", more=1)),
    ("H34 size true", "expected 'size'", lambda f: listed(f, "spec.json", size=True)),
    ("H34 size 1.5", "expected 'size'", lambda f: listed(f, "spec.json", size=1.5)),
    ("H34 size as text", "expected 'size'", lambda f: listed(f, "spec.json", size="64")),
    ("H40 digest too short", "expected 'size'", lambda f: listed(f, "spec.json", sha256="00")),
    ("H40 digest a number", "expected 'size'", lambda f: listed(f, "spec.json", sha256=0)),
    ("H40 spec a list", "got a list", lambda f: f.replace("spec.json", b"[]")),
    ("H40 schema null", "got a NoneType", lambda f: f.replace("schema.json", b"null")),
]
JSON: list[tuple[str, str, Build]] = [
    (f"{number} {name}", message, lambda f, n=name, c=content: f.replace(n, c))
    for name in ("spec.json", "preprocessors/000.json")
    for number, content, message in (
        ("H35", b'{"a": 1, "a": 2}', "occurs twice"),
        ("H36", b'{"a": NaN}', "NaN is not"),
        ("H36", b'{"a": Infinity}', "Infinity is not"),
        ("H37", b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "nested deeper"),
        ("H37", b"[" * 100_000, "nested deeper"),
        ("H39", b"\xef\xbb\xbf{}", "BOM"),
        ("H39", "{}".encode("utf-16"), "invalid start byte"),
        ("H39", b'{"a": "\xc3("}', "invalid continuation byte"),
        ("H39", b'{"a": "\\ud800"}', "surrogates"),
        ("H51", pickle.dumps({}), "invalid start byte"),
    )
] + [
    ("H35 manifest", "occurs twice", lambda f: manifest(f, b'{"format": "gymtrain-bundle", "format": "x"}')),
    ("H37 manifest", "nested deeper", lambda f: manifest(f, b"[" * 100_000)),
    ("H39 README", "invalid start byte", lambda f: f.replace("README.md", b"\xff")),
]
TOO_LARGE: list[tuple[str, str, Build]] = [
    ("H38 2 MiB of spec", "more than the 1048576", lambda f: f.replace("spec.json", b" " * (2 << 20))),
    (
        "H38 a string of 10 MB",
        "more than the 1048576",
        lambda f: f.replace("spec.json", b'{"a":"' + b"x" * 10**7 + b'"}'),
    ),
    ("H38 2 MiB of manifest", "more than the 1048576", lambda f: manifest(f, b" " * (2 << 20))),
    ("H38 17 MiB of results", "more than the 16777216", lambda f: f.replace("results.json", b" " * (17 << 20))),
    (
        "H38 a million keys",
        "values, more than the 500000",
        lambda f: f.replace("results.json", b"{" + b",".join(b'"%d":1' % index for index in range(1_000_000)) + b"}"),
    ),
    ("H38 5000 digits", "5000 digits", lambda f: f.replace("spec.json", b'{"a":' + b"9" * 5000 + b"}")),
]
OTHERS: list[tuple[str, str, str, Build]] = [
    ("H05 duplicate", "member_duplicate", "two members are named 'spec.json'", lambda f: f.add("spec.json")),
    ("H16 encrypted", "member_encrypted", "is encrypted", lambda f: f.change("spec.json", flags=1)),
    ("H16 strong", "member_encrypted", "is encrypted", lambda f: f.change("spec.json", flags=0x41)),
    ("H16 hidden header", "member_encrypted", "is encrypted", lambda f: f.change("spec.json", flags=0x2000)),
    ("H19 300", "too_many_members", "310 members", lambda f: many(f, 297)),
    ("H19 65 536", "too_many_members", "65535 members", lambda f: many(f, 65_536)),
    ("H23 manifest", "member_missing", "'manifest.json' is missing", lambda f: missing(f, "manifest.json")),
    ("H23 listed", "member_missing", "lists 'README.md'", lambda f: f.remove("README.md")),
    (
        "H23 model",
        "member_missing",
        "'weights.safetensors' is missing",
        lambda f: missing(f, WEIGHTS, "model.json", "model.skops"),
    ),
    (
        "H23 first preprocessor",
        "member_missing",
        "'preprocessors/000.json' is missing",
        lambda f: missing(f, "preprocessors/000.json"),
    ),
    ("H31 unknown field", "unknown_field", "unknown 'allow_pickle'", lambda f: f.set_manifest(allow_pickle=True)),
    ("inflates to less", "corrupt", "does not inflate to", lambda f: inflating(f, size=300)),
    ("inflates to more", "corrupt", "does not inflate to", lambda f: inflating(f, size=290)),
    ("does not inflate", "corrupt", "cannot be inflated", lambda f: inflating(f, raw=b"\xff" * 40)),
    ("H21 size in the manifest", "digest", "7 bytes, the file has", lambda f: listed(f, "spec.json", size=7)),
    (
        "H51 pickle as weights",
        "weights_header",
        "these are not safetensors",
        lambda f: f.replace(WEIGHTS, pickle.dumps([0] * 99)),
    ),
    ("H52 .npy as weights", "weights_header", "these are not safetensors", lambda f: f.replace(WEIGHTS, npy())),
    (
        "H43 selfcheck",
        "weights_header",
        "selfcheck.safetensors",
        lambda f: f.replace("selfcheck.safetensors", bytes(64)),
    ),
    (
        "H45 preprocessor",
        "weights_layout",
        "preprocessors/000.safetensors",
        lambda f: f.replace("preprocessors/000.safetensors", f.part("preprocessors/000.safetensors").content + b"x"),
    ),
]


class Case(NamedTuple):
    name: str
    reason: str
    message: str
    make: Build

    def build(self, good: bytes) -> bytes:
        made = self.make(take_apart(good))
        return made if isinstance(made, bytes) else made.pack()


_ALL: list[tuple[str, str, str, Build]] = [
    *[(name, "not_a_bundle", message, build) for name, message, build in NOT_A_BUNDLE],
    *[
        (name, "header_mismatch" if "second" in name else "polyglot", message, build)
        for name, message, build in POLYGLOT
    ],
    *[(name, "truncated", message, build) for name, message, build in TRUNCATED],
    *[(name, "member_name", message, build) for name, message, build in NAMES],
    *[(name, "member_overlap", message, build) for name, message, build in OVERLAPS],
    *[(name, "member_type", message, build) for name, message, build in TYPES],
    *[(name, "member_compressed", message, build) for name, message, build in COMPRESSED],
    *[(name, "header_mismatch", message, build) for name, message, build in HEADERS],
    *[(name, "field_value", message, build) for name, message, build in MANIFESTS],
    *[(name, "json", message, build) for name, message, build in JSON],
    *[(name, "too_large", message, build) for name, message, build in TOO_LARGE],
    *[(f"H20 {name}", "corrupt", "is damaged", lambda f, n=name: flipped(f, n)) for name in (*ALL, "manifest.json")],
    *[(f"H21 {name}", "digest", "the manifest says", lambda f, n=name: swapped(f, n)) for name in ALL],
    *[
        (f"H22 {name}", "member_unexpected", f"unexpected member '{name}'", lambda f, n=name: f.add(n).seal())
        for name in (
            "x.py",
            "model.pkl",
            "__init__.py",
            "inner.zip",
            "preprocessors/1.json",
            "preprocessors/000.pkl",
            "training/rng.json",
        )
    ],
    *[
        (f"H22 unlisted {name}", "member_unexpected", f"does not list '{name}'", lambda f, n=name: f.add(n))
        for name in ("preprocessors/007.json",)
    ],
    *[
        (f"H23 {name}", "member_missing", f"'{name}' is missing", lambda f, n=name: missing(f, n))
        for name in (
            "spec.json",
            "schema.json",
            "results.json",
            "selfcheck.safetensors",
            "README.md",
            "preprocessors/001.json",
        )
    ],
    *[
        (f"H24 {value!r}", "version", "in a version from 1", lambda f, v=value: f.set_manifest(format_version=v))
        for value in (0, -1, "1", None, True, 1.0, [1])
    ],
    (
        "H24 newer",
        "version",
        "written in format version 999, this gymtrain reads 1; a newer gymtrain",
        lambda f: f.set_manifest(format_version=999),
    ),
    ("H24 other format", "version", "not 'gymtrain-bundle'", lambda f: f.set_manifest(format="keras")),
    *OTHERS,
]
CASES = [Case(*case) for case in _ALL]
