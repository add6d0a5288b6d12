"""What another version of a library may make of a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch

from gymtrain.hardware import library_versions

# How many numbers of a version have to agree. The arrays of a bundle mean the same to every torch and numpy but, it may
# be, for the next great one; the inside of a fitted scikit-learn object changes with any of its releases.
_NUMBERS: Final = MappingProxyType({"torch": 1, "numpy": 1})
_NUMBERS_OF_FITTED: Final = MappingProxyType({"scikit-learn": 2})


def warn_of_versions(path: str | Path, written_by: Mapping[str, str], *, has_fitted: bool) -> None:
    """Warn, once, where a library may make something else of a bundle than the one that wrote it.

    Args:
        path: Of the bundle.
        written_by: The versions of libraries that wrote it, by name.
        has_fitted: Whether it holds fitted scikit-learn objects.
    """
    numbers = {**_NUMBERS, **(_NUMBERS_OF_FITTED if has_fitted else {})}
    # Their metadata would be parsed for it, which takes longer than all else that a small bundle needs.
    here = {"torch": torch.__version__, "numpy": np.__version__}
    if has_fitted:
        here |= library_versions("scikit-learn")
    changed = [
        f"{name} {written_by[name][:40]!r}, here it is {here[name]}"
        for name, count in numbers.items()
        if name in written_by and name in here and _first(written_by[name], count) != _first(here[name], count)
    ]
    if changed:
        warnings.warn(
            f"{path} was written with {'; with '.join(changed)}: it may predict otherwise, or fail; compare with what "
            f"it predicted before, or install the version that wrote it",
            stacklevel=4,
        )


def _first(version: str, count: int) -> list[str]:
    return version.partition("+")[0].split(".")[:count]
