"""MLflow's autologging, which would open a run for each scaler that is fitted."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_off = contextlib.ExitStack()


@contextlib.contextmanager
def no_autologging() -> Iterator[None]:
    """Keep `mlflow.autolog()` of the user's from logging what is fitted meanwhile; it is as before afterwards.

    It is off in the whole process: what is fitted may be fitted by threads of its library, and MLflow knows no switch
    for some threads alone. Of blocks that overlap in several threads, the last to end switches it on again.

    Example:
        >>> with no_autologging():
        ...     pass
    """
    global _inside
    with _lock:
        if _inside == 0:
            _switch_off()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _off.close()


def _switch_off() -> None:
    # Whoever switched it on has imported all of MLflow.
    autologging = sys.modules.get("mlflow.utils.autologging_utils")
    disable = getattr(autologging, "disable_autologging", None)
    # Where the user has switched it off, leaving MLflow's block would switch it on.
    if disable is not None and not getattr(autologging, "_AUTOLOGGING_GLOBALLY_DISABLED", False):
        _off.enter_context(disable())
