"""The number of PyTorch's threads for the length of a block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let PyTorch compute on a number of threads, and afterwards on as many as before.

    The last digits of a sum depend on how many threads share it: what must be the same on every machine and in every worker
    process is computed on a fixed number. Outside the main thread nothing is changed, for the number is one of the process.

    Args:
        number: of threads, at least 1.

    Example:
        >>> with torch_threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    if before == number or threading.current_thread() is not threading.main_thread():
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
