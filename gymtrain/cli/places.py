"""Where the bundles of commands are: in files, or at addresses, from where they are fetched while a command runs."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gymtrain.cli.arguments import EXISTING

_NAME = re.compile(r"\w[\w.-]{0,99}")


def _file_of(context: typer.Context, place: str) -> Path:
    """Return the file of a bundle; what is fetched is gone when the command ends."""
    from gymtrain.bundle import is_of_mlflow, is_url, local_path
    from gymtrain.tracking import fetched

    if is_of_mlflow(place):
        return context.with_resource(fetched(place, None))
    path = local_path(place) if is_url(place) else place
    return context.with_resource(_downloaded(place)) if path is None else _existing(path)


def _file_here(place: str | None) -> Path | None:
    """Return a file of this machine, which is read or written there."""
    from gymtrain.bundle import is_of_mlflow, is_url, local_path
    from gymtrain.bundle.addresses import shown

    if place is None:
        return None
    path = local_path(place) if is_url(place) else None if is_of_mlflow(place) else place
    if path is None:
        raise typer.BadParameter(f"{shown(place)!r} is not on this machine; download it, and give the path of the file")
    return _existing(path)


def _existing(path: str) -> Path:
    if not os.path.exists(path):
        raise typer.BadParameter(f"File {path!r} does not exist.")
    if os.path.isdir(path):
        raise typer.BadParameter(f"File {path!r} is a directory.")
    if not os.access(path, os.R_OK):
        raise typer.BadParameter(f"File {path!r} is not readable.")
    return Path(path)


@contextlib.contextmanager
def _downloaded(url: str) -> Iterator[Path]:
    """Download a bundle, under the name that it has there, into a directory that is gone when the block ends."""
    from gymtrain.bundle import download

    with tempfile.TemporaryDirectory(prefix="gymtrain-") as directory:
        name = posixpath.basename(url.partition("?")[0])
        path = Path(directory, name if _NAME.fullmatch(name) else "bundle.zip")
        with open(path, "xb") as file:
            download(url, file)
        yield path


BundlePath = Annotated[
    Path,
    typer.Argument(metavar="BUNDLE", help="A file that `save` wrote, or its address.", parser=str, callback=_file_of),
]
BundleHere = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A file that `save` wrote.", parser=str, callback=_file_here)
]
DataHere = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The data, where the bundle does not say where they are now.",
        parser=str,
        callback=_file_here,
    ),
]
Sha256 = Annotated[
    str | None, typer.Option("--sha256", metavar="DIGEST", help="Refuse the bundle unless its file has this SHA-256.")
]
SignedBy = Annotated[
    list[Path] | None,
    typer.Option(metavar="KEY", help="Refuse it unless this public key has signed it; repeatable.", **EXISTING),
]
