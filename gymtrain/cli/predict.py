"""`gymtrain predict`: labels of the rows of a table, or of images."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from gymtrain.cli.arguments import STDOUT, Trusted, check_place, find_modules_here, to_path
from gymtrain.cli.places import BundlePath, Sha256, SignedBy
from gymtrain.cli.terminal import say
from gymtrain.errors import TaskError, naming

if TYPE_CHECKING:
    from gymtrain.trainer import Trainer

SOME_LEFT_OUT = 1


def predict(
    bundle: BundlePath,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A CSV file with a header, or Parquet; or images: files, directories, - for paths on stdin.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there instead of to the terminal.", parser=to_path)
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Give the probability of each class too.")] = False,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Copy this column of the table in front.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=2**31 - 1, metavar="N", help="Rows of a table that are in memory at a time.")
    ] = 8192,
    kind: Annotated[
        Literal["csv", "parquet"] | None,
        typer.Option("--format", help="The format of a table, where its name does not tell."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Images: print CSV, as comes out of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Images: print JSON.")] = False,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images: show the N most probable classes.")
    ] = None,
    on_bad_sample: Annotated[
        Literal["skip", "raise"],
        typer.Option(help="Images: leave out one that cannot be used, and exit with 1 in the end; or stop there."),
    ] = "skip",
    sha256: Sha256 = None,
    signed_by: SignedBy = None,
    trust: Trusted = None,
) -> None:
    """Predict from the rows of a table, or from images."""
    find_modules_here()
    output = None if output == Path("-") else output
    check_place(output, *(Path(each) for each in inputs if os.path.exists(each)), bundle)
    if output is None and sys.__stdout__ is None:
        raise OSError(errno.EBADF, "It is closed; name a file with --output", STDOUT)
    from gymtrain.data.tables import KINDS, TableFile, kind_of

    if output is not None and kind_of(output) == "parquet":
        raise OSError(errno.EINVAL, "The output is CSV; name it .csv", str(output))

    from gymtrain.trainer import Trainer

    first = to_path(inputs[0])
    table = kind or (kind_of(first) if len(inputs) == 1 else None)
    if table is not None and first.exists() and not first.is_file():
        message = f"{str(first)!r} is a pipe or a device, and the rows are read twice; write them into a file"
        raise typer.BadParameter(message, param_hint="INPUT")
    rows = None if table is None else TableFile(first, table)
    trainer = Trainer.load(bundle, trust=trust or (), sha256=sha256, signed_by=signed_by or None)
    takes_images = trainer.features.are_images or trainer.features.are_pixels
    if proba:
        _require_probabilities(trainer)
    if len(inputs) > 1 and not takes_images:
        raise typer.BadParameter("the model was trained on rows; give one table", param_hint="INPUT")
    if rows is not None and (len(inputs) > 1 or trainer.features.are_images):
        raise typer.BadParameter("the model was trained on images; give images and no table", param_hint="INPUT")
    if rows is None and not takes_images:
        raise typer.BadParameter(
            f"{inputs[0]!r} ends in neither {', '.join(KINDS)}; say --format csv or --format parquet",
            param_hint="INPUT",
        )
    if rows is None:
        _refuse("a table and not for images", {"--id": id_column})
        _predict_images(trainer, inputs, output, on_bad_sample, proba=proba, csv=as_csv, json=as_json, top=top)
        return
    _refuse("images and not for a table", {"--json": as_json, "--top": top})

    from gymtrain.cli.predictions import Predictions

    predictions = Predictions(trainer, rows, id_column=id_column, proba=proba)
    with _sink(output) as sink:
        predictions.write(sink, batch_size)


def _predict_images(
    trainer: Trainer,
    inputs: list[str],
    output: Path | None,
    on_bad_sample: Literal["skip", "raise"],
    *,
    proba: bool,
    csv: bool,
    json: bool,
    top: int | None,
) -> None:
    if top is not None and (proba or csv or (output is not None and not json)):
        raise typer.BadParameter("it is for --json and what people read; leave it out", param_hint="--top")
    if csv and json:
        raise typer.BadParameter("give one of --csv and --json", param_hint="--json")
    from gymtrain.cli.images import ImagePredictions, paths_of

    predictions = ImagePredictions(trainer, paths_of(inputs), on_bad_sample, say)
    if csv or json or output is not None:
        with _sink(output) as sink:
            if json:
                predictions.write_json(sink, top)
            else:
                predictions.write_csv(sink, proba=proba)
    else:
        for line in predictions.lines(len(trainer.classes_) if proba else top):
            with naming(STDOUT):
                typer.echo(line)
    if predictions.left_out:
        say(f"Images left out: {predictions.left_out}.")
        raise typer.Exit(SOME_LEFT_OUT)


def _require_probabilities(trainer: Trainer) -> None:
    try:
        trainer.predict_blocks(iter(()), proba=True)
    except TaskError as error:
        why = str(error).removeprefix("predict_proba: ").removesuffix("; use predict()")
        raise typer.BadParameter(f"{why}; leave it out", param_hint="--proba") from None


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Refuse options that are given and mean nothing here."""
    for name, value in options.items():
        if value:
            raise typer.BadParameter(f"it is for {what}; leave it out", param_hint=name)


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    """Open a file that is written whole or not at all; without one it is stdout."""
    if output is None:
        with naming(STDOUT):
            yield sys.stdout.buffer
        return
    from gymtrain.bundle import atomic_write

    with atomic_write(output) as file:
        yield file
