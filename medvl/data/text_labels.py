"""Finding states of many texts, each text labelled once."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import medvl.text
from medvl.text import Vocabulary, label_report, load_vocabulary
from medvl.text.spans import require_text

NOT_MENTIONED = -2  # NaN, in the cache's whole numbers


def label_texts(
    texts: Sequence[str],
    vocabulary: str | Path | Vocabulary = "chexpert14",
    cache: str | Path | None = None,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> NDArray[np.float32]:
    """Labels texts with :func:`medvl.text.label_report`; equal texts, and those of an earlier call, only once.

    The cache holds hashes of texts and their states, never a text. It begins anew where the vocabulary or the labeller has
    changed, or where the file cannot be read.

    Args:
        texts: M texts.
        vocabulary: name, path, or (without a cache) a loaded vocabulary of K findings.
        cache: a file (``.npz``) to keep the labels in; None for none.
        progress: wraps the iteration over the texts that are new, as ``tqdm`` does.

    Returns:
        (M, K): 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        TypeError: for one text in place of a sequence, or what is no text in it.
        ValueError: for a cache with a loaded vocabulary.

    Example:
        >>> states = label_texts(["No edema.", "Edema.", "No edema."])
        >>> states[:, load_vocabulary("chexpert14").names.index("Edema")].tolist()
        [0.0, 1.0, 0.0]
    """
    loaded = load_vocabulary(vocabulary)
    if cache is not None and isinstance(vocabulary, Vocabulary):
        raise ValueError("cache needs the vocabulary's name or path, which tell whether it has changed")
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of texts, received one text")
    texts = [require_text(text, "each of texts") for text in texts]
    keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
    version = "" if cache is None else _version(str(vocabulary))
    known = {} if cache is None else _read(Path(cache), version)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    items = new.items()
    for key, text in progress(items) if progress and new else items:
        known[key] = np.nan_to_num(label_report(text, loaded), nan=NOT_MENTIONED).astype(np.int8)
    if cache is not None and new:
        _write(Path(cache), version, known)
    states = np.array([known[key] for key in keys], dtype=np.float32).reshape(len(texts), len(loaded.names))
    return np.where(states == NOT_MENTIONED, np.float32(np.nan), states)


def _version(vocabulary: str | Path) -> str:
    """A hash of what decides a label: the labeller's own files, and the vocabulary's where it is not one of them."""
    own = Path(medvl.text.__file__).parent
    files = sorted(path for path in own.rglob("*") if path.suffix in (".py", ".yaml"))
    digest = hashlib.sha256(str(vocabulary).encode())
    for path in [*files, *([Path(vocabulary)] if Path(vocabulary).is_file() else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path, version: str) -> dict[bytes, NDArray[np.int8]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["version"]) != version:
                return {}
            return {key.tobytes(): states for key, states in zip(file["keys"], file["states"], strict=True)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _write(path: Path, version: str, known: dict[bytes, NDArray[np.int8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    keys = np.array([np.frombuffer(key, dtype=np.uint8) for key in known])
    with partial.open("wb") as file:
        np.savez_compressed(file, version=version, keys=keys, states=np.array(list(known.values())))
    os.replace(partial, path)
