"""Keys and values within the limits of MLflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

KEY_CHARACTERS = 250
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000


class Keys:
    """Gives each key a name that MLflow accepts: the same key always the same name, no two keys one name.

    MLflow takes letters, digits and ``_ - . : /`` and the space, in at most 250 characters that read as a normal
    relative path.

    Args:
        names: Those given before, in another process.

    Attributes:
        names: The names given so far, by key.

    Example:
        >>> keys = Keys()
        >>> [keys[key] for key in ("train/loss", "layer[0]", "layer(0)", "layer[0]", "/a//../b")]
        ['train/loss', 'layer_0_', 'layer_0__2', 'layer_0_', 'a/_/b']
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = dict(names or {})
        self._taken = set(self.names.values())

    def __getitem__(self, key: str) -> str:
        if key not in self.names:
            self.names[key] = self._unused(allowed_key(key))
            self._taken.add(self.names[key])
        return self.names[key]

    def _unused(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name[: KEY_CHARACTERS - 8]}_{count}"
        return candidate


def allowed_key(key: str) -> str:
    """Return the nearest key that MLflow accepts."""
    parts = re.sub(r"[^\w.\- :/]", "_", key).split("/")
    name = "/".join("_" if part == ".." else part for part in parts if part not in ("", ".")) or "_"
    # A cut that ends in "/" or leaves ".." would not be a normal path any more; the dash prevents both.
    return name if len(name) <= KEY_CHARACTERS else f"{name[: KEY_CHARACTERS - 9]}-{_digest(name)[:8]}"


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters; one that was longer ends in the SHA-256 of the whole.

    Example:
        >>> shortened("x" * 6001, 6000)[-75:-60]
        'x...sha256:e12d'
    """
    if len(text) <= limit:
        return text
    ending = f"...sha256:{_digest(text)}"
    return text[: limit - len(ending)] + ending


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
