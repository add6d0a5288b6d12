"""What Ctrl-C and SIGTERM do to a training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """SIGINT and SIGTERM: while a model learns, the first one waits until its step is over; a second ends at once.

    Attributes:
        received: The signal that waits to be acted on; None for none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_waiting = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the two signals while this is entered, in the main thread alone, and where nobody else does."""
        standing = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours = {number: handler for number, handler in standing.items() if signal.getsignal(number) == handler}
        for number in ours:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in ours.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the first signal wait for `check` while this is entered."""
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
            self.check()  # also when something else ends it: who asked the program to end means it

    def check(self) -> None:
        """Act on a signal that waits.

        Raises:
            KeyboardInterrupt: It is SIGINT.
            SystemExit: It is SIGTERM, with the exit code 143.
        """
        if self.received is not None:
            number, self.received, self._is_waiting = self.received, None, False
            _raise(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_waiting and self.received is None:
            self.received = number
            return
        _raise(number)


def _raise(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
