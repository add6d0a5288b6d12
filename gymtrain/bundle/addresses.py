"""Addresses of bundles: which of them are opened, and how messages show them."""

from __future__ import annotations

import ipaddress
import re
from typing import TypeGuard
from urllib.parse import SplitResult, urlsplit

# What fsspec needs beside itself, and the extra of gymtrain that brings it.
PACKAGES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "az": ("adlfs", "az"),
    "abfs": ("adlfs", "az"),
    "abfss": ("adlfs", "az"),
    "hf": ("huggingface_hub", "hf"),
}
WEB = ("https", "http")
SCHEMES = ("file", *WEB, *PACKAGES, "memory")

_ADDRESS = re.compile(r"(?:[\w+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")
_OF_MLFLOW = re.compile("(runs|models):/")
_USER = re.compile(r"(?<=://)[^/]*@")  # a token alone is as good as a password
_PASSWORD = re.compile(r"(?<=://)[^/]*:[^/]*@")
_BEFORE_AT = ("az", "abfs", "abfss")  # have the name of a container there


def is_url(place: object) -> TypeGuard[str]:
    """Whether a bundle is named by an address, of whatever scheme, and not by the path of a file.

    Example:
        >>> is_url("s3://models/digits.zip"), is_url("models/digits.zip"), is_url("C:/models/digits.zip")
        (True, False, False)
    """
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def is_of_mlflow(place: object) -> TypeGuard[str]:
    """Whether a bundle is named by its place in MLflow, and not by the path of a file.

    Example:
        >>> is_of_mlflow("runs:/8f3c"), is_of_mlflow("runs/model.zip")
        (True, False)
    """
    return isinstance(place, str) and _OF_MLFLOW.match(place) is not None


def scheme_of(url: str) -> str:
    """Return what an address begins with, in lower case.

    Example:
        >>> scheme_of("S3://models/digits.zip")
        's3'
    """
    return url.partition("://")[0].lower()


def shown(url: str) -> str:
    """Return an address as messages may show it: without user, query and fragment, any of which may be a secret.

    Example:
        >>> shown("https://me:secret@example.org/digits.zip?signature=secret")
        'https://***@example.org/digits.zip?***'
    """
    bare = re.split("[?#]", url, maxsplit=1)[0]
    hidden = f"{url[len(bare)]}***" if len(url) > len(bare) else ""
    return (_PASSWORD if scheme_of(url) in _BEFORE_AT else _USER).sub("***@", bare) + hidden


def without_secrets(text: str, url: str) -> str:
    """Return what a library says of an address, without what `shown` leaves out and what terminals obey.

    Example:
        >>> without_secrets("no such key: a/b.zip?sig=123", "s3://a/b.zip?sig=123")
        'no such key: a/b.zip?***'
    """
    text = "".join(each if each.isprintable() else " " for each in text[:500]).replace(url, shown(url))
    secret = re.split("[?#]", url, maxsplit=1)[1:]
    return text.replace(secret[0], "***") if secret and secret[0] else text


def path_of(url: str) -> str | None:
    """Return the path that a `file://` address names; None where it is of another scheme.

    Example:
        >>> path_of("file:///models/two%20layers.zip"), path_of("s3://models/digits.zip")
        ('/models/two layers.zip', None)
    """
    if scheme_of(url) != "file":
        return None
    from urllib.request import url2pathname

    return url2pathname(urlsplit(url).path)


def fault_of(url: str) -> str | None:
    """Say why an address is not opened; None where it is.

    Example:
        >>> fault_of("https://example.org/digits.zip")
        >>> fault_of("http://example.org/digits.zip")[:70]
        "'http://example.org/digits.zip': anybody on the way could change what "
    """
    expected = f"expected a path, or an address that begins with {', '.join(SCHEMES)}"
    scheme = scheme_of(url)
    if scheme not in SCHEMES or ("::" in url and scheme not in WEB) or "\0" in url:
        return f"{shown(url)!r} is not the path of a file, nor an address that is opened; {expected}"
    try:
        parts = urlsplit(url)
        port = parts.port if scheme in WEB else None
    except ValueError:  # whose text may repeat what is not to be shown
        expected = f"{scheme}://HOST/PATH" if scheme not in WEB else f"{scheme}://HOST:PORT/PATH"
        return f"{shown(url)!r} is no address; expected one like {expected}"
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        return f"{shown(url)!r} names another machine; {expected}"
    if parts.password is not None or ("@" in parts.netloc and scheme in WEB):
        return f"{shown(url)!r} has a password in it, which others could see; give it in another way"
    if scheme in WEB and (not parts.hostname or port == 0):
        return f"{shown(url)!r} names no machine; expected {scheme}://HOST/PATH"
    if scheme in WEB and re.search(r"[\x00-\x20\x7f]", url):
        return f"{shown(url)!r} has a space or a control character in it; write it in its percent form, as %20"
    if scheme not in WEB and not url.partition("://")[2].strip("/"):
        bucket = "" if scheme in ("file", "memory") else "BUCKET/"
        return f"{shown(url)!r} names no file; expected {scheme}://{bucket}PATH"
    if scheme == "http" and not _is_this_machine(parts):
        return (
            f"{shown(url)!r}: anybody on the way could change what http brings; use https, or download the file, check "
            f"it and give its path"
        )
    return None


def _is_this_machine(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
