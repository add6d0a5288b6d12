"""The console of rich, as the commands use it."""

from __future__ import annotations

from typing import Any

import rich.console

from gymtrain.cli.arguments import STDOUT
from gymtrain.errors import naming


class Console(rich.console.Console):
    """Leaves a reader that has gone to the command line, which ends as it does wherever else that is seen."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; say of an error where it was."""
        with naming(STDOUT):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Raise the error again that rich would end the program for, with a code of its own."""
        raise
