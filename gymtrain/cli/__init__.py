"""The command line: `gymtrain --help`.

What a command needs is imported inside it, so that asking for help loads neither torch nor mlflow nor numpy.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from gymtrain.cli.arguments import (
    EXISTING,
    STDOUT,
    AsJson,
    Trusted,
    check_place,
    find_modules_here,
    to_directory,
)
from gymtrain.cli.bundles import diff, inspect, reproduce, verify
from gymtrain.cli.datasets import datasets
from gymtrain.cli.exporting import export
from gymtrain.cli.keys import keygen, sign
from gymtrain.cli.places import BundlePath, Sha256, SignedBy
from gymtrain.cli.predict import predict
from gymtrain.cli.preview import preview
from gymtrain.cli.recovery import doctor, sync
from gymtrain.cli.runs import compare, runs
from gymtrain.cli.saliency import saliency
from gymtrain.cli.terminal import say
from gymtrain.cli.ui import ui
from gymtrain.errors import CallbackError, GymtrainError, TrainingError, naming

FAILED, REFUSED, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


class Commands(typer.core.TyperGroup):
    """Commands whose errors are one message and an exit code; GYMTRAIN_DEBUG=1 shows where they come from."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        _open_what_is_closed()
        try:
            result = super().invoke(ctx)
            with naming(STDOUT):
                sys.stdout.flush()
            return result
        except typer.BadParameter as error:
            error.message = _in_words(error.message)
            raise
        except (GymtrainError, OSError, KeyboardInterrupt) as error:
            if os.environ.get("GYMTRAIN_DEBUG") == "1":
                raise
            raise typer.Exit(_report(error)) from None


def _open_what_is_closed() -> None:
    """Give a program whose caller has closed its output one that leads nowhere, before a file takes the number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the program ends


def _in_words(message: str) -> str:
    """Say what pydantic finds with the value of an option as it is said elsewhere."""
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be ([^,]*).*", r"expected a value that is \1", message)


def _report(error: BaseException) -> int:
    """Say what happened, in words; return the exit code."""
    if isinstance(error, BrokenPipeError):
        # Whoever read has gone; what is still in the buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        say("Interrupted.")
        return INTERRUPTED
    say(f"Error: {_message(error)}")
    return FAILED if isinstance(error, TrainingError | CallbackError) else REFUSED


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


# Plain help: rich takes longer to load than all the rest.
app = typer.Typer(
    cls=Commands,
    help="Train models that a file describes, track the runs, and predict from the bundles they leave.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from gymtrain import __version__

        typer.echo(f"gymtrain {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Nothing but what all commands have in common."""


Spec = Annotated[Path, typer.Argument(help="A JSON or YAML file.", **EXISTING)]
Root = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write the run there, whatever the spec says.", parser=to_directory)
]


@app.command()
def validate(
    specs: Annotated[list[Path], typer.Argument(help="JSON or YAML files.", **EXISTING)],
    resolved: Annotated[
        bool,
        typer.Option("--resolved", help="Print the spec with every default written out, in the format it came in."),
    ] = False,
) -> None:
    """Check specs; say all that is wrong with them."""
    from gymtrain.specs import Experiment, read_spec_file

    find_modules_here()
    refused = False
    for path in specs:
        try:
            experiment = Experiment(**read_spec_file(path))
        except GymtrainError as error:
            refused = True
            say(f"{path}: {error}")
            continue
        typer.echo(_written(path, experiment.to_dict()) if resolved else f"{path}: OK {experiment.sha256}")
    if refused:
        raise typer.Exit(REFUSED)


def _written(path: Path, content: dict[str, Any]) -> str:
    if path.suffix.lower() == ".json":
        return _json(content)
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, explicit_start=True)
    return text.rstrip("\n")


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


app.command()(datasets)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from gymtrain.specs import json_schema

    typer.echo(_json(json_schema()))


app.command()(preview)


@app.command()
def train(
    spec: Spec,
    save: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Write the trained model there: a file or an address.")
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    root: Root = None,
    fast_dev_run: Annotated[
        bool, typer.Option("--fast-dev-run", help="Try everything for one step; nothing is learned.")
    ] = False,
    overfit_batches: Annotated[
        int, typer.Option(min=0, metavar="N", help="Try to learn the first N batches by heart; no model is kept.")
    ] = 0,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|PATH", help="Go on from the newest checkpoint that fits, or from this one or run."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train what a spec describes."""
    find_modules_here()
    check_place(save, spec)
    if save is not None and (fast_dev_run or overfit_batches):
        raise typer.BadParameter(
            "--fast-dev-run and --overfit-batches leave no model to write; leave it out", param_hint="--save"
        )
    content = _read_spec(spec, root)

    from gymtrain.trainer import Trainer
    from gymtrain.training.progress import ProgressBar

    trainer = Trainer.from_dict(content)
    show_progress = sys.stderr.isatty() and not no_progress
    callbacks = [ProgressBar()] if show_progress else []
    try:
        result = trainer.train(callbacks, resume or False, fast_dev_run=fast_dev_run, overfit_batches=overfit_batches)
    except BaseException:
        _tell_of_checkpoints(trainer.result)
        raise
    if save is not None:
        trainer.save(save)
    if as_json:
        typer.echo(_json(result))
    else:
        from gymtrain.cli.reports import print_result

        print_result(result, save)


def _tell_of_checkpoints(result: dict[str, Any] | None) -> None:
    """Say how to go on after a training that was interrupted or failed."""
    written = sorted(Path(result["run"]["checkpoint_dir"]).glob("epoch-*.zip")) if result else []
    if written:
        say(f"The last checkpoint is {written[-1]}; go on with --resume auto.")


def _read_spec(path: Path, root: Path | None) -> dict[str, Any]:
    from gymtrain.specs import read_spec_file

    content = read_spec_file(path)
    if root is not None:
        tracking = content.get("tracking", {})
        content["tracking"] = {**tracking, "root": str(root)} if isinstance(tracking, dict) else tracking
    return content


@app.command()
def find_lr(
    spec: Spec,
    minimum: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-7,
    maximum: Annotated[float, typer.Option(help="The last one, where the loss does not blow up before.")] = 10.0,
    steps: Annotated[int, typer.Option(min=10, metavar="N", help="How many optimizer steps are taken.")] = 100,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Find a learning rate for what a spec describes; no model is kept."""
    find_modules_here()
    content = _read_spec(spec, root)

    from gymtrain.trainer import Trainer

    found = Trainer.from_dict(content).find_lr(minimum, maximum, steps)
    if as_json:
        typer.echo(_json(found))
    else:
        from gymtrain.cli.reports import print_learning_rates

        print_learning_rates(found)


app.command()(predict)
app.command()(saliency)
app.command()(inspect)
app.command()(verify)
app.command()(diff)
app.command()(reproduce)
app.command()(sign)
app.command()(keygen)


@app.command()
def estimate(
    bundle: BundlePath,
    repetitions: Annotated[int, typer.Option(min=1, help="How often one prediction is timed.")] = 500,
    sha256: Sha256 = None,
    signed_by: SignedBy = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a prediction costs on this machine: parameters, memory, time."""
    find_modules_here()
    from gymtrain.trainer import Trainer

    trainer = Trainer.load(bundle, trust=trust or (), sha256=sha256, signed_by=signed_by or None)
    found = trainer.estimate(repetitions)
    if as_json:
        typer.echo(_json(found))
    else:
        from gymtrain.cli.reports import print_estimate

        print_estimate(found)


app.command()(export)
app.command()(runs)
app.command()(compare)
app.command()(ui)
app.command()(sync)
app.command()(doctor)
