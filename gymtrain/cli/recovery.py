"""The commands that deliver what trackers have missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gymtrain.cli.terminal import printable

if TYPE_CHECKING:
    from gymtrain.tracking import Delivered

UNDELIVERED = 1


def sync(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Directories of runs.", file_okay=False)],
) -> None:
    """Deliver what the trackers of runs have missed, from their journals."""
    from gymtrain.tracking import deliver

    _show([deliver(run) for run in runs])


def doctor(
    root: Annotated[Path, typer.Argument(help="The root of the runs.", exists=True, file_okay=False)] = Path("runs"),
) -> None:
    """Find the runs that died without a word or were not delivered, and complete them."""
    from gymtrain.tracking import deliver_all

    delivered = deliver_all(root)
    _show(delivered)
    if not delivered:
        typer.echo("No run misses anything.")


def _show(delivered: list[Delivered]) -> None:
    for run in delivered:
        typer.echo(f"{printable(str(run.directory))}: {'complete' if run.is_complete else 'incomplete'}")
        for name, why in run.missing.items():
            if why is not None:
                typer.echo(f"  {printable(name)}: {printable(why)}", err=True)
    if not all(run.is_complete for run in delivered):
        raise typer.Exit(UNDELIVERED)
