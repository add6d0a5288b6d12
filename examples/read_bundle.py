"""Read a bundle without gymtrain: docs/bundle-format.md, the standard library and numpy are enough.

`python read_bundle.py digits.zip` prints what is in it; `--npz weights.npz` writes the tensors of the model for numpy.
What is read is checked against the digests of the manifest; whether the zip file has a single meaning, which matters
for files from strangers, is left to gymtrain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

# Of the types of safetensors numpy has these; BF16 and those of 8 bits are given as the bits that they are.
DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "C64": "<c8",
}
Tensors = dict[str, np.ndarray]


def read_bundle(path: str | Path) -> dict[str, Any]:
    """Return what a bundle holds.

    Returns:
        Each member by name but for the manifest: JSON as a dict, tensors as arrays by name, the rest as bytes; and the
        manifest under `"manifest.json"`.

    Raises:
        ValueError: It is no bundle of format 1, or a member is not what the manifest says.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}  # compares the CRC-32, too
    if "manifest.json" not in members:
        raise ValueError(f"{path}: no manifest.json, so this is no bundle")
    manifest = json.loads(members.pop("manifest.json"))
    if manifest.get("format") != "gymtrain-bundle" or manifest.get("format_version") != 1:
        raise ValueError(f"{path}: not a gymtrain-bundle of format 1")
    if members.keys() != manifest["members"].keys():
        raise ValueError(f"{path}: the members are not those that the manifest lists")
    for name, content in members.items():
        listed = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if listed != manifest["members"][name]:
            raise ValueError(f"{path}: {name} is not what the manifest says")
    return {"manifest.json": manifest, **{name: _decoded(name, content) for name, content in members.items()}}


def _decoded(name: str, content: bytes) -> Any:
    if name.endswith(".safetensors"):
        return read_tensors(content)
    return json.loads(content) if name.endswith(".json") else content


def read_tensors(content: bytes) -> Tensors:
    """Return the tensors of a member that ends in `.safetensors`: a length, a header in JSON, and the data."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = np.frombuffer(content[start + begin : start + end], DTYPES[entry["dtype"]])
        tensors[name] = data.reshape(entry["shape"])
    return tensors


def main() -> None:
    """Print what is in a bundle."""
    parser = argparse.ArgumentParser(description="Read a bundle without gymtrain.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--npz", type=Path, help="write the tensors of the model there")
    options = parser.parse_args()
    members = read_bundle(options.bundle)
    manifest, schema = members["manifest.json"], members["schema.json"]
    print(f"{manifest['format']} {manifest['format_version']}, made {manifest['created']}")
    print(f"task {schema['labels']['task']}, classes {schema['labels'].get('classes')}")
    for member, content in members.items():
        if isinstance(content, dict) and member.endswith(".safetensors"):
            for name, tensor in content.items():
                print(f"{member}: {name} {tensor.dtype} {tensor.shape}")
    if options.npz is not None:
        np.savez(options.npz, **members.get("weights.safetensors", {}))


if __name__ == "__main__":
    main()
