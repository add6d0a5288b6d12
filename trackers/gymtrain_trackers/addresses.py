"""Addresses that hold a password, in a form that may be shown and stored."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"""(?<=://)([^\s/:@"']*):[^\s/"']*@""")


def without_password(text: str) -> str:
    """Return a text with `***` for the passwords in its addresses.

    Example:
        >>> without_password("GET http://me:secret@host:5000/version failed")
        'GET http://me:***@host:5000/version failed'
    """
    return _PASSWORD.sub(r"\1:***@", text)
