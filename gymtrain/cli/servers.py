"""Servers in processes of their own, of which none is left when we end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from gymtrain.errors import StoreError

HOST = "127.0.0.1"
END_SECONDS = 10.0
PAUSE_SECONDS = 0.1
OUTPUT_LINES = 15
OUTPUT_BYTES = 16 << 10
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server:
    """A server that is started at once and answers after a while, in a process group of its own.

    Args:
        name: What people call it.
        command: What is run.
        port: Where it listens.
        page: The path of a page that it answers when it is ready.
        environment: What is added to the environment of this process.

    Raises:
        StoreError: Something else listens there.
    """

    def __init__(self, name: str, command: Sequence[str], port: int, page: str, environment: Mapping[str, str]) -> None:
        _check_free(name, port)
        self.name, self.url = name, f"http://{HOST}:{port}/"
        self._page = page
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the server)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env={**os.environ, **environment},
            # Ctrl-C reaches us alone, and we end the whole group.
            start_new_session=True,
        )

    def answers(self) -> bool:
        """Whether it is ready."""
        # A proxy that the environment names has no business with this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + self._page, timeout=1.0) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def check(self) -> None:
        """See whether it is still there.

        Raises:
            StoreError: It has ended; the message holds the last lines that it printed.
        """
        code = self._process.poll()
        if code is not None:
            self._output.seek(max(0, os.fstat(self._output.fileno()).st_size - OUTPUT_BYTES))
            lines = self._output.read().decode(errors="replace").splitlines()[-OUTPUT_LINES:]
            raise StoreError("\n  ".join([f"{self.name} ended with code {code}; the last that it said:", *lines]))

    def end(self) -> None:
        """Ask the whole group to end, and make it after a while; a second call does nothing."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        while self._is_there() and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._output.close()

    def _is_there(self) -> bool:
        self._process.poll()  # a process that nobody has waited for is still one of its group
        return self._signal(0)

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class Ending:
    """Which signal asked us to end, if one has."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal; a handler that raised could lose a child that is just being started."""
        self.signal = number


@contextlib.contextmanager
def noting_signals() -> Iterator[Ending]:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP are only noted."""
    ending = Ending()
    before = {number: signal.signal(number, ending.note) for number in _ENDING}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StoreError(
                f"{name} cannot listen on port {port} ({error.strerror}); give another one, or none for a free one"
            ) from error
