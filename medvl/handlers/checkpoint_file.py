"""Files of training states: written completely or not at all, with a checksum."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from medvl.utils.io import atomic_write, stream_sha256
from medvl.utils.limits import check_regular_file

# The comment at the end of a ZIP archive, which torch.save writes: any program that reads ZIP passes it over.
COMMENT = b"medvl sha256 "
COMMENT_SIZE = len(COMMENT) + 64


def save_checkpoint(states: Mapping[str, Any], path: str | Path) -> None:
    """``torch.save`` to a file that is written completely or not at all, with a checksum; its folder is created.

    The checksum is the SHA-256 of all bytes before it, and is the archive comment of the file, so that ``torch.load`` reads
    the file as any other.

    Raises:
        ValueError: If the path leads to a folder, a pipe or a device.
        DiskFullError: If there is no space left.
    """
    check_regular_file(path)
    with atomic_write(path, "w+b") as file:
        handled = sys.exc_info()[1]
        try:
            torch.save(states, _Sink(file))  # type: ignore[arg-type]  # it has what torch calls
        except RuntimeError as error:
            # An error or a signal while it wrote, which torch hides behind that of the end of an incomplete archive.
            if error.__context__ not in (None, handled):
                raise error.__context__ from None
            raise
        file.seek(-2, 2)
        file.write(COMMENT_SIZE.to_bytes(2, "little"))  # the length of the comment, which was 0
        file.seek(0)
        digest = stream_sha256(file)
        file.write(COMMENT + digest.encode())


class _Sink:
    """A file that takes, and loses, what is written to it after it was closed.

    Where a signal interrupts ``torch.save``, the end of the archive is written when its writer is destroyed, which may be after
    the file was closed. An error in a destructor of C++ ends the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        return len(data) if self.file.closed else self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def verify_checkpoint(path: str | Path) -> None:
    """Compare a file of :func:`save_checkpoint` with its checksum.

    Raises:
        ValueError: If one byte of it is not as it was written.
        OSError: If it cannot be read.
    """
    check_regular_file(path)  # a pipe would be waited on
    with Path(path).open("rb") as file:
        size = file.seek(0, 2) - COMMENT_SIZE
        file.seek(0)
        digest = stream_sha256(file, max(0, size))
        if size < 0 or file.read() != COMMENT + digest.encode():
            raise ValueError(f"{path} is damaged: its content is not what was saved.")


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a file of :func:`save_checkpoint` with ``weights_only=True``.

    Raises:
        ValueError: If it is damaged.
    """
    verify_checkpoint(path)
    states = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(states, dict):
        raise ValueError(f"{path} is damaged: it holds no states by name.")
    return states


def find_infinite_weight(state: Mapping[str, Any]) -> str | None:
    """The name of the first tensor of a network's state that has a value which is NaN or infinite; None if all are finite."""
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            own = value.to_local() if hasattr(value, "to_local") else value  # this process's part of it
            if not torch.isfinite(own).all():
                return name
    return None


def check_finite_weights(state: Mapping[str, Any], when: str) -> None:
    """Raise before weights that are NaN or infinite are saved.

    Args:
        state: the network's.
        when: the rest of the sentence, such as "after epoch 3".

    Raises:
        ValueError: If a weight is not finite.
    """
    name = find_infinite_weight(state)
    if name is not None:
        raise ValueError(
            f"The weights are not finite {when} ({name}), and are not saved: the last steps diverged. "
            "A lower learning_rate or max_grad_norm may help."
        )


def position_of(path: Path) -> tuple[int, int]:
    """The complete epochs and the steps after them in the name of a file.

    Example:
        >>> position_of(Path("epoch-0007.pt")), position_of(Path("epoch-0007-step-000120.pt"))
        ((7, 0), (7, 120))
    """
    found = re.search(r"-(\d+)(?:-step-(\d+))?\.pt$", path.name)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def describe_position(path: Path) -> str:
    """The position of a file in words.

    Example:
        >>> describe_position(Path("epoch-0007.pt")), describe_position(Path("epoch-0007-step-000120.pt"))
        ('epoch 7', 'step 120 of epoch 8')
    """
    epochs, steps = position_of(path)
    return f"step {steps} of epoch {epochs + 1}" if steps else f"epoch {epochs}"


def remove_old(paths: Iterable[Path], keep: int, epoch: int, step: int = 0) -> None:
    """Remove all but the newest files up to an epoch, and a step after it.

    Later ones are damaged files that the run has not yet written again.
    """
    done = sorted((path for path in paths if position_of(path) <= (epoch, step)), key=position_of)
    for old in done[:-keep]:
        old.unlink()
