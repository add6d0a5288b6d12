"""Which tensors of a module patterns speak of, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from gymtrain.errors import Fault, SpecError, did_you_mean, some


def spoken_of(patterns: Iterable[str], names: Sequence[str], path: str) -> dict[str, list[str]]:
    """Return the names that patterns match, each with the patterns that do.

    Args:
        patterns: As `fnmatch` has them: `*` stands for any text, dots included, `?` for one character, `[…]` for one of
            several.
        names: Of the tensors of a module.
        path: Where the patterns stand in the spec.

    Raises:
        SpecError: A pattern matches no name.

    Example:
        >>> spoken_of(["stem.*", "*.bias"], ["stem.weight", "stem.bias", "head.weight", "head.bias"], "freeze")
        {'stem.weight': ['stem.*'], 'stem.bias': ['stem.*', '*.bias'], 'head.bias': ['*.bias']}
        >>> spoken_of(["sten.*"], ["stem.weight"], "freeze")
        Traceback (most recent call last):
        gymtrain.errors.SpecError: 1 problem in the spec:
          freeze: no tensor of the model is called 'sten.*'; did you mean 'stem.*'?
    """
    patterns = list(patterns)
    found = {name: [pattern for pattern in patterns if fnmatchcase(name, pattern)] for name in names}
    idle = [pattern for pattern in patterns if not any(pattern in matching for matching in found.values())]
    if idle:
        message = "no tensor of the model is called"
        raise SpecError([Fault(path, f"{message} {pattern!r}{nearest(pattern, names)}") for pattern in idle])
    return {name: matching for name, matching in found.items() if matching}


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the end of a message that says what tensors there are instead of one."""
    parts = [name.split(".") for name in names]
    known = {f"{'.'.join(part[:depth])}.*": None for part in parts for depth in range(1, len(part))}
    tops = dict.fromkeys(f"{part[0]}.*" if len(part) > 1 else part[0] for part in parts)
    return did_you_mean(name, [*known, *names]) or f"; there are {some(tops, limit=10)}"
