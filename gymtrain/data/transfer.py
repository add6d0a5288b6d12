"""Streams of bytes from addresses, of servers that are slow, break off, or want to be asked again."""

from __future__ import annotations

import email.utils
import http.client
import logging
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit

from gymtrain.errors import DownloadError
from gymtrain.web import opener

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BLOCK = 1 << 16
PROGRESS = 1 << 20
"""So many bytes, and an attempt that failed was worth it."""
_LONGEST_PAUSE = 60.0
_AGAIN = {408, 425, 429}
_NOT_THERE = {403, 404, 410}  # 403 is what a store of objects says that shows nobody its list


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Args:
        retries: How often a download that broke goes on without having got anywhere in between.
        pause: Seconds before the first retry; twice as many before each further one, unless the server says.
        silence: Seconds that a server may say nothing.
        window: Seconds over which it has to send at least `least_speed`.
        least_speed: Bytes in a second.
    """

    retries: int = 4
    pause: float = 1.0
    silence: float = 30.0
    window: float = 60.0
    least_speed: float = 1024.0


class BrokenError(Exception):
    """An attempt has failed in a way in which another one may not.

    Args:
        why: What happened.
        wait: Seconds after which the server wants to be asked again.
        advanced: Whether the attempt got anywhere.
    """

    def __init__(self, why: str, *, wait: float = 0.0, advanced: bool = False) -> None:
        self.wait, self.advanced = wait, advanced
        super().__init__(why)


def patiently(attempt: Callable[[], T], url: str, patience: Patience) -> T:
    """Return what an attempt returns, which is made again when it is broken.

    Raises:
        DownloadError: It is broken each time.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except BrokenError as broken:
            failures = 1 if broken.advanced else failures + 1
            if failures > patience.retries:
                tries = "1 try" if failures == 1 else f"{failures} tries"
                raise DownloadError(f"{url}: {broken}; given up after {tries}") from broken
            pause = min(max(broken.wait, patience.pause * 2 ** (failures - 1)), _LONGEST_PAUSE)
            logger.info("%s: %s; again in %.0f s", url, broken, pause)
            time.sleep(pause)


class RangeError(Exception):
    """The server does not have the range that was asked for."""


def opened(url: str, headers: Mapping[str, str], patience: Patience) -> Any:
    """Open an address as a stream of bytes with `status` and `headers`; None where nothing is there."""
    request = urllib.request.Request(url, headers={"User-Agent": "gymtrain", **headers})
    try:
        return opener(patience.window).open(request, timeout=patience.silence)
    except HTTPError as error:
        error.close()
        if error.code in _NOT_THERE:
            return None
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            raise RangeError from None
        answer = f"the server answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        if error.code in _AGAIN or error.code >= 500:
            raise BrokenError(answer, wait=_retry_after(error.headers)) from None
        raise DownloadError(f"{url}: {answer}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, FileNotFoundError):  # of file://
            return None
        if urlsplit(url).scheme == "file":
            raise DownloadError(f"{url}: {_why(reason)}") from None
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: the certificate of the server is not trusted: {_why(reason)}") from None
        raise BrokenError(f"the server cannot be reached: {_why(reason)}") from None


def blocks(url: str, reply: Any, patience: Patience) -> Iterator[bytes]:
    """Yield what comes, for as long as it comes fast enough."""
    size, seen, since = 0, 0, time.monotonic()
    while True:
        try:
            # Not `read`, which waits until all of a block is there, however slowly it comes.
            block: bytes = reply.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            if urlsplit(url).scheme == "file":
                raise DownloadError(f"{url}: {_why(error)}") from error
            raise BrokenError(f"the connection broke: {_why(error)}", advanced=size >= PROGRESS) from error
        if not block:
            return
        size += len(block)
        yield block
        now = time.monotonic()
        if now - since >= patience.window:
            if (size - seen) / (now - since) < patience.least_speed:
                slow = f"the server sends less than {patience.least_speed:g} bytes/s"
                raise BrokenError(slow, advanced=size >= PROGRESS)
            seen, since = size, now


def _why(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "it says nothing any more"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _retry_after(headers: Message) -> float:
    text = headers.get("Retry-After") or ""
    if text.isdecimal():
        return min(float(text), _LONGEST_PAUSE)
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
    return min(max(until - time.time(), 0.0), _LONGEST_PAUSE)
