"""Bytes of files on a web server, whole or by range, over connections that stay open."""

from __future__ import annotations

import http.client
import os
import threading
import time
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from medvl.utils.checks import error_message
from medvl.utils.errors import plain_reason
from medvl.utils.limits import UNPACKED, check_size, limit

ATTEMPTS = 4
"""How often a request is made before its error is raised; the waits between are 0.5, 1 and 2 s."""

TIMEOUT_SECONDS = 60.0
REDIRECTIONS = 5
"""How many redirections of one request are followed."""

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTED = (301, 302, 303, 307, 308)

_local = threading.local()


def is_url(location: str) -> bool:
    """Whether a location is that of a web server.

    Example:
        >>> is_url("https://host/packed"), is_url("/data/packed")
        (True, False)
    """
    return location.startswith(("http://", "https://"))


def read_url(url: str, offset: int = 0, size: int | None = None, name: str = UNPACKED) -> bytes:
    """The bytes of a file on a web server.

    Every thread of every process keeps one connection to each server. A request that fails for a reason that may pass is made
    again. The proxies of the environment are used (``http_proxy``, ``https_proxy``, ``no_proxy``). Redirections are followed,
    but none from ``https`` to ``http``.

    Args:
        url: ``http://`` or ``https://``.
        offset: the first byte.
        size: number of bytes; None reads the whole file.
        name: the limit (:mod:`medvl.utils.limits`) of what is read.

    Raises:
        OSError: If the server cannot be reached or does not have these bytes.
        ValueError: If the URL is invalid, or the server answers with other bytes than those asked for, or with more than may be
            unpacked.
    """
    try:
        if not urlsplit(url).hostname or urlsplit(url).port == 0:
            raise ValueError("it names no host and port.")
    except ValueError as error:
        raise ValueError(f"{url} is not the address of a file: {plain_reason(error)}.") from None
    check_size(size or 0, url, name)
    most = limit(name) if size is None else size
    headers = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.25 * 2**attempt)
        try:
            status, reason, content = _request(url, headers, most)
        except (OSError, http.client.HTTPException) as error:
            _close(url)
            failure = OSError(f"{url} cannot be read: {str(error) or type(error).__name__}.")
            continue
        if status not in _RETRIED:
            break
        failure = OSError(f"{url} cannot be read: the server answers {status} {reason}.")
    else:
        raise failure
    if size is not None and status == 200:
        raise ValueError(
            f"{url} cannot be read by parts: its server does not answer range requests. Copy the folder and name the copy."
        )
    if status != (200 if size is None else 206):
        raise OSError(f"{url} cannot be read: the server answers {status} {reason}.")
    if size is not None and len(content) != size:
        raise ValueError(f"{url} is cut off: it has {len(content)} of the {size} bytes from byte {offset} on.")
    return content


def _request(url: str, headers: dict[str, str], most: int) -> tuple[int, str, bytes]:
    """Status, reason and content of a request, after redirections."""
    start = url
    for _ in range(REDIRECTIONS + 1):
        parts = urlsplit(url)
        proxy = _proxy(parts)
        connection = _connection(parts, proxy)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        through = proxy is not None and parts.scheme == "http"
        connection.request(
            "GET", url if through else path or "/", headers={**headers, **(_authorization(proxy) if through else {})}
        )
        answer = connection.getresponse()
        location = answer.getheader("Location")
        if answer.status not in _REDIRECTED or location is None:
            return _content(url, answer, "Range" in headers, most)
        if len(answer.read(2**16)) == 2**16:
            _close(url)
        url = urljoin(url, location)
        if not is_url(url) or (parts.scheme == "https" and not url.startswith("https://")):
            raise ValueError(
                f"{start} cannot be read: its server redirects to {urlsplit(url).scheme}://, which is not followed."
            )
    raise ValueError(f"{start} cannot be read: its server redirects more than {REDIRECTIONS} times.")


def _content(url: str, answer: http.client.HTTPResponse, ranged: bool, most: int) -> tuple[int, str, bytes]:
    if ranged and answer.status == 200:  # the whole file, which nobody asked for
        _close(url)
        return answer.status, answer.reason, b""
    content = answer.read(most + 1)
    if len(content) > most:
        _close(url)
        raise ValueError(f"{url} must have at most {most} bytes, got more.")
    return answer.status, answer.reason, content


def _proxy(parts: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for a URL; None for a direct connection."""
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return None
    found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme != "http" or not found.hostname:  # the rest may hold a password
        raise ValueError(error_message(f"{parts.scheme}_proxy", "be http://HOST:PORT", f"{found.scheme}://..."))
    return found


def _authorization(proxy: SplitResult | None) -> dict[str, str]:
    if proxy is None or proxy.username is None:
        return {}
    account = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(account.encode()).decode()}"}


def _connection(parts: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
    if getattr(_local, "pid", None) != os.getpid():  # a forked process must not share the connections of its parent
        _local.pid, _local.connections = os.getpid(), {}
    key = (parts.scheme, parts.netloc)
    known, connection = _local.connections.get(key, (None, None))
    if connection is None or known != proxy:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        if proxy is None:
            connection = kind(parts.netloc, timeout=TIMEOUT_SECONDS)
        else:
            connection = kind(str(proxy.hostname), proxy.port or 80, timeout=TIMEOUT_SECONDS)
            if parts.scheme == "https":
                connection.set_tunnel(parts.netloc, headers=_authorization(proxy))
        _local.connections[key] = proxy, connection
    return connection


def _close(url: str) -> None:
    parts = urlsplit(url)
    _, connection = getattr(_local, "connections", {}).pop((parts.scheme, parts.netloc), (None, None))
    if connection is not None:
        connection.close()
