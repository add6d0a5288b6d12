"""What several commands have in common: their arguments, and where a class of the user's is looked for."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

EXISTING: dict[str, Any] = {"exists": True, "dir_okay": False, "readable": True}
Trusted = Annotated[
    list[str] | None, typer.Option(metavar="MODULE:CLASS", help="Allow the bundle to use this class of yours.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


STDOUT = "standard output"


def to_place(text: str) -> str:
    """Return a path or an address; an empty one, as a variable gives that is not set, is not the directory here."""
    if not text:
        raise typer.BadParameter("got an empty path")
    return text


def to_path(text: str) -> Path:
    """Return the path of an argument."""
    return Path(to_place(str(text)))


def to_directory(text: str) -> Path:
    """Return the path of a directory that need not be there yet."""
    path = to_path(text)
    if path.is_file():
        raise typer.BadParameter(f"Directory {text!r} is a file.")
    return path


def find_modules_here() -> None:
    """Let 'package.module:Class' be a module of the working directory, after all that is installed."""
    if "" not in sys.path:
        sys.path.append("")


def check_place(place: str | Path | None, *sources: Path) -> None:
    """Refuse a place that cannot be written, or that is one of the sources, before the work is done and not after."""
    if place is None:
        return
    if str(place) == "-":
        raise OSError(errno.EINVAL, "Nothing but predictions goes to the terminal; name a file, ./- for this one", "-")
    from gymtrain.bundle import check_target, is_url

    check_target(place)
    for source in [] if is_url(place) else sources:
        if os.path.exists(place) and os.path.samefile(place, source):
            raise FileExistsError(errno.EEXIST, f"Would replace {source}, which is read; name another file", str(place))


def print_json(content: Any) -> None:
    """Print what came out of somebody's file, in ASCII: it may hold what a terminal obeys, or what it cannot show."""
    typer.echo(json.dumps(content, indent=2))
