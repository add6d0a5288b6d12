"""`gymtrain preview`: what the model would see, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gymtrain.cli.arguments import EXISTING, check_place, find_modules_here, to_path


def preview(
    spec: Annotated[Path, typer.Argument(help="A JSON or YAML file.", **EXISTING)],
    output: Annotated[
        Path, typer.Option(metavar="PNG", help="Write the picture there.", parser=to_path, show_default="preview.png")
    ] = Path("preview.png"),
    samples: Annotated[int, typer.Option(min=1, max=64, help="How many samples of the train part are drawn.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, max=64, help="In how many epochs.")] = 3,
) -> None:
    """Draw what the augmentors of a spec make of the first images of the train part; nothing is trained."""
    find_modules_here()
    check_place(output, spec)
    if output.suffix.lower() != ".png":
        raise typer.BadParameter(f"the picture is a PNG; got {str(output)!r}, name it .png", param_hint="--output")
    from gymtrain.bundle import atomic_write
    from gymtrain.specs import Experiment, read_spec_file

    experiment = Experiment(**read_spec_file(spec))

    from gymtrain.trainer.preview import preview as drawn

    figure = drawn(experiment, samples, epochs)
    with atomic_write(output) as file:
        figure.savefig(file, format="png")
    typer.echo(str(output))
