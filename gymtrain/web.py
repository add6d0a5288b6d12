"""Opening addresses of web servers by the standard library, which waits for as long as something comes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from functools import partial
from typing import Any


def opener(seconds: float, *handlers: Any) -> urllib.request.OpenerDirector:
    """Return what opens addresses of http and https, and waits so long for the head of an answer, however it drips in.

    A timeout of `open` alone ends a silence; a head that comes byte by byte is never silent for long.

    Args:
        seconds: From the request to the end of the head; what takes longer is a `TimeoutError`.
        handlers: Others of `urllib.request`, for proxies or redirects.

    Example:
        >>> type(opener(60.0)).__name__
        'OpenerDirector'
    """
    return urllib.request.build_opener(_Http(seconds), _Https(seconds), *handlers)


class _Timed(http.client.HTTPConnection):
    """A connection whose answer has to begin in time."""

    def __init__(self, *arguments: Any, seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds = seconds
        self._has_hung_up = False

    def getresponse(self) -> http.client.HTTPResponse:
        watch = threading.Timer(self._seconds, self._hang_up)
        watch.daemon = True
        watch.start()
        try:
            reply = super().getresponse()
        finally:
            watch.cancel()
        if self._has_hung_up:  # a head that is cut is taken for a whole one
            reply.close()
            raise TimeoutError("the head of the answer does not end")
        return reply

    def _hang_up(self) -> None:
        self._has_hung_up = True
        with contextlib.suppress(OSError):  # it is closed already
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)


class _TimedSecurely(_Timed, http.client.HTTPSConnection):
    """The same for https."""


class _Http(urllib.request.HTTPHandler):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Timed, seconds=self._seconds), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TimedSecurely, seconds=self._seconds), req)
