"""A check that goes on beside the caller, who asks how it went before anything depends on it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gymtrain.errors import BundleError

# Begins anew each time that it is called; does a piece of the work for each item, of which nothing is made.
Check: TypeAlias = Callable[[], Iterable[Any]]


class Verification:
    """Runs checks, one after the other, in a thread of its own.

    Args:
        check: Raises `BundleError` or `OSError` where something is wrong.
        done: Called once when the check is over, whatever came of it.

    Example:
        >>> Verification(lambda: range(3), done=lambda: None).wait()
    """

    def __init__(self, check: Check, done: Callable[[], None]) -> None:
        self._checks = [check]
        self._done = done
        self._is_over = False
        self._is_given_up = False
        self._error: BundleError | OSError | None = None
        self._thread: threading.Thread | None = None

    def also(self, check: Check) -> None:
        """Add a check that comes after the others; before `start`."""
        self._checks.append(check)

    def start(self) -> None:
        """Begin, unless it has begun. Until then nothing competes with the caller for the processor."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gymtrain-verification", daemon=True)
            _going_on.add(self)
            self._thread.start()

    def give_up(self) -> None:
        """End the thread after the piece that it is at; who waits afterwards checks all of it."""
        if self._thread is not None:
            self._is_given_up = True
            self._thread.join()
            self._is_given_up = False

    def cancel(self) -> None:
        """Check nothing, unless it has begun: nobody will ask."""
        if self._thread is None:
            self._is_over = True
            self._done()

    def wait(self) -> None:
        """Return when all checks have passed; begin where nobody has.

        Raises:
            BundleError: It has not; each call says so again.
            OSError: The file could not be read.
        """
        self.start()
        if not self._is_over and self._thread is not None:
            self._thread.join()
        if not self._is_over:
            self._run()  # the thread has stayed in the process that this one was forked from
        if isinstance(self._error, BundleError):
            raise BundleError(str(self._error), reason=self._error.reason)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for check in self._checks:
                for _ in check():
                    if self._is_given_up:
                        return
        except (BundleError, OSError) as error:
            self._error = error
        finally:
            _going_on.discard(self)
        self._is_over = True  # before the file is closed: a process that is forked in between takes it for open
        self._done()


_going_on: set[Verification] = set()


@atexit.register
def _give_up_all() -> None:
    """A thread that is within torch when the interpreter goes takes the process with it."""
    for verification in list(_going_on):
        verification.give_up()
