"""Finding states of many texts, each distinct text labeled once."""

from __future__ import annotations

import hashlib
import logging
import struct
import sys
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import medvl.text
from medvl.data.study_columns import NOT_MENTIONED, states_as_float
from medvl.text import Vocabulary, finding_names, load_vocabulary
from medvl.text.label_table import report_states
from medvl.utils.checks import check_text, error_message
from medvl.utils.io import atomic_write
from medvl.utils.limits import check_regular_file, check_size

logger = logging.getLogger(__name__)

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
)
"""What NumPy and zipfile raise for archives that are damaged."""


_UNREAD = -128
"""The states of a text that is not labeled yet."""


class TextLabels(NamedTuple):
    """What :func:`read_texts` finds in M texts.

    Args:
        states: (M, K), 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        other_language: (M,), whether a sentence is mostly in another language than the vocabulary's, which gives no state.
    """

    states: NDArray[np.float32]
    other_language: NDArray[np.bool_]


def label_texts(
    texts: Sequence[str],
    vocabulary: str | Path | Vocabulary = "chexpert14",
    cache: str | Path | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> NDArray[np.float32]:
    """Label texts with :func:`medvl.text.label_report`, each distinct text once.

    The cache holds hashes of the texts and their states, never a text. It is discarded if the vocabulary or the labeler has
    changed, or if the file cannot be read.

    Args:
        texts: M texts.
        vocabulary: name, path, or (without a cache) a loaded vocabulary of K findings.
        cache: file (``.npz``) that keeps the labels between calls.
        progress: wraps the iteration over the texts that are not in the cache, as ``tqdm`` does.

    Returns:
        (M, K): 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        TypeError: If ``texts`` is a str or holds anything but str.
        ValueError: If a cache is given with a loaded vocabulary.

    Example:
        >>> states = label_texts(["No edema.", "Edema.", "No edema."])
        >>> states[:, load_vocabulary("chexpert14").names.index("Edema")].tolist()
        [0.0, 1.0, 0.0]
    """
    return read_texts(texts, vocabulary, cache, progress).states


def read_texts(
    texts: Sequence[str],
    vocabulary: str | Path | Vocabulary = "chexpert14",
    cache: str | Path | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    packed: Iterable[str | Path] = (),
) -> TextLabels:
    """Label texts as :func:`label_texts`, which says what the arguments are, and find those in another language.

    ``packed`` are further caches, which are only read.
    """
    distinct, text_of = read_states(texts, vocabulary, cache, progress, packed)
    return TextLabels(states_as_float(distinct[text_of, :-1]), distinct[text_of, -1] > 0)


def read_states(
    texts: Sequence[str],
    vocabulary: str | Path | Vocabulary = "chexpert14",
    cache: str | Path | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    packed: Iterable[str | Path] = (),
) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """What :func:`read_text` finds in texts; the arguments are those of :func:`read_texts`.

    Texts are compared by the first eight bytes of their hashes, in arrays, so that millions of them need not be held.

    Returns:
        The states of the distinct texts, (D, K + 1), and for each of the M texts the number of that which is equal, (M,).
    """
    if cache is not None and isinstance(vocabulary, Vocabulary):
        raise ValueError(error_message("vocabulary", "be a name or path where a cache is given", "a loaded Vocabulary"))
    if isinstance(texts, str):
        raise TypeError(error_message("texts", "be a sequence of str", "one str"))
    hashes = array("Q")
    for text in texts:
        check_text(text, "each of texts")
        hashes.append(int.from_bytes(text_key(text)[:8], sys.byteorder))
    keys, first, text_of = _distinct(np.frombuffer(hashes, dtype=np.uint64))
    del hashes
    width = len(finding_names(vocabulary)) + 1
    states = np.full((len(keys), width), _UNREAD, dtype=np.int8)
    caches = [Path(path) for path in (*packed, *([] if cache is None else [cache]))]
    version = labeler_version(str(vocabulary)) if caches else ""
    others = []
    for path in caches:
        known, of_known = _read(path, version, width)
        begins = _begins(known)
        place = np.minimum(np.searchsorted(keys, begins), len(keys) - 1)
        found = keys[place] == begins if len(keys) else np.zeros(len(known), dtype=bool)
        states[place[found]] = of_known[found]
        others.append((known[~found], of_known[~found]))
    new = np.flatnonzero(states[:, -1] == _UNREAD)
    new = new[np.argsort(first[new])]
    if len(new):
        loaded = load_vocabulary(vocabulary)  # compiled only where a text is new
        for row in progress(new) if progress else new:
            states[row] = read_text(texts[int(first[row])], loaded)
    if cache is not None and len(new):
        written = bytearray().join(text_key(texts[int(place)]) for place in first)
        own = np.frombuffer(written, dtype=np.uint8).reshape(-1, 16)
        all_keys, all_states = map(np.concatenate, zip((own, states), *others, strict=True))
        once = np.sort(np.unique(_begins(all_keys), return_index=True)[1])  # caches may have texts in common
        write_label_cache(Path(cache), version, all_keys[once], all_states[once])
    return states, text_of


def _distinct(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int32]]:
    """``numpy.unique`` with the first index and the inverse, of an eighth of the range at a time, which takes less memory."""
    keys, first, total = [], [], 0
    inverse = np.empty(len(hashes), dtype=np.int32)
    for part in range(8):
        rows = np.flatnonzero(hashes >> np.uint64(61) == part).astype(np.int32)
        own, begin, of_own = np.unique(hashes[rows], return_index=True, return_inverse=True)
        inverse[rows] = of_own + total
        keys.append(own)
        first.append(rows[begin])
        total += len(own)
    return np.concatenate(keys), np.concatenate(first), inverse


def _begins(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first eight bytes (M,) of hashes (M, 16), as numbers."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1)


def text_key(text: str) -> bytes:
    """What stands for a text in a cache."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_text(text: str, vocabulary: Vocabulary) -> NDArray[np.int8]:
    """The states of a text as a cache holds them, those not mentioned as ``NOT_MENTIONED``, and whether it is in another
    language."""
    states, reasons = report_states(text, vocabulary)
    return np.array([*np.nan_to_num(states, nan=NOT_MENTIONED), reasons["language"] > 0], dtype=np.int8)


def log_other_language(other_language: NDArray[np.bool_]) -> None:
    """Say how many reports have sentences that give no state because of their language."""
    if other_language.any():
        logger.info(
            "%d of %d reports have sentences in another language than the vocabulary's, which get no state.",
            other_language.sum(),
            len(other_language),
        )


def labeler_version(vocabulary: str | Path) -> str:
    """A hash of what determines a label: the files of the labeler, and that of a vocabulary outside it."""
    own = Path(medvl.text.__file__).parent
    files = sorted(path for path in own.rglob("*") if path.suffix in (".py", ".yaml"))
    digest = hashlib.sha256(f"2 {vocabulary}".encode())  # the number of the cache's layout
    for path in [*files, *([Path(vocabulary)] if Path(vocabulary).is_file() else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path, version: str, width: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """The hashes and states of a cache; none if there is none, or it is damaged, of another version or larger than may be
    unpacked."""
    nothing = np.zeros((0, 16), dtype=np.uint8), np.zeros((0, width), dtype=np.int8)
    try:
        check_regular_file(path)
        with zipfile.ZipFile(path) as archive:
            check_size(sum(member.file_size for member in archive.infolist()), str(path))
        with np.load(path, allow_pickle=False) as file:
            if str(file["version"]) != version:
                return nothing
            keys, states = file["keys"], file["states"]
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error):
        return nothing
    if (
        states.dtype != np.int8
        or states.shape != (len(keys), width)
        or keys.dtype != np.uint8
        or keys.shape[1:] != (16,)
    ):
        return nothing
    return keys, states


def write_label_cache(path: Path, version: str, keys: NDArray[np.uint8], states: NDArray[np.int8]) -> None:
    """Write a cache of :func:`label_texts`.

    Args:
        path: the file.
        version: of the labeler.
        keys: (M, 16), the bytes of :func:`text_key`.
        states: (M, K + 1) of :func:`read_text`.
    """
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, version=version, keys=keys, states=states)
