"""What is made of a bundle for other places that keep models."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from gymtrain.cli.arguments import to_path
from gymtrain.cli.places import BundlePath


def export(
    bundle: BundlePath,
    hub: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Make a folder there, of what a repository on the Hub of Hugging Face has.",
            parser=to_path,
        ),
    ],
) -> None:
    """Lay out a bundle as a folder that is ready to be uploaded; nothing is sent."""
    from gymtrain.bundle import open_bundle
    from gymtrain.trainer.hub import export_to_hub_folder

    with open_bundle(bundle):
        pass  # what is wrong with it is said of this file, and not of a copy
    export_to_hub_folder(hub, lambda path: shutil.copyfile(bundle, path))
    typer.echo(f"{hub} is ready; upload it with: hf upload ORGANIZATION/NAME {shlex.quote(str(hub))}")
