"""What several commands have in common: their arguments, and where a class of the user's is looked for."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

EXISTING: dict[str, Any] = {"exists": True, "dir_okay": False, "readable": True}
Trusted = Annotated[
    list[str] | None, typer.Option(metavar="MODULE:CLASS", help="Allow the bundle to use this class of yours.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def find_modules_here() -> None:
    """Let 'package.module:Class' be a module of the working directory, after all that is installed."""
    if "" not in sys.path:
        sys.path.append("")


def check_place(path: Path | None, *sources: Path) -> None:
    """Refuse a place that cannot be written, or that is one of the sources, before the work is done and not after."""
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory; name a file in it", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such directory; create it first", str(path.parent))
    for source in sources:
        if path.exists() and path.samefile(source):
            raise FileExistsError(errno.EEXIST, f"Would replace {source}, which is read; name another file", str(path))


def check_target(save: str | None, spec: Path) -> None:
    """Refuse a place or an address to save to before the training and not after."""
    from gymtrain.bundle import check_target as check_address
    from gymtrain.bundle import is_url

    if is_url(save):
        check_address(save)
    elif save is not None:
        check_place(Path(save), spec)


def print_json(content: Any) -> None:
    """Print what came out of somebody's file, in ASCII: it may hold what a terminal obeys, or what it cannot show."""
    typer.echo(json.dumps(content, indent=2))
