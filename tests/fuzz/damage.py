"""Seeded damage of files: what truncation, bit flips, swapped chunks, other encodings and hostile text make of them."""

from __future__ import annotations

import random
from collections.abc import Callable

TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"null", b"[[[[", b"{", b"}", b'"', b"'", b"\n", b"\r", b"-1", b"1e999",
    b"99999999999999999999", b"&a *a", b"!!python/object/apply:os.system [x]", b"$import os", b"@", b"%", b"../../", b"\t",
    b"\xed\xa0\x80", "é".encode("utf-16"), b"<!DOCTYPE", b"]]>", b"true", b"~", b"''''", b"-inf", b"0x", b"\\u0000", b"\\ud800",
)  # fmt: skip
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"NRRD0004\n",
         b"\x80\x04", b"%PDF", b"\x5c\x01\x00\x00", b"DICM", b"n+1\x00")  # fmt: skip


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def change_head(data: bytes, draw: random.Random) -> bytes:
    """Bits of the first bytes, where headers are."""
    return flip_bits(data[:512], draw) + data[512:]


def swap_chunks(data: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(draw.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def repeat_chunk(data: bytes, draw: random.Random) -> bytes:
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:b] + data[a : min(b, a + 2000)] * draw.choice((1, 3)) + data[b:]


def insert_token(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 3))):
        place = draw.randrange(len(data) + 1)
        data = data[:place] + draw.choice(TOKENS) * draw.choice((1, 1, 1, 5000)) + data[place:]
    return data


def replace_word(data: bytes, draw: random.Random) -> bytes:
    """A run of letters or digits, such as a key or a number."""
    words = [i for i in range(1, len(data)) if data[i : i + 1].isalnum() and not data[i - 1 : i].isalnum()]
    if not words:
        return flip_bits(data, draw)
    start = end = draw.choice(words)
    while data[end : end + 1].isalnum():
        end += 1
    return data[:start] + draw.choice((*TOKENS, b"", b"x")) + data[end:]


def wrong_magic(data: bytes, draw: random.Random) -> bytes:
    magic = draw.choice(MAGIC)
    return magic + data[draw.choice((0, len(magic))) :]


def recode(data: bytes, draw: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "cp500", "latin-1", "utf-7")), errors="replace")


def replace_whole(data: bytes, draw: random.Random) -> bytes:
    return draw.choice(
        (b"", b"\n", b"[]", b"{}", b"null", b"0", b'""', b"[" * 9999, b'{"a":' * 9999, draw.randbytes(300))
    )


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate, flip_bits, change_head, swap_chunks, repeat_chunk, insert_token, replace_word, wrong_magic, recode, replace_whole
)  # fmt: skip


def damage(data: bytes, seed: str) -> tuple[str, bytes]:
    """The name of a kind of damage, and the damaged bytes; the same for the same seed."""
    draw = random.Random(seed)
    kind = draw.choice(DAMAGES)
    return kind.__name__, kind(data, draw)
