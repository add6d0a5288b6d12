"""What belongs to the whole process, and is as it was when a library that helps itself to it has been called."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def kept(prefix: str, **environment: str) -> Iterator[None]:
    """Run a block that may set environment variables of one prefix, `sys.exit` and `sys.excepthook`, and undo that.

    Args:
        prefix: Of the variables that are undone; what other threads do to others stays.
        environment: Variables for the time of the block; those that are set already stay as they are.

    Example:
        >>> with kept("SINK_", SINK_DIR="/tmp"):
        ...     os.environ["SINK_PORT"] = os.environ["SINK_DIR"]
        >>> [name for name in os.environ if name.startswith("SINK_")]
        []
    """
    before = _variables(prefix)
    leave, hook = sys.exit, sys.excepthook
    os.environ.update({name: value for name, value in environment.items() if name not in before})
    try:
        yield
    finally:
        sys.exit, sys.excepthook = leave, hook
        for name in _variables(prefix).keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update(before)


def _variables(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}
