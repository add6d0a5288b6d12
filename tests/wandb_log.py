"""What lies in the transaction log that W&B writes for `wandb sync`, read with its own protobuf."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, struct.Struct("<IHB")
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Yield the records of the log, which is one of LevelDB behind seven bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + HEADER.size <= len(data):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        parts += data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


def config(path: Path) -> dict[str, Any]:
    """Return the config at the end of the run."""
    updates = [
        each
        for record in records(path)
        if record.WhichOneof("record_type") == "config"
        for each in record.config.update
    ]
    return {each.key: json.loads(each.value_json) for each in updates}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the history, a dict for each row; what is nested has its path joined with dots."""
    found = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = [(item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item]
            found.append({key: json.loads(value) for key, value in items})
    return found


def steps(path: Path) -> dict[str, str]:
    """Return the axis of each metric."""
    metrics = [record.metric for record in records(path) if record.WhichOneof("record_type") == "metric"]
    return {metric.name: metric.step_metric for metric in metrics}


def exit_code(path: Path) -> int:
    """Return how the run ended; W&B's own process may write that a moment after `finish` has returned."""
    while True:
        for record in records(path):
            if record.WhichOneof("record_type") == "exit":
                return record.exit.exit_code
        time.sleep(0.01)
