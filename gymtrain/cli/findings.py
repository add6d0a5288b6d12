"""What came of checking, comparing and reproducing bundles, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gymtrain.cli.console import Console
from gymtrain.cli.reports import print_lines
from gymtrain.cli.run_tables import wide_console
from gymtrain.cli.terminal import printable

_DIGEST_DIGITS = 12


def print_verification(path: Path, found: Mapping[str, Any]) -> None:
    """Print what `gymtrain verify` found."""
    console = Console()
    labels, largest = found["changed_labels"], found["largest_difference"]
    outputs = found["verdict"]
    if outputs != "same bits":
        by = "numbers that are not finite" if largest is None else f"at most {largest:.3g}"
        outputs += f": scores differ by {by}, allowed is {found['tolerance']:.3g}"
    print_lines(
        console,
        {
            "bundle": f"{path}, all digests are right",
            "signature": "of a given key" if found["signature"] == "checked" else "not asked for",
            "replayed": f"{found['rows']} rows",
            "outputs": outputs,
            "labels": None if labels is None else f"{labels} of {found['rows']} are others" if labels else "the same",
        },
    )
    if found["verdict"] != "same bits":
        _print_changes(console, "environment", found["environment"])


def print_learned(names: Sequence[str], learned: Sequence[Mapping[str, Any]]) -> None:
    """Print what two bundles have learned differently.

    Args:
        names: Of the two.
        learned: What `gymtrain.bundle.differences` returned, as dicts.
    """
    if not learned:
        return
    table = Table()
    for name in ("learned", *names, "largest difference", "numbers that differ"):
        table.add_column(Text(printable(name)))
    for each in learned:
        largest, differing = each["largest"], each["differing"]
        numbers = ["" if largest is None else f"{largest:.3g}", "" if differing is None else f"{differing:,}"]
        table.add_row(*map(_cell, [each["name"], _short(each["one"]), _short(each["other"]), *numbers]))
    wide_console().print(table)


def print_reproduction(path: Path, found: Mapping[str, Any], kept: str | None) -> None:
    """Print what `Trainer.reproduce` returned, with what is another environment."""
    console = Console()
    learned, metrics = found["learned"], found["metrics"]
    data = [f"{part} {rows['rows']:,} rows" for part, rows in found["result"]["data"].items()]
    print_lines(
        console,
        {
            "bundle": str(path),
            "data": f"the same: {', '.join(data)}",
            "learned": "the same bits" if found["same_bits"] else f"not the same: {len(learned)} differences",
            "metrics": "the same" if not metrics else f"{len(metrics)} are not the same",
            "ended": None if found["same_bits"] else " then, now ".join(map(str, found["stop_reason"])),
            "kept": kept,
        },
    )
    print_learned(("then", "now"), learned)
    _print_changes(console, "metric", {name: [_last(value) for value in both] for name, both in metrics.items()})
    _print_changes(console, "environment", found["environment"])


def _print_changes(console: Console, what: str, changes: Mapping[str, Sequence[Any]]) -> None:
    if changes:
        table = Table(what, "then", "now")
        for name, (then, now) in changes.items():
            table.add_row(_cell(name), _cell(then), _cell(now))
        wide_console().print(table)


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, list) and value else value


def _short(told: str | None) -> str:
    """What a tensor or a member is, with the first digits of its SHA-256."""
    if told is None:
        return ""
    kind, _, digest = told.rpartition(" ")
    return f"{kind} {digest[:_DIGEST_DIGITS]}"


def _cell(value: object) -> Text:
    return Text("" if value is None else printable(str(value)))
