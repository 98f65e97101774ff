"""A folder on the disk with parts of files of web servers that were read before."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "MEDVL_CACHE_DIR"
"""The environment variable that names the folder; without it, or if it is empty, nothing is kept."""

_warned = False


def cached(digest: str, size: int) -> bytes | None:
    """What was kept under a hash of its content; None without it.

    Args:
        digest: the hash, in hexadecimal. The caller compares it with the content.
        size: number of bytes.
    """
    path = _path(digest, size)
    if path is not None:
        with suppress(OSError):
            return path.read_bytes()
    return None


def keep(digest: str, content: bytes) -> None:
    """Keep content under its hash. Where that fails, as on a full disk, a warning says so once, and nothing is kept.

    Args:
        digest: the hash, in hexadecimal.
        content: the bytes.
    """
    global _warned
    path = _path(digest, len(content))
    if path is None:
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not _warned:
            _warned = True
            logger.warning("Nothing more is kept in %s: %s.", os.environ[VARIABLE], error.strerror)


def _path(digest: str, size: int) -> Path | None:
    folder = os.environ.get(VARIABLE)
    return Path(folder) / digest[:2] / f"{digest}-{size}" if folder else None
