"""Signatures: who vouches for a bundle, told by an Ed25519 key.

A signature is over the bytes of `manifest.json`, whose digests cover all other members. It is in `signature.json`, the
one member that the manifest does not list. To make and to check one needs the package `cryptography`; to read what a
bundle says of its signature, and to load a bundle without asking for one, does not.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from gymtrain.bundle import strict_json
from gymtrain.bundle.directory import ATTRIBUTES, DATE_TIME
from gymtrain.bundle.format import SIGNATURE
from gymtrain.errors import BundleError, MissingDependencyError, SpecError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PublicKey: TypeAlias = "str | os.PathLike[str] | bytes | Ed25519PublicKey"
SignedBy: TypeAlias = "PublicKey | Sequence[PublicKey]"
PrivateKey: TypeAlias = "str | os.PathLike[str] | bytes | Ed25519PrivateKey"

ALGORITHM: Final = "ed25519"
_HEX: Final = {"public_key": 64, "signature": 128}
# What stands before the 32 bytes of an Ed25519 key in DER: https://www.rfc-editor.org/rfc/rfc8410
_DER: Final = bytes.fromhex("302a300506032b6570032100")


class Signature(NamedTuple):
    """What a bundle says of who signed it; it proves nothing before `check`.

    Args:
        public_key: 32 bytes.
        signature: 64 bytes, over the bytes of the manifest.
    """

    public_key: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the public key in DER, in hexadecimal: `openssl pkey -pubin -outform DER | sha256sum`."""
        return hashlib.sha256(_DER + self.public_key).hexdigest()

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON can hold it."""
        return {
            "algorithm": ALGORITHM,
            "public_key": self.public_key.hex(),
            "fingerprint": self.fingerprint,
            "signature": self.signature.hex(),
        }


def parse(data: bytes, where: str) -> Signature:
    """Read `signature.json`; nothing is checked but its form.

    Args:
        data: Its content.
        where: What it is called in an error.

    Raises:
        BundleError: `json`, `unknown_field` or `field_value`.
    """
    content = strict_json.loads(data, where)
    if unknown := sorted(content.keys() - {"algorithm", *_HEX}):
        raise BundleError(f"{where}: unknown key {unknown[0]!r}", reason="unknown_field")
    if content.get("algorithm") != ALGORITHM:
        raise BundleError(f"{where}: expected {ALGORITHM!r} as 'algorithm'", reason="field_value")
    for name, digits in _HEX.items():
        value = content.get(name)
        if not isinstance(value, str) or re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is None:
            message = f"{where}: expected {digits} hexadecimal digits as {name!r}"
            raise BundleError(message, reason="field_value")
    return Signature(bytes.fromhex(content["public_key"]), bytes.fromhex(content["signature"]))


def public_keys(signed_by: SignedBy) -> list[Ed25519PublicKey]:
    """Return the keys one of which a bundle has to be signed with.

    Args:
        signed_by: One or several: the path of a file with a public key in PEM, or in the form of OpenSSH; the content
            of such a file as bytes; or a key of `cryptography`.

    Raises:
        SpecError: One is no Ed25519 public key, or there is none.
        FileNotFoundError: There is no such file.
        MissingDependencyError: `cryptography` is not installed.
    """
    is_one = isinstance(signed_by, str | bytes) or not isinstance(signed_by, Sequence)
    keys = cast("Sequence[PublicKey]", [signed_by] if is_one else signed_by)
    if not keys:
        raise _misfit("signed_by", "got no key; expected at least one, or None to take any bundle")
    return [_public_key(key) for key in keys]


def check(signature: Signature | None, manifest: bytes, keys: Sequence[Ed25519PublicKey], where: str) -> None:
    """See whether one of the keys has signed a manifest.

    Args:
        signature: What the bundle has.
        manifest: The bytes of its manifest.
        keys: Those whose word counts.
        where: What the bundle is called in an error.

    Raises:
        BundleError: `signature`: there is none, it is of another key, or not of this manifest.
    """
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        message = f"{where} is not signed; sign it with `gymtrain sign`, or do not ask for a signature"
        raise BundleError(message, reason="signature")
    for key in keys:
        if key.public_bytes_raw() == signature.public_key:
            try:
                key.verify(signature.signature, manifest)
            except InvalidSignature:
                message = f"{where}: {SIGNATURE} is not a signature of this manifest; the bundle was changed"
                raise BundleError(message, reason="signature") from None
            return
    message = (
        f"{where} is signed with the key of SHA-256 {signature.fingerprint}, which is none of the {len(keys)} given"
    )
    raise BundleError(message, reason="signature")


def signer(key: PrivateKey, password: bytes | None = None) -> Callable[[bytes], bytes]:
    """Return what makes the content of `signature.json` of the bytes of a manifest.

    Args:
        key: The path of a file with a private key in PEM, or in the form of OpenSSH; the content of such a file as
            bytes; or a key of `cryptography`.
        password: Of the key, where it has one.

    Raises:
        SpecError: It is no Ed25519 private key, or the password is not its own.
        FileNotFoundError: There is no such file.
        MissingDependencyError: `cryptography` is not installed.

    Example:
        >>> import json
        >>> private, public = generate_key()
        >>> sorted(json.loads(signer(private)(b"{}")))
        ['algorithm', 'public_key', 'signature']
    """
    private = _private_key(key, password)

    def sign(manifest: bytes) -> bytes:
        content = {
            "algorithm": ALGORITHM,
            "public_key": private.public_key().public_bytes_raw().hex(),
            "signature": private.sign(manifest).hex(),
        }
        return strict_json.dumps(content, SIGNATURE)

    return sign


def generate_key() -> tuple[bytes, bytes]:
    """Return a new private key and its public key, in PEM.

    Raises:
        MissingDependencyError: `cryptography` is not installed.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def write_signature(archive: zipfile.ZipFile, signature: bytes) -> None:
    """Write the last member of a bundle, in place of an earlier one.

    Args:
        archive: Opened for writing or for appending.
        signature: The content of `signature.json`.
    """
    if archive.filelist and archive.filelist[-1].filename == SIGNATURE:
        old = archive.filelist.pop()
        del archive.NameToInfo[SIGNATURE]
        archive.start_dir = old.header_offset  # where the next member goes
    info = zipfile.ZipInfo(SIGNATURE, DATE_TIME)
    info.create_system = 3
    info.external_attr = ATTRIBUTES
    archive.writestr(info, signature)


def _public_key(given: PublicKey) -> Ed25519PublicKey:
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(given, Ed25519PublicKey):
        return given
    content, name = _read_key("signed_by", given)
    is_ssh = content.lstrip().startswith(b"ssh-")
    try:
        key = (serialization.load_ssh_public_key if is_ssh else serialization.load_pem_public_key)(content)
    except Exception as error:  # of many kinds: ValueError, UnsupportedAlgorithm, UnicodeDecodeError …
        raise _misfit("signed_by", f"{name} holds no public key in PEM or in the form of OpenSSH: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _misfit("signed_by", f"{name} is a key of another kind; expected an Ed25519 public key")
    return key


def _private_key(given: PrivateKey, password: bytes | None) -> Ed25519PrivateKey:
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(given, Ed25519PrivateKey):
        return given
    content, name = _read_key("sign_with", given)
    is_ssh = b"BEGIN OPENSSH PRIVATE KEY" in content
    load: Callable[..., Any] = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
    try:
        key = load(content, password)
    except Exception as error:  # of many kinds: ValueError, TypeError, UnsupportedAlgorithm …
        raise _misfit("sign_with", f"{name} holds no private key that can be used: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _misfit("sign_with", f"{name} is a key of another kind; expected an Ed25519 private key")
    return key


def _read_key(argument: str, given: object) -> tuple[bytes, str]:
    """Return the content of a file with a key, and what to call it."""
    if isinstance(given, bytes | bytearray):
        return bytes(given), "what was given"
    if not isinstance(given, str | os.PathLike) or "\0" in os.fsdecode(given):
        given = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise _misfit(argument, f"got {given}; expected the path of a key, or its content as bytes")
    with open(given, "rb") as file:
        return file.read(_MAX_KEY_BYTES), os.fspath(given)


_MAX_KEY_BYTES = 64 << 10


def _misfit(argument: str, message: str) -> SpecError:
    return SpecError.of_argument(argument, message)


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "signatures need the package cryptography, which is not installed; pip install 'gymtrain[signing]'"
        ) from error
