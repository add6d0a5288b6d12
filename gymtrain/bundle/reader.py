"""Reads a bundle that anybody may have made, in phases; each is done before the next one trusts it.

The file, the directory of the zip, the manifest, the version of the format, the size and digest of every member, and
only then its content. Nothing is extracted, imported or run.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from gymtrain.bundle import format as bundle_format
from gymtrain.bundle import signing, strict_json, tensors
from gymtrain.bundle.contents import State
from gymtrain.bundle.directory import Entry, read_directory
from gymtrain.bundle.format import is_mapped, is_source, preprocessor_name
from gymtrain.bundle.private import PrivateCopy
from gymtrain.bundle.signing import Signature, SignedBy
from gymtrain.bundle.source import Readable, Source
from gymtrain.bundle.tensors import Tensor
from gymtrain.bundle.verification import Verification
from gymtrain.errors import BundleError, SpecError, some

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Verify = Literal["eager", "lazy", False]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST_KEYS = {"format", "format_version", "created", "versions", "weights", "members"}
_INSPECTED = (
    bundle_format.SPEC,
    bundle_format.SCHEMA,
    bundle_format.RESULTS,
    bundle_format.README,
    bundle_format.STORAGE,
)


class Bundle:
    """An open bundle whose every byte has been verified, but for what `verify` has put off or left out.

    Tensors are views into a copy-on-write map of the file: writing to them changes memory, never the file. They stay
    valid after `close`. A file that is replaced by a rename, as `write` does, stays what it was for those who have it
    open; one that somebody else shortens in place does not, and takes the process with it.

    Attributes:
        manifest: `manifest.json`.
        spec: `spec.json`.
        schema: `schema.json`.
        results: `results.json`.
        readme: `README.md`.
        signature: What it says of who signed it, None for nothing; checked where `signed_by` was given.
        manifest_bytes: What a signature is over.
        verification: Of the weights, where it goes on; None where it is over or was not asked for.
    """

    def __init__(
        self,
        name: str,
        manifest: dict[str, Any],
        contents: Mapping[str, Any],
        entries: Mapping[str, Entry],
        mapped: mmap.mmap,
        signature: Signature | None,
        manifest_bytes: bytes,
        verification: Verification | None = None,
    ) -> None:
        self.manifest, self.manifest_bytes, self.signature = manifest, manifest_bytes, signature
        self.spec: dict[str, Any] = contents[bundle_format.SPEC]
        self.schema: dict[str, Any] = contents[bundle_format.SCHEMA]
        self.results: dict[str, Any] = contents[bundle_format.RESULTS]
        self.readme: str = contents[bundle_format.README]
        self._name = name
        self._contents = contents
        self._entries = entries
        self._map: mmap.mmap | None = mapped
        self.verification = verification

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.verification is not None:
            self.verification.cancel()
            self.verification = None
        self.close()

    def close(self) -> None:
        """Let go of the file; tensors that were handed out keep it mapped for as long as they are used."""
        self._map = None
        if self.verification is not None:
            self.verification.start()

    def weights(self, expected: Mapping[str, tuple[str, tuple[int, ...]]] | None = None) -> dict[str, Tensor] | None:
        """Return the tensors of the model; None where it has none.

        Args:
            expected: The dtype and shape of each tensor that the model must have, where the caller knows them.

        Raises:
            BundleError: `weights_header`, `weights_layout`, `weights_dtype`, `weights_names` or `weights_shape`.
        """
        return self._tensors(bundle_format.WEIGHTS, expected) if bundle_format.WEIGHTS in self._entries else None

    def storage(self) -> dict[str, Any] | None:
        """Return how the tensors of the model are made of `weights`; None where they are these."""
        content: dict[str, Any] | None = self._contents.get(bundle_format.STORAGE)
        return content

    @property
    def has_onnx(self) -> bool:
        """Whether the model is there as a file in ONNX too."""
        return bundle_format.ONNX in self._entries

    def onnx(self) -> bytes:
        """Return the model as a file in ONNX, which may be of anybody's making."""
        return bytes(self._mapped(bundle_format.ONNX))

    def model_skops(self) -> bytes | None:
        """Return what skops made of a scikit-learn model; None where it is not one."""
        content: bytes | None = self._contents.get(bundle_format.MODEL_SKOPS)
        return content

    def model_state(self) -> dict[str, Any] | None:
        """Return what the model keeps as JSON; None where it keeps nothing."""
        content: dict[str, Any] | None = self._contents.get(bundle_format.MODEL_STATE)
        return content

    def preprocessors(self) -> list[State]:
        """Return the states of the preprocessors, in the order in which they are applied.

        Raises:
            BundleError: `weights_header`, `weights_layout` or `weights_dtype`.
        """
        states: list[State] = []
        while (name := preprocessor_name(len(states), "json")) in self._entries:
            arrays, skops = (preprocessor_name(len(states), suffix) for suffix in ("safetensors", "skops"))
            named = self._tensors(arrays) if arrays in self._entries else {}
            states.append(State(self._contents[name], named, self._contents.get(skops)))
        return states

    def selfcheck(self) -> dict[str, Tensor]:
        """Return a few raw rows and the outputs that they gave.

        Raises:
            BundleError: `weights_header`, `weights_layout` or `weights_dtype`.
        """
        return self._tensors(bundle_format.SELFCHECK)

    def training(self) -> State | None:
        """Return where the training stood; None unless the bundle is a checkpoint.

        Raises:
            BundleError: `weights_header`, `weights_layout` or `weights_dtype`.
        """
        if bundle_format.TRAINING_STATE not in self._entries:
            return None
        return State(self._contents[bundle_format.TRAINING_STATE], self._tensors(bundle_format.TRAINING_TENSORS))

    def _tensors(
        self, name: str, expected: Mapping[str, tuple[str, tuple[int, ...]]] | None = None
    ) -> dict[str, Tensor]:
        return tensors.parse(self._mapped(name), expected=expected, where=f"{self._name}: {name}")

    def _mapped(self, name: str) -> memoryview:
        if self._map is None:
            raise ValueError(f"{self._name}: the bundle is closed; take its tensors before that")
        entry = self._entries[name]
        return memoryview(self._map)[entry.offset : entry.offset + entry.size]


def open_bundle(
    path: Readable,
    *,
    sha256: str | None = None,
    signed_by: SignedBy | None = None,
    verify: Verify = "eager",
) -> Bundle:
    """Open a bundle and verify it. No code in it is run, whoever made it.

    The digests inside a bundle protect from accidents. Whoever can change the file can change them too: `sha256`, had
    from somewhere else, protects from that, and so does `signed_by`.

    Args:
        path: Its path or address, its bytes, or a file object that is open for reading; docs/places.md says more.
        sha256: The digest that the whole file must have, in hexadecimal; checked at once, whatever `verify` is.
        signed_by: Ed25519 public keys, one of which must have signed it: paths, contents of such files as bytes, or
            keys of `cryptography`. All is then read into memory, where what is checked is what is used. None to take it
            whoever signed it, or nobody.
        verify: When the digests of the members are checked that hold tensors; all others always are, at once.
            `"eager"`: before this returns. `"lazy"`: those of the weights in a thread that begins when the bundle is
            closed, for which `Bundle.verification` waits; but before this returns where a file object is given, which
            is the caller's again then. False: not at all; damaged tensors are then taken for good ones.

    Raises:
        SpecError: `verify` is none of these, or False where `signed_by` asks for more; `signed_by` has something else
            than public keys.
        MissingDependencyError: `signed_by` is given, and `cryptography` is not installed.
        BundleError: The file is not a bundle that can be trusted; docs/bundle-format.md lists the reasons.
        FileNotFoundError: There is no such file.

    Example:
        >>> open_bundle("/dev/null")
        Traceback (most recent call last):
        gymtrain.errors.BundleError: /dev/null is a pipe or a device, expected a file
    """
    if verify not in get_args(Verify):
        raise SpecError.of_argument("verify", f"got {verify!r}; expected 'eager', 'lazy' or False")
    if signed_by is not None and verify is False:
        message = "got False, but a signature is about the weights too; use 'eager' or 'lazy'"
        raise SpecError.of_argument("verify", message)
    keys = None if signed_by is None else signing.public_keys(signed_by)
    source = Source(path) if keys is None else _copied(path, keys)
    later: list[Entry] = []
    try:
        if sha256 is not None:
            _check_file_digest(source, sha256)
        entries = read_directory(source)
        manifest, manifest_bytes = _read_manifest(source, entries)
        signature = _read_signature(source, entries)
        if keys is not None:
            signing.check(signature, manifest_bytes, keys, source.name)
        contents = {}
        for name, member in manifest["members"].items():
            if not is_mapped(name):
                contents[name] = _decode(source, name, _read_member(source, entries[name], member))
            elif verify == "lazy" and name == bundle_format.WEIGHTS and not source.is_borrowed:
                later.append(entries[name])
            elif verify:
                _check_mapped(source, entries[name], member)
        mapped = source.map()
        if not later:
            source.close()
            return Bundle(source.name, manifest, contents, entries, mapped, signature, manifest_bytes)
    except BaseException:
        source.close()
        raise

    def check() -> Iterator[None]:
        for entry in later:
            yield from _checking_mapped(source, entry, manifest["members"][entry.name])

    verification = Verification(check, source.close)
    return Bundle(source.name, manifest, contents, entries, mapped, signature, manifest_bytes, verification)


def _copied(path: Readable, keys: Sequence[Ed25519PublicKey]) -> PrivateCopy:
    """Return a copy in memory, which there is room for only if the file looks as if one of the keys had signed it."""
    with Source(path) as source:
        entries = read_directory(source)
        _, manifest = _read_manifest(source, entries)
        signing.check(_read_signature(source, entries), manifest, keys, source.name)
        return PrivateCopy(source)


def inspect(path: Readable, *, sha256: str | None = None) -> dict[str, Any]:
    """Return all of a bundle that is meant for people, without reading a tensor or loading torch.

    What is returned is verified; tensors and skops objects are not looked at, so this takes as long for a large model
    as for a small one.

    Args:
        path: Its path or address, its bytes, or a file object that is open for reading; docs/places.md says more.
        sha256: The digest that the whole file must have, in hexadecimal; it takes as long as reading the file.

    Returns:
        `manifest`, `spec`, `schema` and `results` as dicts, `readme` as text; `storage` as a dict, None where there is
        nothing to say of it; `sources`, the source of modules as text by their names, empty where there are none;
        `signature` as a dict, None for a bundle that is not signed: who it says it is signed by, which is not checked.

    Raises:
        BundleError: The file is not a bundle that can be trusted; docs/bundle-format.md lists the reasons.
        FileNotFoundError: There is no such file.
    """
    with Source(path) as source:
        if sha256 is not None:
            _check_file_digest(source, sha256)
        entries = read_directory(source)
        manifest, _ = _read_manifest(source, entries)
        signature = _read_signature(source, entries)
        names = [name for name in entries if name in _INSPECTED or is_source(name)]
        encoded = {name: _read_member(source, entries[name], manifest["members"][name]) for name in names}
        contents = {name: _decode(source, name, data) for name, data in encoded.items()}
    sources = {found[1]: text for name, text in contents.items() if (found := bundle_format.SOURCE.fullmatch(name))}
    return {
        "manifest": manifest,
        "spec": contents[bundle_format.SPEC],
        "schema": contents[bundle_format.SCHEMA],
        "results": contents[bundle_format.RESULTS],
        "readme": contents[bundle_format.README],
        "storage": contents.get(bundle_format.STORAGE),
        "sources": sources,
        "signature": None if signature is None else signature.to_dict(),
    }


def _check_file_digest(source: Source, expected: str) -> None:
    if not isinstance(expected, str) or _SHA256.fullmatch(expected.lower()) is None:
        message = f"{source.name}: sha256: got {expected!r}; expected the 64 hexadecimal digits of a SHA-256"
        raise BundleError(message, reason="digest")
    digest = hashlib.sha256()
    for chunk in source.chunks(0, source.size):
        digest.update(chunk)
    if digest.hexdigest() != expected.lower():
        message = f"{source.name}: has SHA-256 {digest.hexdigest()}, expected {expected}"
        raise BundleError(message, reason="digest")


def _read_manifest(source: Source, entries: Mapping[str, Entry]) -> tuple[dict[str, Any], bytes]:
    name = bundle_format.MANIFEST
    where = f"{source.name}: {name}"
    if name not in entries:
        raise BundleError(f"{source.name}: member {name!r} is missing", reason="member_missing")
    encoded = _read_checked(source, entries[name])
    manifest = strict_json.loads(encoded, where)
    _check_version(where, manifest)
    if missing := sorted(_MANIFEST_KEYS - manifest.keys()):
        raise BundleError(f"{where}: missing {some(missing)}", reason="field_value")
    if unknown := sorted(manifest.keys() - _MANIFEST_KEYS):
        raise BundleError(f"{where}: unknown {some(unknown)}", reason="unknown_field")
    if not isinstance(manifest["created"], str) or not _is_text_by_name(manifest["versions"]):
        raise BundleError(f"{where}: expected text in 'created' and in all 'versions'", reason="field_value")
    if manifest["weights"] not in bundle_format.KEPT_WEIGHTS:
        expected = some(bundle_format.KEPT_WEIGHTS)
        raise BundleError(f"{where}: 'weights' is not one of {expected}", reason="field_value")
    _check_members(where, manifest["members"], entries)
    return manifest, encoded


def _read_signature(source: Source, entries: Mapping[str, Entry]) -> Signature | None:
    name = bundle_format.SIGNATURE
    if name not in entries:
        return None
    return signing.parse(_read_checked(source, entries[name]), f"{source.name}: {name}")


def _check_version(where: str, manifest: Mapping[str, Any]) -> None:
    kind, version = manifest.get("format"), manifest.get("format_version")
    if kind != bundle_format.FORMAT or type(version) is not int or version < 1:
        message = f"{where}: not {bundle_format.FORMAT!r} in a version from 1"
        raise BundleError(message, reason="version")
    if version > bundle_format.FORMAT_VERSION:
        ours = bundle_format.FORMAT_VERSION
        message = f"{where}: written in format version {version}, this gymtrain reads {ours}; a newer gymtrain reads it"
        raise BundleError(message, reason="version")


def _is_text_by_name(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _check_members(where: str, listed: object, entries: Mapping[str, Entry]) -> None:
    """Check that the manifest lists what the zip has, and that this makes a bundle."""
    if not isinstance(listed, dict):
        raise BundleError(f"{where}: 'members' is not an object", reason="field_value")
    for name, member in listed.items():
        if not isinstance(member, dict) or member.keys() != {"size", "sha256"} or not _is_measured(member):
            message = f"{where}: members.{name[:100]!r}: expected 'size' in bytes and 'sha256' in hexadecimal"
            raise BundleError(message, reason="field_value")
    present = entries.keys() - {bundle_format.MANIFEST, bundle_format.SIGNATURE}
    if missing := sorted(listed.keys() - present):
        raise BundleError(f"{where}: lists {some(missing)}, which are not in the file", reason="member_missing")
    if extra := sorted(present - listed.keys()):
        raise BundleError(f"{where}: does not list {some(extra)}", reason="member_unexpected")
    if (absent := _missing(entries.keys())) is not None:
        raise BundleError(f"{where}: member {absent!r} is missing", reason="member_missing")
    for name, member in listed.items():
        if member["size"] != entries[name].size:
            message = f"{where}: members.{name!r}: {member['size']} bytes, the file has {entries[name].size}"
            raise BundleError(message, reason="digest")


def _is_measured(member: Mapping[str, Any]) -> bool:
    size, digest = member["size"], member["sha256"]
    return type(size) is int and isinstance(digest, str) and _SHA256.fullmatch(digest) is not None


def _missing(names: Collection[str]) -> str | None:
    """Return the first member that a bundle with these members would have to have too."""
    for name in bundle_format.REQUIRED:
        if name not in names:
            return name
    if not any(name in names for name in bundle_format.MODEL):
        return bundle_format.WEIGHTS
    if (bundle_format.STORAGE in names or bundle_format.ONNX in names) and bundle_format.WEIGHTS not in names:
        return bundle_format.WEIGHTS
    if sum(name in names for name in bundle_format.TRAINING) == 1:
        return next(name for name in bundle_format.TRAINING if name not in names)
    preprocessors = {name for name in names if bundle_format.PREPROCESSOR.fullmatch(name)}
    indices = {int(name.split("/")[1][:3]) for name in preprocessors}
    needed = (preprocessor_name(index, "json") for index in range(max(indices, default=-1) + 1))
    return next((name for name in needed if name not in preprocessors), None)


def _read_member(source: Source, entry: Entry, member: Mapping[str, Any]) -> bytes:
    """Return the content of a member, verified against the manifest."""
    content = _read_checked(source, entry)
    _check_digest(source, entry, hashlib.sha256(content).hexdigest(), member)
    return content


def _check_mapped(source: Source, entry: Entry, member: Mapping[str, Any]) -> None:
    for _ in _checking_mapped(source, entry, member):
        pass


def _checking_mapped(source: Source, entry: Entry, member: Mapping[str, Any]) -> Iterator[None]:
    """Verify a member that is mapped, not read, piece by piece.

    One digest of a large member is enough; its CRC-32, which costs half as much again, is only looked at to tell an
    accident from a manifest that does not fit.
    """
    digest = hashlib.sha256()
    for chunk in source.chunks(entry.offset, entry.size):
        digest.update(chunk)
        yield
    if digest.hexdigest() != member["sha256"]:
        crc = 0
        for chunk in source.chunks(entry.offset, entry.size):
            crc = zlib.crc32(chunk, crc)
        _check_crc(source, entry, crc)
        _check_digest(source, entry, digest.hexdigest(), member)


def _read_checked(source: Source, entry: Entry) -> bytes:
    content = source.read(entry.offset, entry.stored_size)
    if entry.deflated:
        content = _inflate(source, entry, content)
    _check_crc(source, entry, zlib.crc32(content))
    return content


def _inflate(source: Source, entry: Entry, deflated: bytes) -> bytes:
    """Inflate to the size that the directory promised, and not one byte more."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(deflated, entry.size + 1)
    except zlib.error as error:
        raise BundleError(f"{source.name}: {entry.name} cannot be inflated: {error}", reason="corrupt") from None
    if len(content) != entry.size or not inflater.eof or inflater.unused_data:
        message = f"{source.name}: {entry.name} does not inflate to the {entry.size} bytes that it should have"
        raise BundleError(message, reason="corrupt")
    return content


def _check_crc(source: Source, entry: Entry, crc: int) -> None:
    if crc != entry.crc:
        message = f"{source.name}: {entry.name} is damaged: its CRC-32 is {crc:08x}, expected {entry.crc:08x}"
        raise BundleError(message, reason="corrupt")


def _check_digest(source: Source, entry: Entry, digest: str, member: Mapping[str, Any]) -> None:
    if digest != member["sha256"]:
        message = f"{source.name}: {entry.name} has SHA-256 {digest}, the manifest says {member['sha256']}"
        raise BundleError(message, reason="digest")


def _decode(source: Source, name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        return strict_json.loads(data, f"{source.name}: {name}")
    if name != bundle_format.README and not is_source(name):
        return data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{source.name}: {name}: {error}", reason="json") from None
