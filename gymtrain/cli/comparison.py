"""What differs between runs: their specs, their data, their environments and their metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gymtrain.cli.selection import mode_of
from gymtrain.tracking import RunSummary
from gymtrain.tracking.params import flat

Value = float | int | str | None
Described = Mapping[str, Mapping[str, Value]]

SECTIONS = ("spec", "data", "environment", "metrics")
# A bundle knows more than a run.
SECTIONS_OF_BUNDLES = ("spec", "data", "schema", "environment", "metrics", "signature")
# Of a machine, different sources know different things: what one does not know is no difference.
_PARTIAL = {"environment"}
# What a run has beside its quality: how long it took, how it used the machine, and its single steps.
_ASIDE = ("batch/", "system/", "time/", "perf/", "model/")
_METRIC_ORDER = ("best/", "final/", "test/", "val/", "train/")


class Row(NamedTuple):
    """One thing that is known of runs: its value in each of them, None where there is none."""

    section: str
    key: str
    values: tuple[Value, ...]
    differs: bool


def compare(runs: Sequence[Described], sections: Sequence[str] = SECTIONS) -> list[Row]:
    """Put side by side what is known of runs.

    A section that is not known of a run at all is left out of the comparison for that run: it differs from none.

    Args:
        runs: At least two; for each the sections, with values by key.
        sections: Those that are compared.

    Returns:
        A row for each key of a section, in the order of the sections and in which the keys are first met.

    Example:
        >>> one, other = {"spec": {"lr": "0.1", "epochs": "5"}}, {"spec": {"lr": "0.2", "epochs": "5"}}
        >>> [row.key for row in compare([one, other]) if row.differs]
        ['lr']
        >>> any(row.differs for row in compare([one, {"spec": {}}]))
        False
    """
    return [
        Row(section, key, values, _differ(section, values, [bool(run.get(section)) for run in runs]))
        for section in sections
        for key in dict.fromkeys(key for run in runs for key in run.get(section, {}))
        for values in [tuple(run.get(section, {}).get(key) for run in runs)]
    ]


def unknown(runs: Sequence[Described], sections: Sequence[str] = SECTIONS) -> dict[str, list[int]]:
    """Return for each section of which runs it is not known, by their positions."""
    return {
        section: without
        for section in sections
        for without in [[position for position, run in enumerate(runs) if not run.get(section)]]
        if without
    }


def described(run: RunSummary, schema: Mapping[str, Any] = {}) -> Described:
    """Return what `compare` looks at: the spec, the rows and digests, the environment, the best and last metrics.

    Args:
        run: The run.
        schema: Features and labels, where a bundle tells of them.
    """
    data: dict[str, Value] = {}
    for part, rows in run.data.items():
        data |= {f"{part} data": rows.name, f"{part} rows": rows.rows, f"{part} digest": rows.digest}
    metrics = {key: value for key, value in run.metrics.items() if not key.startswith(_ASIDE)}
    return {
        "spec": run.params,
        "data": data,
        "schema": {key: _text(value) for part, content in schema.items() for key, value in flat(part, content)},
        "environment": run.environment,
        "metrics": dict(sorted(metrics.items(), key=lambda item: _rank(item[0]))),
    }


def differences(values: Sequence[Value]) -> list[float | None]:
    """Return by how much each number differs from the first.

    Example:
        >>> differences([1.0, 1.5, None])
        [0.0, 0.5, None]
    """
    first, *_ = values
    return [
        value - first if isinstance(value, int | float) and isinstance(first, int | float) else None for value in values
    ]


def best_of(key: str, values: Sequence[Value], runs: Sequence[RunSummary]) -> list[int]:
    """Return the positions of the best values of a metric; none where all are equal or nobody knows which is better."""
    mode = mode_of(key, runs)
    numbers = [value for value in values if isinstance(value, int | float) and not math.isnan(value)]
    if mode is None or len(set(numbers)) < 2:
        return []
    best = min(numbers) if mode == "min" else max(numbers)
    return [position for position, value in enumerate(values) if value == best]


def to_dict(runs: Sequence[RunSummary], rows: Sequence[Row], *, everything: bool) -> dict[str, Any]:
    """Return a comparison as strict JSON can hold it; numbers that are not finite become null."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in (*SECTIONS, *(row.section for row in rows))}
    for row in rows:
        if row.differs or everything:
            values = list(map(_finite, row.values))
            sections[row.section][row.key] = values
            if row.section == "metrics":
                change = list(map(_finite, differences(row.values)))
                sections["metrics"][row.key] = {
                    "values": values,
                    "differences": change,
                    "best": best_of(row.key, row.values, runs),
                }
    shown = ("id", "name", "experiment", "status", "started", "ended", "directory")
    return {
        "runs": [{key: run.to_dict()[key] for key in shown} for run in runs],
        "identical": not any(row.differs for row in rows),
        "unknown": unknown([described(run) for run in runs]),
        **sections,
    }


def _differ(section: str, values: Sequence[Value], is_known: Sequence[bool]) -> bool:
    # NaN is a value here: a run does not differ from itself.
    seen = {
        "NaN" if isinstance(value, float) and math.isnan(value) else value
        for value, known in zip(values, is_known, strict=True)
        if known and not (value is None and section in _PARTIAL)
    }
    return len(seen) > 1


def _text(value: Any) -> Value:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value)


def _rank(key: str) -> tuple[int, str]:
    order = next((place for place, prefix in enumerate(_METRIC_ORDER) if key.startswith(prefix)), len(_METRIC_ORDER))
    return order, key


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
