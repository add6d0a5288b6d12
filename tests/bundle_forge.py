"""The contents of a good bundle, and a forge that takes it apart and packs it again in any form, allowed or not."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gymtrain.bundle import Bundle, Contents, State, Tensor, from_numpy, open_bundle

ALL_ONES = 0xFFFFFFFF


@dataclass
class Part:
    """A member, with what its headers are to say instead of the truth."""

    name: bytes
    content: bytes
    method: int = 0
    raw: bytes | None = None  # the bytes in the file, where they are not the content
    written: bool = True  # or only in the directory
    aligned: bool = True
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)
    offset: int = 0


@dataclass
class Forge:
    """The parts of a bundle; `pack` makes a file of them."""

    parts: list[Part]

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name.encode())

    def add(self, name: str | bytes, content: bytes = b"x", at: int = 0) -> Forge:
        self.parts.insert(at, Part(name.encode() if isinstance(name, str) else name, content))
        return self

    def remove(self, name: str) -> Forge:
        self.parts.remove(self.part(name))
        return self

    def change(
        self, name: str, *, local: dict[str, Any] | None = None, central: dict[str, Any] | None = None, **both: Any
    ) -> Forge:
        """Replace what the headers of a member say."""
        self.part(name).local.update(both | (local or {}))
        self.part(name).central.update(both | (central or {}))
        return self

    def deflate(self, name: str, content: bytes) -> Forge:
        self.part(name).method = 8
        return self.replace(name, content)

    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.part("manifest.json").content)
        return manifest

    def set_manifest(self, **fields: Any) -> Forge:
        self.part("manifest.json").content = json.dumps(self.manifest() | fields).encode()
        return self

    def seal(self) -> Forge:
        """Make the manifest true again."""
        return self.set_manifest(
            members={
                part.name.decode(): {"size": len(part.content), "sha256": hashlib.sha256(part.content).hexdigest()}
                for part in self.parts
                if part.name != b"manifest.json"
            }
        )

    def replace(self, name: str, content: bytes) -> Forge:
        self.part(name).content = content
        return self.seal()

    def pack(self, *, shift: int = 0, comment: bytes = b"", zip64: bool = False, **end: Any) -> bytes:
        """Return the file; `shift` is added to all offsets, `end` replaces fields of the end record."""
        file = io.BytesIO()
        for part in self.parts:
            part.offset = file.tell()
            if part.written:
                file.write(_local(part, file.tell(), zip64))
                file.write(_stored(part))
        start = file.tell()
        for part in self.parts:
            file.write(_central(part, shift, zip64))
        length = file.tell() - start
        if zip64:
            _write_end64(file, len(self.parts), length, start, end.pop("record", {}), end.pop("locator", {}))
        fields = {"disk": 0, "start_disk": 0, "count_here": len(self.parts), "count": len(self.parts)}
        fields |= {"length": length, "start": start + shift, "comment": len(comment)} | end
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", *fields.values()) + comment)
        return file.getvalue()


def _stored(part: Part) -> bytes:
    if part.raw is not None:
        return part.raw
    if part.method != 8:
        return part.content
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(part.content) + deflater.flush()


def _common(part: Part, changed: dict[str, Any]) -> dict[str, Any]:
    fields = {"version": 20, "flags": 0, "method": part.method, "time": 0, "date": 33}
    fields |= {"crc": zlib.crc32(part.content), "stored_size": len(_stored(part)), "size": len(part.content)}
    fields |= {"name": part.name, "extra": b""}
    return fields | changed


def _local(part: Part, offset: int, zip64: bool) -> bytes:
    fields = _common(part, part.local)
    if zip64:
        fields["extra"] += struct.pack("<HHQQ", 1, 16, fields["size"], fields["stored_size"])
        fields |= {"size": ALL_ONES, "stored_size": ALL_ONES, "version": 45}
    if part.aligned and part.name.endswith(b".safetensors"):
        part.central["alignment"] = _alignment(offset + 30 + len(part.name) + len(fields["extra"]))
        fields["extra"] = part.central["alignment"] + fields["extra"]
    *numbers, name, extra = fields.values()
    return struct.pack("<4s5H3I2H", b"PK\3\4", *numbers, len(name), len(extra)) + name + extra


def _alignment(start: int) -> bytes:
    length = 2 + -(start + 6) % 64
    return struct.pack("<HHH", 0xD935, length, 64) + bytes(length - 2)


def _central(part: Part, shift: int, zip64: bool) -> bytes:
    fields = _common(part, {}) | {"made_by": 3 << 8 | 20, "comment": b"", "disk": 0, "internal": 0}
    fields |= {"external": 0o100644 << 16, "offset": part.offset + shift, "alignment": b""} | part.central
    if zip64:
        fields["extra"] += struct.pack("<HHQQQ", 1, 24, fields["size"], fields["stored_size"], fields["offset"])
        fields |= {"size": ALL_ONES, "stored_size": ALL_ONES, "offset": ALL_ONES, "version": 45}
    numbers = [fields[key] for key in ("made_by", "version", "flags", "method", "time", "date", "crc", "stored_size")]
    name, extra, comment = fields["name"], fields["extra"] + fields["alignment"], fields["comment"]
    lengths = [len(name), len(extra), len(comment)]
    rest = [fields[key] for key in ("disk", "internal", "external", "offset")]
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers, fields["size"], *lengths, *rest) + name + extra + comment


def _write_end64(
    file: io.BytesIO, count: int, length: int, start: int, record: dict[str, int], locator: dict[str, int]
) -> None:
    position = file.tell()
    fields = {"size": 44, "made_by": 45, "version": 45, "disk": 0, "start_disk": 0, "count_here": count}
    fields |= {"count": count, "length": length, "start": start} | record
    file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", *fields.values()))
    places = {"disk": 0, "offset": position, "disks": 1} | locator
    file.write(struct.pack("<4sIQI", b"PK\6\7", *places.values()))


def make_contents(**changes: Any) -> Contents:
    generator = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "spec": {"model": {"type": "mlp", "hidden": [4]}},
        "schema": {"features": ["a", "b"], "classes": ["ja", "nein", "vielleicht: ü"]},
        "results": {"metrics": {"train/loss": [1.5, 0.25]}},
        "weights": {
            "layer.weight": from_numpy(generator.normal(size=(4, 8)).astype(np.float32)),
            "layer.bias": from_numpy(np.arange(3, dtype=np.float32)),
            "steps": from_numpy(np.array(7)),
            "half": Tensor("BF16", (2,), b"\x80\x3f\x00\x40"),
        },
        "preprocessors": [
            State({"type": "standard_scaler"}, {"mean": from_numpy(np.ones(2))}),
            State({}, {}, b"skops"),
        ],
        "selfcheck": {"X": from_numpy(np.zeros((2, 2))), "y": from_numpy(np.array([[0.5, 0.5], [1, 0]]))},
        "readme": "# A model\n",
        "which_weights": "best",
        "versions": {"gymtrain": "0.1.0"},
        "created": "2027-01-01T00:00:00+00:00",
    }
    return Contents(**(fields | changes))


def read_all(path: Path) -> dict[str, Any]:
    """Open a bundle and read everything in it."""
    with open_bundle(path) as bundle:
        return everything(bundle)


def everything(bundle: Bundle) -> dict[str, Any]:
    parts = ("manifest", "spec", "schema", "results", "readme")
    read = {name: getattr(bundle, name) for name in parts}
    methods = ("weights", "storage", "model_skops", "model_state", "preprocessors", "selfcheck")
    return read | {name: getattr(bundle, name)() for name in methods}


def take_apart(data: bytes) -> Forge:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return Forge([Part(name.encode(), archive.read(name)) for name in archive.namelist()])
