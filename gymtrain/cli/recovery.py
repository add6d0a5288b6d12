"""The commands that deliver what trackers have missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymtrain.cli.arguments import to_directory
from gymtrain.cli.terminal import printable

if TYPE_CHECKING:
    from gymtrain.tracking import Delivered

UNDELIVERED = 1


def _to_root(text: str) -> Path:
    path = to_directory(text)
    if not path.is_dir():
        raise typer.BadParameter(f"Directory {str(path)!r} does not exist.")
    return path


Trust = Annotated[
    bool,
    typer.Option("--trust", help="Of a run that was not recorded here, do all that its journal says."),
]


def sync(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Directories of runs.", parser=to_directory)],
    trust: Trust = False,
) -> None:
    """Deliver what the trackers of runs have missed, from their journals."""
    from gymtrain.tracking import deliver

    _show([deliver(run, trust=trust, announce=_announce) for run in runs])


def doctor(
    root: Annotated[Path, typer.Argument(help="The root of the runs.", parser=_to_root)] = Path("runs"),
    trust: Trust = False,
) -> None:
    """Find the runs that died without a word or were not delivered, and complete them."""
    from gymtrain.tracking import deliver_all

    delivered = deliver_all(root, trust=trust, announce=_announce)
    _show(delivered)
    if not delivered:
        typer.echo("No run misses anything.")


def _announce(directory: Path, destinations: dict[str, dict[str, Any] | None]) -> None:
    """Say where the data are about to go: a journal may have come from anybody."""
    for name, arguments in destinations.items():
        told = ", ".join(f"{key}={json.dumps(value)}" for key, value in (arguments or {}).items() if value)
        typer.echo(f"{printable(str(directory))}: to {printable(name)} {printable(told)}".rstrip(), err=True)


def _show(delivered: list[Delivered]) -> None:
    for run in delivered:
        typer.echo(f"{printable(str(run.directory))}: {'complete' if run.is_complete else 'incomplete'}")
        for name, why in run.missing.items():
            if why is not None:
                typer.echo(f"  {printable(name)}: {printable(why)}", err=True)
        for each in run.left_out:
            typer.echo(f"  left out: {printable(each)}", err=True)
    if not all(run.is_complete for run in delivered):
        raise typer.Exit(UNDELIVERED)
