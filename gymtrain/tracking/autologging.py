"""MLflow's autologging, which would open a run for each scaler that is fitted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def no_autologging() -> Iterator[None]:
    """Keep `mlflow.autolog()` of the user's from logging what is fitted meanwhile; it is as before afterwards.

    Example:
        >>> with no_autologging():
        ...     pass
    """
    # Whoever switched it on has imported all of MLflow.
    autologging = sys.modules.get("mlflow.utils.autologging_utils")
    disable = getattr(autologging, "disable_autologging", None)
    # Leaving the inner of two such blocks would switch it on again in the outer.
    if disable is None or getattr(autologging, "_AUTOLOGGING_GLOBALLY_DISABLED", False):
        yield
        return
    with disable():
        yield
