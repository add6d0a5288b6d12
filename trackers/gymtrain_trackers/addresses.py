"""Addresses that hold a password, in a form that may be shown and stored."""

from __future__ import annotations

import re

MASK = "***"

# What stands before `@`; of HTTP, `host:5000/me@here` has no password, of a database it may be of digits and slashes.
_USER = re.compile(r"""(?<=://)([^\s/:@"']*):(?:[^\s/?#"']*|(?!\d+[/?#])[^\s@"']*)@""")
_OF_DATABASE = re.compile(r"""(?<!http://)(?<!https://)(?<=://)([^\s/:@"']*):[^\s@"']*@""")
# A name alone may be a token, where it is not that of a user of a database.
_TOKEN = re.compile(r"""(?<=http://)[^\s/:@?#"']+@|(?<=https://)[^\s/:@?#"']+@""")
_QUERY = re.compile(
    r"""([?&;#](?:[\w.-]*(?:passw(?:or)?d|pwd|token|secret|api[_-]?key|signature|credential)|sig|auth|key)=)[^\s&;#"']+""",
    re.IGNORECASE,
)
_MASKED = re.compile(r"[:/]\*\*\*@|=\*\*\*(?=[&;#]|$)")


def without_password(text: str) -> str:
    """Return a text with `***` for the passwords and tokens in its addresses.

    These are what stands between `:` and `@`, before `@` alone in an address of HTTP, and the values in a query whose
    names say so.

    Example:
        >>> without_password("GET http://me:secret@host:5000/version failed")
        'GET http://me:***@host:5000/version failed'
        >>> without_password("https://dapi123@host/"), without_password("postgresql://db/x?user=me&password=secret")
        ('https://***@host/', 'postgresql://db/x?user=me&password=***')
    """
    for pattern in (_USER, _OF_DATABASE):
        text = pattern.sub(rf"\g<1>:{MASK}@", text)
    return _QUERY.sub(rf"\g<1>{MASK}", _TOKEN.sub(f"{MASK}@", text))


def is_masked(address: str) -> bool:
    """Tell whether an address is one of which `without_password` has left something out.

    Example:
        >>> is_masked("http://me:***@host"), is_masked("http://host")
        (True, False)
    """
    return _MASKED.search(address) is not None
