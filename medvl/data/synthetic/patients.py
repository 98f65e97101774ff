"""The patient of each synthetic study, and the split of each patient."""

from __future__ import annotations

from functools import lru_cache

from medvl.data.synthetic.random_stream import RandomStream, hash_key

BLOCK = 6
"""Studies are assigned to patients in blocks of this many, so that the patient of a study depends on its own block alone."""


@lru_cache(maxsize=4096)
def _block_sizes(seed: int, block: int) -> tuple[int, ...]:
    """The number of studies of each patient of a block: one to three each, :data:`BLOCK` together."""
    rng = RandomStream(seed, "block", block)
    sizes: list[int] = []
    while sum(sizes) < BLOCK:
        sizes.append(min(rng.weighted_choice([(1, 0.4), (2, 0.35), (3, 0.25)]), BLOCK - sum(sizes)))
    return tuple(sizes)


def patient_number(seed: int, index: int) -> int:
    """The number of the patient of study ``index``; a patient has one to three consecutive studies."""
    block, position = divmod(index, BLOCK)
    number = 0
    for size in _block_sizes(seed, block):
        if position < size:
            break
        position -= size
        number += 1
    return block * BLOCK + number


def split_of_patient(patient_id: str) -> str:
    """The split of a patient by a hash of the id: about 70 % train, 10 % val, 20 % test.

    Example:
        >>> split_of_patient("syn0-p000000")
        'test'
    """
    fraction = hash_key("split", patient_id) / 2**64
    return "train" if fraction < 0.7 else "val" if fraction < 0.8 else "test"
