"""The commands that make signatures, and keys for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gymtrain.cli.arguments import EXISTING, STDOUT, to_path
from gymtrain.cli.places import BundleHere


def sign(
    bundle: BundleHere,
    key: Annotated[
        Path, typer.Option(metavar="KEY", help="An Ed25519 private key, in PEM or in the form of OpenSSH.", **EXISTING)
    ],
    ask: Annotated[bool, typer.Option("--password", help="Ask for the password of the key.")] = False,
) -> None:
    """Sign a bundle in place, so that others can see that it is yours."""
    from gymtrain.bundle import sign as sign_bundle

    password = typer.prompt("Password of the key", hide_input=True, err=True).encode() if ask else None
    signature = sign_bundle(bundle, key, password)
    typer.echo(f"{bundle} is signed with the key of SHA-256 {signature.fingerprint}")


def keygen(
    key: Annotated[
        Path,
        typer.Argument(metavar="KEY", help="Where the private key goes; the public one to KEY.pub.", parser=to_path),
    ],
) -> None:
    """Make a pair of Ed25519 keys to sign bundles with."""
    from gymtrain.bundle import generate_key

    private, public = generate_key()
    _create(key, private, 0o600)
    try:
        _create(key.with_name(f"{key.name}.pub"), public, 0o644)
    except OSError:
        key.unlink()
        raise
    try:
        typer.echo(f"{key} is the private key, which has no password: keep it to yourself")
        typer.echo(f"{key}.pub is the public key, for those who load what you sign")
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {key} and {key}.pub are written", STDOUT) from error


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet: a key that was lost cannot be had again."""
    with open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, mode)) as file:
        try:
            file.write(content)
        except OSError as error:
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
