"""What an error of MLflow says about trying again."""

from __future__ import annotations

BAD_REQUEST, NOT_FOUND = 400, 404
PASSING = {408, 409, 425, 429, 499}


def status_of(error: Exception) -> int:
    """Return the HTTP status that goes with an error of MLflow, also where there was no HTTP; 0 for other errors."""
    status = getattr(error, "get_http_status_code", None)
    return 0 if status is None else int(status())


def may_pass(status: int) -> bool:
    """Whether the same request may succeed later.

    Example:
        >>> [may_pass(status) for status in (400, 401, 404, 429, 503)]
        [False, False, False, True, True]
    """
    return status in PASSING or status >= 500
