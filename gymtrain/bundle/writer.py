"""Writes a bundle: a zip file in the one form that the reader accepts."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

from gymtrain.bundle import format as bundle_format
from gymtrain.bundle import strict_json, tensors
from gymtrain.bundle.contents import Contents
from gymtrain.bundle.directory import ALIGNMENT_FIELD, ATTRIBUTES, DATE_TIME, LOCAL, alignment_content
from gymtrain.bundle.format import preprocessor_name, source_name
from gymtrain.bundle.signing import write_signature
from gymtrain.bundle.target import Writable, whole_write
from gymtrain.bundle.tensors import Tensor
from gymtrain.errors import SaveError, some

_ZIP64_EXTRA_BYTES = 20
_MANY_BYTES = 16 << 20


def write(path: Writable, contents: Contents, *, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Write a bundle in place of whatever is at `path`, whole or not at all. Equal contents give equal bytes.

    Tensors are streamed, not copied; the digests in the manifest, which is the last member but for the signature, are
    taken on the way.

    Args:
        path: A path, an address such as `s3://…`, or a file object that is open for writing.
        contents: What goes into the bundle.
        sign: Makes the content of `signature.json` of that of the manifest; None for a bundle that is not signed.

    Raises:
        SaveError: The contents have something that the format has no place for, and nothing was written; or the address
            cannot be written to.
        MissingDependencyError: The package for the address is not installed.
        OSError: The file could not be written; what was there before still is. Of a full disk it says how many bytes
            are needed.

    Example:
        >>> import os, tempfile
        >>> from gymtrain.bundle import inspect
        >>> path = os.path.join(tempfile.mkdtemp(), "empty.zip")
        >>> write(path, Contents(
        ...     spec={}, schema={}, results={}, selfcheck={}, readme="# empty", which_weights="last",
        ...     versions={}, created="2027-01-01T00:00:00+00:00", weights={},
        ... ))
        >>> inspect(path)["manifest"]["weights"]
        'last'
    """
    _check(contents)
    members = list(_members(contents))
    with (
        ThreadPoolExecutor(2, "gymtrain-digests") as digesting,
        _telling_what_is_needed(members),
        whole_write(path) as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        digests = {}
        for name, content in members:
            if isinstance(content, bytes):
                digests[name] = _write_bytes(archive, name, content)
            else:
                digests[name] = _write_tensors(file, archive, name, content, digesting)
        manifest = _manifest(contents, digests)
        _write_bytes(archive, bundle_format.MANIFEST, manifest)
        if sign is not None:
            write_signature(archive, sign(manifest))


@contextmanager
def _telling_what_is_needed(members: list[tuple[str, bytes | Mapping[str, Tensor]]]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sizes = [len(each) if isinstance(each, bytes) else tensors.encoded_bytes(each) for _, each in members]
        message = f"{error.strerror}; about {sum(sizes):,} bytes are needed{_free(error.filename)}"
        raise OSError(error.errno, message, error.filename) from None


def _free(full: object) -> str:
    """Say how much room there is where none was left; nothing of what is no directory of this machine."""
    place = os.path.realpath(full) if isinstance(full, str) else ""
    directory = place if os.path.isdir(place) else os.path.dirname(place)
    return f", {shutil.disk_usage(directory).free:,} are free" if os.path.isdir(directory) else ""


def _check(contents: Contents) -> None:
    if contents.which_weights not in bundle_format.KEPT_WEIGHTS:
        expected = some(bundle_format.KEPT_WEIGHTS)
        raise SaveError(f"which_weights is {contents.which_weights!r}; expected one of {expected}")
    if contents.weights is None and contents.model_skops is None and contents.model_state is None:
        raise SaveError("a bundle without a model: give weights, model_skops or model_state")
    if len(contents.preprocessors) > bundle_format.MAX_PREPROCESSORS:
        count = len(contents.preprocessors)
        raise SaveError(f"{count} preprocessors; a bundle holds at most {bundle_format.MAX_PREPROCESSORS}")
    _check_sources(list(contents.sources))


def _check_sources(modules: list[str]) -> None:
    if len(modules) > bundle_format.MAX_SOURCES:
        raise SaveError(f"sources of {len(modules)} modules; a bundle holds at most {bundle_format.MAX_SOURCES}")
    unfit = [name for name in modules if not bundle_format.is_source(source_name(name)) or len(name) > 80]
    if unfit:
        raise SaveError(f"the source of {some(unfit)} has no place in a bundle: expected at most 80 ASCII characters")
    if len({name.lower() for name in modules}) < len(modules):
        raise SaveError(f"of the modules {some(sorted(modules))} two differ by case only, as no names in a bundle may")


def _members(contents: Contents) -> Iterator[tuple[str, bytes | Mapping[str, Tensor]]]:
    """Yield all members but the manifest, in their order in the file; tensors as they are, all else encoded."""
    yield bundle_format.SPEC, _document(bundle_format.SPEC, contents.spec)
    yield bundle_format.SCHEMA, _document(bundle_format.SCHEMA, contents.schema)
    yield bundle_format.RESULTS, _document(bundle_format.RESULTS, contents.results)
    if contents.model_state is not None:
        yield bundle_format.MODEL_STATE, _document(bundle_format.MODEL_STATE, contents.model_state)
    if contents.model_skops is not None:
        yield bundle_format.MODEL_SKOPS, contents.model_skops
    if contents.weights is not None:
        yield bundle_format.WEIGHTS, _checked(bundle_format.WEIGHTS, contents.weights)
    if contents.storage is not None:
        yield bundle_format.STORAGE, _document(bundle_format.STORAGE, contents.storage)
    if contents.onnx is not None:
        yield bundle_format.ONNX, contents.onnx
    for index, state in enumerate(contents.preprocessors):
        name = preprocessor_name(index, "json")
        yield name, _document(name, state.values)
        if state.tensors:
            name = preprocessor_name(index, "safetensors")
            yield name, _checked(name, state.tensors)
        if state.skops is not None:
            yield preprocessor_name(index, "skops"), state.skops
    yield bundle_format.SELFCHECK, _checked(bundle_format.SELFCHECK, contents.selfcheck)
    if contents.training is not None:
        yield bundle_format.TRAINING_STATE, _document(bundle_format.TRAINING_STATE, contents.training.values)
        yield bundle_format.TRAINING_TENSORS, _checked(bundle_format.TRAINING_TENSORS, contents.training.tensors)
    for module, source in sorted(contents.sources.items()):
        yield source_name(module), _text(source_name(module), source)
    yield bundle_format.README, _text(bundle_format.README, contents.readme)


def _document(name: str, value: dict[str, Any]) -> bytes:
    return strict_json.dumps(value, name, max_bytes=bundle_format.max_bytes(name) or 0)


def _checked(name: str, named: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Fail before anything is written."""
    try:
        tensors.encode_header(named, {})
    except SaveError as error:
        raise SaveError(f"{name}: {error}") from None
    return named


def _text(name: str, text: str) -> bytes:
    encoded = text.encode(errors="replace")
    limit = bundle_format.max_bytes(name) or 0
    if len(encoded) > limit:
        raise SaveError(f"{name}: {len(encoded)} bytes, more than the {limit} that are allowed")
    return encoded


def _manifest(contents: Contents, digests: Mapping[str, dict[str, Any]]) -> bytes:
    manifest = {
        "format": bundle_format.FORMAT,
        "format_version": bundle_format.FORMAT_VERSION,
        "created": contents.created,
        "versions": dict(contents.versions),
        "weights": contents.which_weights,
        "members": dict(digests),
    }
    return _document(bundle_format.MANIFEST, manifest)


def _write_bytes(archive: zipfile.ZipFile, name: str, content: bytes) -> dict[str, Any]:
    info = _info(name)
    if not bundle_format.is_mapped(name) and _is_worth_deflating(content):
        info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_tensors(
    file: BinaryIO, archive: zipfile.ZipFile, name: str, named: Mapping[str, Tensor], digesting: Executor
) -> dict[str, Any]:
    """Write a member, and return what the manifest says of it.

    Either digest takes about as long as writing. `zipfile` would take one of them on the way, piece by piece.
    """
    sha256, crc = digesting.submit(_sha256_of, named), digesting.submit(_crc_of, named)
    info = _info(name)
    info.file_size = info.compress_size = tensors.encoded_bytes(named)
    wide = info.file_size > 1 << 30  # stated, because zipfile would decide for itself, somewhere below 2 GiB
    info.CRC, info.header_offset = 0, file.tell()
    start = info.header_offset + LOCAL.size + len(name) + (_ZIP64_EXTRA_BYTES if wide else 0)
    length = 2 + -(start + 4 + 2) % bundle_format.ALIGNMENT
    info.extra = ALIGNMENT_FIELD.to_bytes(2, "little") + length.to_bytes(2, "little") + alignment_content(length)
    file.write(info.FileHeader(wide))
    tensors.write(file, named)
    end = file.tell()
    if info.file_size > _MANY_BYTES:
        file.flush()
        os.fsync(file.fileno())  # the disk is busy while the digests are taken, and not only afterwards
    info.CRC = crc.result()
    file.seek(info.header_offset)
    file.write(info.FileHeader(wide))
    file.seek(end)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = end  # where the next member goes
    return {"size": info.file_size, "sha256": sha256.result()}


def _sha256_of(named: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for piece in tensors.encoded(named):
        digest.update(piece)
    return digest.hexdigest()


def _crc_of(named: Mapping[str, Tensor]) -> int:
    crc = 0
    for piece in tensors.encoded(named):
        crc = zlib.crc32(piece, crc)
    return crc


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE_TIME)
    info.create_system = 3  # Unix, wherever this runs
    info.external_attr = ATTRIBUTES
    return info


def _is_worth_deflating(content: bytes) -> bool:
    """Whether deflating makes it smaller, and not so much smaller that the reader would take it for a bomb."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = len(deflater.compress(content)) + len(deflater.flush())
    return len(content) <= deflated * bundle_format.MAX_RATIO and deflated < len(content)
