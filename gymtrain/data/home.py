"""Where downloaded data sets and decoded images lie, shared by all processes of a user."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "GYMTRAIN_DATA"
"""The environment variable that names the directory."""


def data_home(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory for data that can be had again, which need not be there yet.

    Args:
        given: What the spec says; without it the environment variable `GYMTRAIN_DATA`, and without that
            `gymtrain` in the user's cache directory (`XDG_CACHE_HOME`, by default `~/.cache`).

    Example:
        >>> data_home("~/data") == Path.home() / "data"
        True
    """
    if given or os.environ.get(VARIABLE):
        return Path(given or os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gymtrain"
