"""A module that only a bundle names: nothing but `trust` may import it."""

from __future__ import annotations

from user_code import Net


class Untrusted(Net):
    pass
