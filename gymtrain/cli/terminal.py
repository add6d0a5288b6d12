"""Text that came from anywhere, for a terminal."""

from __future__ import annotations

import typer


def printable(text: str) -> str:
    r"""Return a text without the characters that terminals obey: a run or a bundle may come from anybody.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def say(message: str) -> None:
    """Print a message of one line or several on stderr."""
    typer.echo("\n".join(map(printable, message.split("\n"))), err=True)
