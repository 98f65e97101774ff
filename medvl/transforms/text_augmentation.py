"""Random augmentation of report text."""

from __future__ import annotations

from pathlib import Path

from monai.config import KeysCollection
from monai.transforms import RandomizableTransform

from medvl.text import Vocabulary, augment_text, load_vocabulary
from medvl.transforms.study import RandStudyMapTransform


class RandTextAugment(RandomizableTransform):
    """Replace synonyms, shuffle and drop sentences of a report without changing its states.

    See :func:`medvl.text.augment_text`.

    Args:
        prob: probability that a text is augmented at all.
        vocabulary: name, path, or a loaded vocabulary.
        synonym_prob: see :func:`medvl.text.augment_text`.
        shuffle_prob: see :func:`medvl.text.augment_text`.
        drop_prob: see :func:`medvl.text.augment_text`.

    Example:
        >>> RandTextAugment(prob=1.0, shuffle_prob=1.0).set_random_state(seed=0)("No edema. Heart is normal.")
        'Heart is normal. No edema.'
    """

    def __init__(
        self,
        prob: float = 0.5,
        vocabulary: str | Path | Vocabulary = "chexpert14",
        synonym_prob: float = 0.3,
        shuffle_prob: float = 0.5,
        drop_prob: float = 0.1,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.vocabulary = load_vocabulary(vocabulary)
        self.synonym_prob, self.shuffle_prob, self.drop_prob = synonym_prob, shuffle_prob, drop_prob

    def __call__(self, text: str) -> str:
        """Return the augmented text."""
        self.randomize(None)
        if not self._do_transform:
            return text
        return augment_text(
            text,
            self.R,
            self.vocabulary,
            synonym_prob=self.synonym_prob,
            shuffle_prob=self.shuffle_prob,
            drop_prob=self.drop_prob,
        )


class RandTextAugmentd(RandStudyMapTransform):
    """Dictionary form of :class:`RandTextAugment`; each key has a draw of its own.

    Args:
        keys: keys of texts.
        prob: see :class:`RandTextAugment`.
        vocabulary: see :class:`RandTextAugment`.
        synonym_prob: see :func:`medvl.text.augment_text`.
        shuffle_prob: see :func:`medvl.text.augment_text`.
        drop_prob: see :func:`medvl.text.augment_text`.
        allow_missing_keys: skip keys that a study lacks.

    Example:
        >>> RandTextAugmentd(prob=0.0)({"report": "No edema."})
        {'report': 'No edema.'}
    """

    def __init__(
        self,
        keys: KeysCollection = "report",
        prob: float = 0.5,
        vocabulary: str | Path | Vocabulary = "chexpert14",
        synonym_prob: float = 0.3,
        shuffle_prob: float = 0.5,
        drop_prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        augment = RandTextAugment(prob, vocabulary, synonym_prob, shuffle_prob, drop_prob)
        super().__init__(keys, augment, allow_missing_keys)


RandTextAugmentD = RandTextAugmentDict = RandTextAugmentd
