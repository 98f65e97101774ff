"""Ids of studies as integers that tensors can hold."""

from __future__ import annotations

import hashlib


def hash_id(text: str) -> int:
    """A 63-bit integer that stands for an id, the same in every process, run and machine.

    Example:
        >>> hash_id("s1") == hash_id("s1"), hash_id("s1") == hash_id("s2")
        (True, False)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
