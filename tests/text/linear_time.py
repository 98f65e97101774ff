"""Whether the time of a function of a text grows with its length, or with its square."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any


def takes_linear_time(function: Callable[[str], Any], piece: str, short: int, long: int) -> bool:
    """Whether a character takes about as long in a long text as in a short one.

    It may take longer by the square root of the ratio of their lengths, half of the way to quadratic time on a logarithmic
    scale. Other work on the machine makes some runs slower, and none faster: the fastest runs count, and there are more of them
    where the first do not show it.

    Args:
        function: what is measured.
        piece: what the texts repeat.
        short: number of characters of the short text.
        long: number of characters of the long text.
    """
    texts = [piece * (number // len(piece)) for number in (short, long)]
    function(texts[0])  # what is imported, compiled or kept then
    of_short = of_long = math.inf
    for _ in range(5):
        of_short = min(of_short, *(_seconds_per_character(function, texts[0]) for _ in range(3)))
        of_long = min(of_long, _seconds_per_character(function, texts[1]))
        if of_long < of_short * math.sqrt(long / short):
            return True
    return False


def _seconds_per_character(function: Callable[[str], Any], text: str) -> float:
    gc.collect()
    gc.disable()  # its passes over what other tests have left are no part of it
    try:
        begin = time.thread_time()
        function(text)
        return (time.thread_time() - begin) / len(text)
    finally:
        gc.enable()
