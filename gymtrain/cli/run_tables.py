"""Runs, and what differs between them, as tables for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from gymtrain.cli.comparison import Row, best_of, differences
from gymtrain.cli.console import Console
from gymtrain.cli.selection import Value, telling_metrics, value_of
from gymtrain.cli.terminal import printable
from gymtrain.tracking import RunSummary

_FACTS = ("name", "id", "experiment", "status", "started", "duration", "epochs")
# Those that are left out first where the terminal is narrow.
_SPARE = ("experiment", "epochs", "started", "duration")
_STYLES = {"RUNNING": "cyan", "FAILED": "red", "DIED": "red", "DAMAGED": "red", "KILLED": "yellow"}
_NUMBERS = {"duration", "epochs"}
# What a table puts around the content of a column.
_MARGIN = 3


def print_runs(runs: Sequence[RunSummary], columns: Sequence[str] | None) -> None:
    """Print a table of runs, as wide as the terminal allows: what there is no room for is left out and named below.

    Args:
        runs: In the order in which they are shown.
        columns: Metrics, params or tags, which are never left out; None for the most telling metrics.
    """
    console = wide_console()
    metrics = telling_metrics(runs) if columns is None else []
    keys = list(dict.fromkeys([*_FACTS, *(metrics if columns is None else columns)]))
    cells = {key: [_cell(key, value_of(run, key)) for run in runs] for key in keys}
    spare = [key for key in [*reversed(metrics[1:]), *_SPARE, *metrics[:1]] if key not in (columns or ())]
    left_out = []
    while spare and _width(keys, cells) > console.width:
        left_out.append(spare.pop(0))
        keys.remove(left_out[-1])
    table = Table()
    for key in keys:
        table.add_column(Text(printable(key)), justify="right" if _is_number(key, cells[key]) else "left")
    for position, run in enumerate(runs):
        table.add_row(*(Text(cells[key][position], _style(key, run)) for key in keys))
    console.print(table)
    if left_out:
        console.print(Text(f"no room for {', '.join(map(printable, left_out))}; --columns chooses"), style="dim")


def print_comparison(runs: Sequence[RunSummary], rows: Sequence[Row], unknown: dict[str, list[int]]) -> None:
    """Print what differs between runs, a table for each section; the better metric is marked with a star.

    Args:
        runs: Those that are compared.
        rows: What is shown of them.
        unknown: The positions of the runs of which a section is not known.
    """
    console = wide_console()
    console.print(_heads(runs))
    for section in dict.fromkeys(row.section for row in rows):
        shown = [row for row in rows if row.section == section]
        table = _table(section, *_labels(runs))
        for row in shown:
            texts = _metric_cells(row, runs) if section == "metrics" else [_plain(value) for value in row.values]
            # What differs stands out where the rest is shown too.
            style = "" if row.differs else "dim"
            table.add_row(Text(printable(row.key), style), *(Text(text, style) for text in texts))
        console.print(table)
    for section, without in unknown.items():
        labels = ", ".join(_labels(runs)[position] for position in without)
        console.print(Text(f"{section}: not known of {labels}"), style="dim")


def wide_console() -> Console:
    """In a pipe lines are as long as they need to be, so that programs can read them."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def _heads(runs: Sequence[RunSummary]) -> Table:
    table = _table("run", *_labels(runs))
    facts = {
        "experiment": [run.experiment for run in runs],
        "status": [run.status for run in runs],
        "started": [_cell("started", run.started) for run in runs],
        "where": ["" if run.directory is None else str(run.directory) for run in runs],
    }
    for name, values in facts.items():
        if any(values):
            table.add_row(Text(name), *(Text(printable(value)) for value in values))
    return table


def _table(*headers: str) -> Table:
    table = Table()
    for header in headers:
        table.add_column(Text(header))  # a string would be read as markup
    return table


def _labels(runs: Sequence[RunSummary]) -> list[str]:
    return [printable(" ".join(filter(None, (run.name, run.id[:8])))) for run in runs]


def _metric_cells(row: Row, runs: Sequence[RunSummary]) -> list[str]:
    best = best_of(row.key, row.values, runs)
    cells = []
    for position, (value, change) in enumerate(zip(row.values, differences(row.values), strict=True)):
        cell = _plain(value) + (" *" if position in best else "")
        cells.append(f"{cell} ({change:+.4g})" if position and change else cell)
    return cells


def _width(keys: Sequence[str], cells: dict[str, list[str]]) -> int:
    return 1 + sum(max(map(cell_len, [key, *cells[key]])) + _MARGIN for key in keys)


def _style(key: str, run: RunSummary) -> str:
    return _STYLES.get(run.status, "") if key == "status" else ""


def _is_number(key: str, cells: Sequence[str]) -> bool:
    return key in _NUMBERS or all(
        cell.replace(".", "").replace("-", "").replace("e", "").isdigit() for cell in cells if cell
    )


def _cell(key: str, value: Value) -> str:
    match key, value:
        case "id", str():
            return printable(value[:8])
        case "started" | "ended", float():
            return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
        case "duration", float():
            return _duration(value)
    return _plain(value)


def _duration(seconds: float) -> str:
    """Seconds below a minute, hours, minutes and seconds above.

    Example:
        >>> _duration(1.25), _duration(3725.0)
        ('1.2 s', '1:02:05')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _plain(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else printable(str(value))
