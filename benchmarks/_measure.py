"""What the benchmarks share: turns in one process, ratios within a round, tables in Markdown."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

Rounds = dict[str, list[float]]


class Spread(NamedTuple):
    """The median of some figures, and how far they reach."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def arguments_parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return what reads `--rounds`, `--quick` and `--threads`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each contender has its turn")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it runs, not how fast")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; one makes figures comparable")
    return parser


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """Read `--rounds`, `--quick` and `--threads`."""
    return arguments_parser(description, rounds).parse_args()


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Let each contender have its turn in each round and return what it measured; every other round goes backwards.

    What else the machine does hits all contenders of a round alike, so that ratios within a round can be trusted where
    times cannot. One round before them is not counted: it warms up caches and the allocator.
    """
    results: Rounds = {name: [] for name in contenders}
    for index in range(-1, rounds):
        for name in list(contenders) if index % 2 == 0 else list(contenders)[::-1]:
            figure = contenders[name]()
            if index >= 0:
                results[name].append(figure)
    return results


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the ratio of each round."""
    return Spread.of([one / other for one, other in zip(numerators, denominators, strict=True)])


def differences(ones: Sequence[float], others: Sequence[float]) -> Spread:
    """Return the difference of each round."""
    return Spread.of([one - other for one, other in zip(ones, others, strict=True)])


def header(*packages: str, rounds: int, threads: int | None = None) -> str:
    """Say what was measured on: the machine, how busy it is, the versions."""
    from gymtrain.hardware import hardware_info

    cpu = hardware_info()["cpu"]
    machine = f"{cpu['brand'] or cpu['arch']}, {cpu['cores_available']} cores, {platform.system()}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    lines = [
        f"- machine: {machine}; load {load}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- {rounds} interleaved rounds"
        + ("" if threads is None else f", {threads} thread{'s' * (threads != 1)} each"),
    ]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column to the left and figures to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(columns), rule, *map(line, rows)])


def spread_text(spread: Spread, digits: int = 3) -> tuple[str, str]:
    """Return the median and the range as two cells."""
    return f"{spread.median:.{digits}f}", f"{spread.low:.{digits}f} to {spread.high:.{digits}f}"
