"""Bytes of files on a web server, whole or by range, over connections that stay open."""

from __future__ import annotations

import http.client
import os
import threading
import time
from urllib.parse import urlsplit

from medvl.utils.errors import plain_reason
from medvl.utils.limits import UNPACKED, check_size, limit

ATTEMPTS = 4
"""How often a request is made before its error is raised; the waits between are 0.5, 1 and 2 s."""

TIMEOUT_SECONDS = 60.0
_RETRIED = (408, 425, 429, 500, 502, 503, 504)

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
    again. Proxies are not used, and redirections are not followed.

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
            raise ValueError("it names no host and port")
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
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.netloc)
    connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=headers)
    answer = connection.getresponse()
    if "Range" in headers and answer.status == 200:  # the whole file, which nobody asked for
        _close(url)
        return answer.status, answer.reason, b""
    content = answer.read(most + 1)
    if len(content) > most:
        _close(url)
        raise ValueError(f"{url} must have at most {most} bytes, got more.")
    return answer.status, answer.reason, content


def _connection(scheme: str, host: str) -> http.client.HTTPConnection:
    if getattr(_local, "pid", None) != os.getpid():  # a forked process must not share the connections of its parent
        _local.pid, _local.connections = os.getpid(), {}
    key = (scheme, host)
    if key not in _local.connections:
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        _local.connections[key] = kind(host, timeout=TIMEOUT_SECONDS)
    return _local.connections[key]


def _close(url: str) -> None:
    parts = urlsplit(url)
    connection = getattr(_local, "connections", {}).pop((parts.scheme, parts.netloc), None)
    if connection is not None:
        connection.close()
