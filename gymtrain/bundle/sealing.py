"""Signs a bundle that is there already."""

from __future__ import annotations

import os
import zipfile

from gymtrain.bundle.addresses import is_of_mlflow, is_url, shown
from gymtrain.bundle.atomic import atomic_write
from gymtrain.bundle.format import SIGNATURE
from gymtrain.bundle.reader import open_bundle
from gymtrain.bundle.signing import PrivateKey, Signature, parse, signer, write_signature
from gymtrain.bundle.source import Source
from gymtrain.errors import SaveError


def sign(path: str | os.PathLike[str], key: PrivateKey, password: bytes | None = None) -> Signature:
    """Sign a bundle, or sign it anew, in place, once all of it has been verified; its other members stay as they are.

    Args:
        path: The bundle.
        key: As `signer` takes it.
        password: Of the key, where it has one.

    Raises:
        BundleError: The file is no bundle, or was damaged.
        SaveError: It is an address.
        SpecError: It is no Ed25519 private key, or the password is not its own.
        MissingDependencyError: `cryptography` is not installed.
        OSError: The file cannot be read or written; what was there still is.
    """
    if is_url(path) or is_of_mlflow(path):
        raise SaveError(f"{shown(path)!r} is not on this machine; download it, sign the file, and upload it")
    signature_of = signer(key, password)
    # Opened once: what is copied is what was verified, also where somebody puts another file there meanwhile.
    with Source(path) as source, open_bundle(source.file) as bundle, atomic_write(path) as file:
        signature = signature_of(bundle.manifest_bytes)
        file.writelines(source.chunks(0, source.size))
        with zipfile.ZipFile(file, "a") as archive:
            write_signature(archive, signature)
    return parse(signature, SIGNATURE)
