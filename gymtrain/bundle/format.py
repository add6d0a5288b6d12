"""What bundle format 1 consists of: the names of its members and the limits that a reader holds a file to."""

from __future__ import annotations

import re
from typing import Final

FORMAT: Final = "gymtrain-bundle"
FORMAT_VERSION: Final = 1

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "signature.json"  # signs the manifest, which does not list it
SPEC: Final = "spec.json"
SCHEMA: Final = "schema.json"
RESULTS: Final = "results.json"
MODEL_STATE: Final = "model.json"
MODEL_SKOPS: Final = "model.skops"
WEIGHTS: Final = "weights.safetensors"
ONNX: Final = "model.onnx"  # on request: predicts without the class
STORAGE: Final = "storage.json"  # where the weights are not simply one tensor after another
SELFCHECK: Final = "selfcheck.safetensors"
README: Final = "README.md"
PREPROCESSOR: Final = re.compile(r"preprocessors/([0-9]{3})\.(json|safetensors|skops)")
TRAINING_STATE: Final = "training/state.json"
TRAINING_TENSORS: Final = "training/state.safetensors"
TRAINING: Final = (TRAINING_STATE, TRAINING_TENSORS)  # only in a checkpoint
SOURCE: Final = re.compile(r"source/([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.py")  # for reading, never run

REQUIRED: Final = (MANIFEST, SPEC, SCHEMA, RESULTS, SELFCHECK, README)
MODEL: Final = (WEIGHTS, MODEL_SKOPS, MODEL_STATE)  # at least one of these

KEPT_WEIGHTS: Final = ("best", "last")

ALIGNMENT: Final = 64  # bytes; a cache line, and the widest vector register
MAX_FILE_BYTES: Final = 256 << 30
MAX_MEMBERS: Final = 256
MAX_DIRECTORY_BYTES: Final = 4 << 20
MAX_RATIO: Final = 32  # bytes that a deflated member may grow to, for each byte in the file
MAX_PREPROCESSORS: Final = 64  # three members each, the sources and all the others fit into MAX_MEMBERS
MAX_SOURCES: Final = 32
_SMALL, _LARGE = 1 << 20, 16 << 20


def is_member(name: str) -> bool:
    """Whether format 1 has a member of this name.

    Example:
        >>> is_member("spec.json"), is_member("preprocessors/000.skops"), is_member("model.pkl")
        (True, True, False)
    """
    if name in (*REQUIRED, *MODEL, *TRAINING, STORAGE, ONNX, SIGNATURE) or PREPROCESSOR.fullmatch(name) is not None:
        return True
    return is_source(name)


def is_source(name: str) -> bool:
    """Whether the member is the source of somebody's class, as text.

    Example:
        >>> is_source("source/my_package.models.py"), is_source("source/../models.py")
        (True, False)
    """
    return SOURCE.fullmatch(name) is not None


def is_tensors(name: str) -> bool:
    """Whether the member holds tensors, which are aligned.

    Example:
        >>> is_tensors("weights.safetensors"), is_tensors("spec.json")
        (True, False)
    """
    return name.endswith(".safetensors")


def is_mapped(name: str) -> bool:
    """Whether the member may be of any size, and so is stored and mapped.

    Example:
        >>> is_mapped("weights.safetensors"), is_mapped("model.onnx"), is_mapped("spec.json")
        (True, True, False)
    """
    return is_tensors(name) or name == ONNX


def max_bytes(name: str) -> int | None:
    """Return the most bytes that the content of a member may have; None where only the file's own size limits it.

    Example:
        >>> max_bytes("spec.json"), max_bytes("weights.safetensors")
        (1048576, None)
    """
    if name in (MANIFEST, SPEC, README, SIGNATURE) or is_source(name):
        return _SMALL
    return _LARGE if name.endswith(".json") else None


def source_name(module: str) -> str:
    """Return the name of the member with the source of a module.

    Example:
        >>> source_name("my_package.models")
        'source/my_package.models.py'
    """
    return f"source/{module}.py"


def preprocessor_name(index: int, suffix: str) -> str:
    """Return the name of a member of the preprocessor at this position.

    Example:
        >>> preprocessor_name(7, "json")
        'preprocessors/007.json'
    """
    return f"preprocessors/{index:03d}.{suffix}"
