"""`gymtrain saliency`: where a model looks, as pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gymtrain.cli.arguments import Trusted, find_modules_here, to_directory
from gymtrain.cli.places import BundlePath, Sha256, SignedBy
from gymtrain.cli.terminal import printable

LEAST_SIDE = 224


def saliency(
    bundle: BundlePath,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, directories, - for paths on stdin.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Write a picture for each image there.", parser=to_directory)
    ],
    target: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Ask about this label, not the most probable one.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=10_000, metavar="N", help="Average over N noisy copies; 0 for the image alone.")
    ] = 0,
    sha256: Sha256 = None,
    signed_by: SignedBy = None,
    trust: Trusted = None,
) -> None:
    """Draw on images which of their pixels count for what the model says."""
    find_modules_here()
    from gymtrain.bundle import atomic_write
    from gymtrain.cli.images import paths_of
    from gymtrain.trainer import Trainer

    trainer = Trainer.load(bundle, trust=trust or (), sha256=sha256, signed_by=signed_by or None)
    if not (trainer.features.are_images or trainer.features.are_pixels):
        raise typer.BadParameter("the model was not trained on images", param_hint="BUNDLE")

    import PIL.Image

    output.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    for path in paths_of(images):
        (picture,) = trainer.saliency([path], target, samples=samples, overlay=True)
        name = Path(path).stem
        taken[name] = taken.get(name, 0) + 1
        number = f".{taken[name]}" if taken[name] > 1 else ""
        place = output / f"{name}{number}.saliency.png"
        times = max(1, LEAST_SIDE // max(picture.shape[:2]))
        with atomic_write(place) as file:
            PIL.Image.fromarray(picture.repeat(times, axis=0).repeat(times, axis=1)).save(file, "PNG")
        typer.echo(printable(os.fspath(place)))
