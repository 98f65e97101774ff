"""Full disks: which file, and which disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medvl.utils.errors import DiskFullError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, an exhausted quota and a file above the largest size."""


@contextmanager
def name_full_disk(path: str | Path) -> Iterator[None]:
    """Raise :class:`~medvl.utils.errors.DiskFullError` in place of an error that says the disk is full, but not which.

    Args:
        path: the file or folder that is written in the body.
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFullError(error.errno, _describe_full_disk(Path(path), error), str(path)) from error


def _describe_full_disk(path: Path, error: OSError) -> str:
    disk = path.absolute()
    while not disk.exists() or not os.path.ismount(disk):
        if disk == disk.parent:
            break
        disk = disk.parent
    usage = shutil.disk_usage(disk)
    reason = {
        errno.ENOSPC: "No space left on the disk",
        errno.EDQUOT: "Your quota is used up on the disk",
        errno.EFBIG: "The file is larger than this user or file system permits, on the disk",
    }[error.errno or errno.ENOSPC]
    return f"{reason} mounted at {disk}, {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
