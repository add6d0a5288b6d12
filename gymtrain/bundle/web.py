"""Files of web servers, by the standard library: nothing has to be installed, and redirects are looked at."""

from __future__ import annotations

import http.client
import urllib.request
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from gymtrain.bundle.addresses import fault_of, scheme_of, shown
from gymtrain.errors import BundleError
from gymtrain.web import opener

_FOLLOWED = ("", "http", "https")
_SECONDS = 60.0  # that a server may be silent


def open_url(url: str) -> tuple[IO[bytes], int | None]:
    """Open a file of a web server as a stream, and return how many bytes the server says it has.

    Raises:
        BundleError: `not_fetched`: the server does not have it, or sends the reader to where it does not go.
        OSError: The server cannot be reached.
        http.client.HTTPException: It does not speak HTTP.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "gymtrain"})
    # What is read by http lies on this machine, and another machine would take that for itself.
    proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme != "http"}
    opened = opener(2 * _SECONDS, urllib.request.ProxyHandler(proxies), _Redirects)
    try:
        reply = opened.open(request, timeout=_SECONDS)
    except HTTPError as error:
        error.close()
        answer = f"answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        place = error.headers.get("Location") if 300 <= error.code < 400 else None
        if place is not None:  # urllib has not followed it
            way = (
                f"to {shown(place)[:200]!r}, which is not opened"
                if urlsplit(place).scheme not in _FOLLOWED
                else (f"in a circle, or more than {_Redirects.max_redirections} times")
            )
            answer = f"redirects {way}"
        raise BundleError(f"{shown(url)}: the server {answer}", reason="not_fetched") from None
    encoding = reply.headers.get("Content-Encoding", "identity")
    if reply.status != http.client.OK or encoding != "identity":
        reply.close()
        answer = f"{reply.status} {reply.reason}" if reply.status != http.client.OK else f"Content-Encoding {encoding}"
        message = f"{shown(url)}: the server answers with {answer[:80]!r}, which is no whole file"
        raise BundleError(message, reason="not_fetched")
    return reply, reply.length


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server only to where the caller could have gone, and from https to nothing less safe."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fault = fault_of(newurl)
        if fault is None and scheme_of(newurl) not in ("https", req.type):
            fault = f"{shown(newurl)!r} is less safe than https"
        if fault is not None:
            fp.close()
            raise BundleError(f"{shown(req.full_url)} redirects, and {fault}", reason="not_fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
