"""The commands that look at bundles: what one is, whether it does what it did, what differs between two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymtrain.cli.arguments import (
    AsJson,
    Trusted,
    check_place,
    find_modules_here,
    print_json,
)
from gymtrain.cli.places import BundlePath, DataHere, Sha256, SignedBy

if TYPE_CHECKING:
    from gymtrain.trainer import Trainer

NOT_THE_SAME = 1


def inspect(bundle: BundlePath, sha256: Sha256 = None, as_json: AsJson = False) -> None:
    """Show what a bundle is, without loading it."""
    from gymtrain.bundle import inspect as read_bundle

    content = read_bundle(bundle, sha256=sha256)
    if as_json:
        print_json(content)
    else:
        from gymtrain.cli.reports import print_bundle

        print_bundle(bundle, content)


def verify(
    bundle: BundlePath,
    sha256: Sha256 = None,
    signed_by: SignedBy = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle, and whether its model gives on this machine what it gave where it was written."""
    find_modules_here()
    from gymtrain.hardware import hardware_info
    from gymtrain.trainer import Trainer

    trainer = Trainer.load(bundle, trust or (), sha256=sha256, signed_by=signed_by or None)
    replayed = trainer.verify()
    found = {
        "signature": "checked" if signed_by else "not checked",
        **replayed,
        "environment": _changes(bundle, trainer, {"hardware_info": hardware_info()}),
    }
    if as_json:
        print_json(found)
    else:
        from gymtrain.cli.findings import print_verification

        print_verification(bundle, found)
    if replayed["verdict"] == "different":
        raise typer.Exit(NOT_THE_SAME)


def diff(
    one: BundlePath,
    other: BundlePath,
    everything: Annotated[bool, typer.Option("--all", help="Show also what is equal, but for the tensors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show all that differs between two bundles, weights included; `compare` shows what differs between runs."""
    from gymtrain.bundle import differences, open_bundle
    from gymtrain.cli import comparison
    from gymtrain.tracking import bundled_run

    runs, described = [], []
    with open_bundle(one) as first, open_bundle(other) as second:
        for path, bundle in ((one, first), (other, second)):
            content = {"manifest": bundle.manifest, "spec": bundle.spec, "results": bundle.results}
            runs.append(bundled_run(path, content))
            signer = None if bundle.signature is None else bundle.signature.fingerprint
            known = comparison.described(runs[-1], bundle.schema)
            described.append({**known, "signature": {"says it is of the key of SHA-256": signer}})
        learned = differences(first, second)
    rows = comparison.compare(described, comparison.SECTIONS_OF_BUNDLES)
    identical = not learned and not any(row.differs for row in rows)
    if as_json:
        told = comparison.to_dict(runs, rows, everything=everything)
        print_json(told | {"identical": identical, "learned": [each._asdict() for each in learned]})
    else:
        from gymtrain.cli.findings import print_learned
        from gymtrain.cli.run_tables import print_comparison

        shown = [row for row in rows if row.differs or everything]
        print_comparison(runs, shown, comparison.unknown(described, comparison.SECTIONS_OF_BUNDLES))
        print_learned([run.name for run in runs], [each._asdict() for each in learned])
        if identical:
            typer.echo(f"No difference in {', '.join(comparison.SECTIONS_OF_BUNDLES)}, and in what was learned.")
    if not identical:
        raise typer.Exit(NOT_THE_SAME)


def reproduce(
    bundle: BundlePath,
    data: DataHere = None,
    keep: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Write the new bundle there: a file or an address.")
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    sha256: Sha256 = None,
    signed_by: SignedBy = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Train again from what is in a bundle, and say whether the same comes of it."""
    find_modules_here()
    check_place(keep, bundle, *([] if data is None else [data]))
    from gymtrain.cli.datafiles import arguments_from
    from gymtrain.trainer import Trainer
    from gymtrain.training.progress import ProgressBar

    trainer = Trainer.load(bundle, trust or (), sha256=sha256, signed_by=signed_by or None)
    given = {} if data is None else arguments_from(data, trainer.to_dict()["dataset"]["dataset"])
    callbacks = [ProgressBar()] if sys.stderr.isatty() and not no_progress else []
    found = trainer.reproduce(given, callbacks, keep=keep)
    found["environment"] = _changes(bundle, trainer, found["result"])
    if as_json:
        print_json(found)
    else:
        from gymtrain.cli.findings import print_reproduction

        print_reproduction(bundle, found, keep)
    if not found["same_bits"]:
        raise typer.Exit(NOT_THE_SAME)


def _changes(path: Path, trainer: Trainer, here: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is known of the machine and the versions of a bundle and is not so here: both values by name."""
    from gymtrain.tracking import bundled_run

    told = {"manifest": {"versions": {}}, "spec": trainer.to_dict()}
    then, now = (bundled_run(path, {**told, "results": result}).environment for result in (trainer.result or {}, here))
    return {name: [then[name], now[name]] for name in then if name in now and then[name] != now[name]}
