"""Downloading one photo from a web address, with limits on size, time and redirects."""

import ipaddress
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from deop._version import __version__
from deop.errors import ImageError

MAX_BYTES = 100_000_000
"""Greatest size of a photo that is downloaded."""

TIMEOUT = 20.0
"""Seconds without an answer after which a download fails."""

MAX_SECONDS = 120.0
"""Seconds after which a download fails in any case."""

MAX_REDIRECTS = 5
"""Greatest number of redirects that are followed."""

_BLOCK = 1 << 16


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    max_seconds: float = MAX_SECONDS,
    schemes: Collection[str] = ("https",),
) -> bytes:
    """Download a file.

    A redirect leads to an allowed scheme only, and never from a public address to one of this machine or its network.

    Args:
        url: the address. User names and passwords in it are refused.
        max_bytes: larger files are refused.
        timeout: seconds to wait for each answer of the server.
        max_seconds: seconds that the whole download may take.
        schemes: schemes that are allowed.

    Raises:
        ImageError: the address is refused or does not exist, or a limit is exceeded.
    """
    _check(url, url, schemes)
    deadline = time.monotonic() + max_seconds
    headers = {"User-Agent": f"deop/{__version__}", "Accept": "image/*"}
    opener = urllib.request.build_opener(_Redirects(url, schemes))
    try:
        request = urllib.request.Request(_encoded(url), headers=headers)
        with opener.open(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > max_bytes:
                raise ImageError(_too_large(url, int(length), max_bytes))
            parts, size = [], 0
            while block := response.read1(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    raise ImageError(_too_large(url, size, max_bytes))
                if time.monotonic() > deadline:
                    raise ImageError(f"cannot read {url}: the download takes more than {max_seconds:g} s; download it")
                parts.append(block)
            if length.isdigit() and size < int(length):
                raise ImageError(f"cannot read {url}: only {size:,} of {length} bytes arrived; try again")
            return b"".join(parts)
    except urllib.error.HTTPError as error:
        raise ImageError(
            f"cannot read {url}: the server answers {error.code} {error.reason}; check the address"
        ) from None
    except TimeoutError:
        raise ImageError(f"cannot read {url}: no answer for {timeout:g} s; try again later") from None
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            reason = f"no answer for {timeout:g} s"
        raise ImageError(
            f"cannot read {url}: {reason}; check the address and the connection, or download the photo"
        ) from error


def _encoded(url: str) -> str:
    """An address in ASCII: spaces and other characters are percent-encoded, those of the host as IDNA."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    path, query = (quote(part, safe="/%:=&?~+!$,;'@()*[]|") for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))


def _too_large(url: str, size: int, limit: int) -> str:
    return (
        f"cannot read {url}: it has more than {limit / 1e6:g} MB ({size / 1e6:.1f} MB); download it and pass the file"
    )


def _check(url: str, origin: str, schemes: Collection[str]) -> None:
    """Refuse addresses that are not allowed.

    Args:
        url: the address to open.
        origin: the address that was asked for, for messages.
        schemes: schemes that are allowed.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ImageError(f"cannot read {origin}: {error}; check the address") from error
    target = "" if url == origin else f" (redirected to {url[:200]})"
    if parts.scheme.lower() not in schemes:
        raise ImageError(
            f"cannot read {origin}{target}: only {' and '.join(schemes)} addresses are allowed; use https, or download "
            "the photo and pass the file"
        )
    if parts.username is not None or parts.password is not None:
        shown = f"{parts.scheme}://{host}{parts.path}"
        raise ImageError(f"cannot read {shown}: user names and passwords in addresses are not used; download the photo")
    if not host:
        raise ImageError(f"cannot read {origin}{target}: the address has no host; check it")


def _is_public(url: str) -> bool:
    """Whether all addresses of a host belong to the public internet; True if they cannot be found."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None)
    except (OSError, ValueError):
        return True  # the connection itself will report it
    return all(ipaddress.ip_address(entry[4][0].partition("%")[0]).is_global for entry in found)  # type: ignore[union-attr]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a limited number of redirects, to allowed addresses."""

    max_redirections = MAX_REDIRECTS

    def __init__(self, origin: str, schemes: Collection[str]) -> None:
        self.origin = origin
        self.schemes = schemes

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check(newurl, self.origin, self.schemes)
        same_host = urlsplit(newurl).hostname == urlsplit(self.origin).hostname
        if not same_host and not _is_public(newurl) and _is_public(self.origin):
            raise ImageError(f"cannot read {self.origin}: it redirects to {newurl[:200]}, in a private network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
