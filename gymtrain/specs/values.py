"""The values of a spec: copied as they come in, written down as they go out."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gymtrain.errors import Fault
from gymtrain.specs.fingerprint import fingerprint, is_live
from gymtrain.specs.wording import shortened

_SCALARS = {str, int, float, bool, type(None)}

# A longer list is data and no setting.
_LONGEST_SETTING = 1000


def plain(value: Any) -> Any:
    """Copy a spec as given: tuples to lists, numpy's numbers to Python's, paths to text; live objects as they are."""
    if type(value) in _SCALARS:  # most are, and to ask whether they are a mapping takes ten times as long
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def written(value: Any) -> Any:
    """Turn a checked argument into what a spec on disk holds; data becomes its fingerprint as a whole."""
    if _is_data(value):
        return fingerprint(value)
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [written(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(written, value), key=repr)
    if isinstance(value, enum.Enum):
        return written(value.value)
    return str(value) if isinstance(value, Path) else value


def misfits(value: Any, path: str = "") -> Iterator[Fault]:
    """Yield what keeps a value from being written down, each with its path."""
    if _is_data(value):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from misfits(item, f"{path}.{key}" if path else key)
            else:
                yield Fault(f"{path}.{key!r}" if path else repr(key), "the key is no text; JSON has no other keys")
    elif isinstance(value, list | tuple | set | frozenset):
        for position, item in enumerate(value):
            yield from misfits(item, f"{path}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"got {value!r}; expected a finite number")
    elif value is not None and not isinstance(value, str | int | float | Path | enum.Enum):
        yield Fault(path, f"got {shortened(value)}; expected a value that JSON can hold, an array or a frame")


def _is_data(value: Any) -> bool:
    """Tell whether a value is rows rather than a setting: live, a long list, or one with missing numbers."""
    if isinstance(value, dict):
        return any(map(_is_data, value.values()))
    if isinstance(value, list | tuple):
        return len(value) > _LONGEST_SETTING or any(_is_data(item) or _has_gaps(item) for item in value)
    return is_live(value)


def _has_gaps(item: Any) -> bool:
    values = item.values() if isinstance(item, dict) else [item]
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)
