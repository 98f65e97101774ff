"""Training of a tokenizer on reports, without the words of single patients."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medvl.utils.checks import check_integer, check_text, error_message

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MIN_PATIENTS = 5
"""The number of patients in whose reports a word must occur to be in a vocabulary."""

MIN_COVERAGE = 0.9
"""The fraction of words in a vocabulary below which a warning says so."""

_FIRST_IDEOGRAPH = "\u2e80"
"""From here on a character may be a word, or a name, of its own."""

Patients = Sequence[Collection[Hashable]]


class WordCounts:
    """How often the words of texts occur, and in the reports of how many patients.

    Words are what a tokenizer splits a text into before it looks into its vocabulary; a character of a script without spaces
    counts beside the word that it is in.

    Args:
        normalizer: of the tokenizer; None for none.
        pre_tokenizer: of the tokenizer.
        min_patients: the number up to which the patients of a word are counted.
    """

    def __init__(self, normalizer: Any, pre_tokenizer: Any, min_patients: int) -> None:
        self.normalizer, self.pre_tokenizer, self.min_patients = normalizer, pre_tokenizer, min_patients
        self.counts: Counter[str] = Counter()
        self.patients: dict[str, set[Hashable]] = defaultdict(set)
        self._known: set[str] = set()

    def add(self, texts: Iterable[str], patients: Patients | None = None) -> None:
        """Count the words of texts; ``patients`` as for :func:`train_tokenizer`."""
        texts = texts if isinstance(texts, Sequence) else list(texts)
        if patients is not None and len(patients) != len(texts):
            raise ValueError(
                error_message("patients", f"have one entry for each of the {len(texts)} texts", len(patients))
            )
        for number, text in enumerate(texts):  # made one by one, where a corpus holds none of them
            check_text(text, "each of texts")
            text = text if self.normalizer is None else self.normalizer.normalize_str(text)
            words = [word for word, _ in self.pre_tokenizer.pre_tokenize_str(text)]
            self.counts.update(words)
            units = {*words, *(c for word in words for c in word if c >= _FIRST_IDEOGRAPH)} - self._known
            owners = (("text", number),) if patients is None else patients[number]
            for unit in units:
                self.patients[unit].update(owners)
                if not owners or len(self.patients[unit]) >= self.min_patients:
                    self._known.add(unit)
                    del self.patients[unit]

    def known(self) -> set[str]:
        """The words, and the characters of scripts without spaces, of at least ``min_patients`` patients or of no patient."""
        return set(self._known)

    def rare(self) -> dict[str, int]:
        """The other words, each with the number of its patients."""
        return {word: len(self.patients[word]) for word in self.counts if word not in self._known}


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 4000,
    lowercase: bool = True,
    max_length: int = 512,
    patients: Patients | None = None,
    min_patients: int = MIN_PATIENTS,
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer on texts. The same texts give the same tokenizer, byte for byte.

    The vocabulary is saved with every model, so that it must not tell what single reports say. Every entry of more than one
    character is a part of a word that occurs in the reports of at least ``min_patients`` patients; rarer words, such as names,
    are not learned from, and are tokenized by such parts and by single characters. Digits are split one by one, so that no
    number is an entry. A Chinese, Japanese or Korean character is an entry under the same condition as a word.

    Args:
        texts: training texts.
        vocab_size: maximum number of tokens, special tokens included.
        lowercase: convert to lower case and strip accents, as uncased BERT does.
        max_length: the tokenizer's ``model_max_length``.
        patients: for each text the patients whose reports have it; none for a text that is no patient's, such as a prompt,
            whose words are all learned. None takes every text as one of another patient.
        min_patients: the least number of patients of a word; 1 learns every word.

    Returns:
        A tokenizer as BERT's, with [PAD] = 0, [UNK] = 1, [CLS] = 2, [SEP] = 3 and [MASK] = 4.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If there is no text, ``vocab_size`` is too small for the characters of the texts, or ``patients`` does not
            have as many entries as ``texts``.

    Example:
        >>> reports = ["No effusion, seen by Dr. Quirk."] + ["No effusion."] * 4
        >>> tokenizer = train_tokenizer(reports)
        >>> tokenizer.tokenize("No effusion, seen"), "quirk" in tokenizer.get_vocab()
        (['no', 'effusion', ',', 's', '##e', '##e', '##n'], False)
    """
    check_integer(min_patients, "min_patients", minimum=1)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(True)])
    words = WordCounts(normalizer, pre_tokenizer, min_patients)
    words.add(texts, patients)
    known = words.known()
    characters = sorted({c for word in words.counts for c in word if c < _FIRST_IDEOGRAPH or c in known})
    if not characters:
        raise ValueError(error_message("texts", "hold at least one character", "none"))
    # The trainer numbers continuations in the random order of a hash map, and breaks ties between merges by number. As
    # special tokens they have a fixed order.
    seeds = [*SPECIAL_TOKENS, *(f"##{c}" for c in characters)]
    if vocab_size < len(seeds) + len(characters):
        minimum = len(seeds) + len(characters)
        raise ValueError(error_message("vocab_size", f"be at least {minimum} for the characters of texts", vocab_size))
    learned_count = sum(count for word, count in words.counts.items() if word in known)
    if learned_count < MIN_COVERAGE * words.counts.total():
        warnings.warn(
            f"{100 * learned_count // words.counts.total()} % of the words of the texts occur in the reports of at least "
            f"{min_patients} patients (min_patients); the others are tokenized by parts of these and by single characters.",
            RuntimeWarning,
            stacklevel=2,
        )
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=seeds, initial_alphabet=characters, show_progress=False
    )
    draft.train_from_iterator(_repeated(words.counts, known), trainer)
    learned = sorted(draft.get_vocab().items(), key=lambda item: item[1])
    tokenizer = Tokenizer(models.WordPiece({token: i for i, (token, _) in enumerate(learned)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    pad, unknown, start, separator, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=start,
        sep_token=separator,
        mask_token=mask,
        model_max_length=max_length,
    )


def _repeated(counts: Mapping[str, int], known: Collection[str]) -> Iterator[str]:
    """Each known word as often as it occurs, in pieces: the trainer needs many times the memory of a text."""
    for word, count in counts.items():
        if word in known:
            whole, rest = divmod(count, _PIECE)
            yield from [f"{word} " * _PIECE] * whole
            yield f"{word} " * rest


_PIECE = 1000


def rare_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    patients: Patients | None = None,
    min_patients: int = MIN_PATIENTS,
) -> dict[str, int]:
    """List the entries of a vocabulary that tell what single reports say, to check a tokenizer that was trained on them.

    These are the entries of more than one character that are part of a word of these texts, but of no word that occurs in the
    reports of at least ``min_patients`` patients. :func:`train_tokenizer` makes none.

    Args:
        tokenizer: a fast tokenizer.
        texts: the texts that it was trained on.
        patients: as for :func:`train_tokenizer`.
        min_patients: as for :func:`train_tokenizer`.

    Returns:
        Each entry with the number of patients in whose reports a word with it occurs.

    Example:
        >>> reports = ["No effusion, seen by Dr. Quirk."] + ["No effusion."] * 4
        >>> rare_tokens(train_tokenizer(reports, min_patients=1), reports)["quirk"]
        1
        >>> rare_tokens(train_tokenizer(reports), reports)
        {}
    """
    if not tokenizer.is_fast:
        raise ValueError(error_message("tokenizer", "be a fast tokenizer", type(tokenizer).__name__))
    backend = tokenizer.backend_tokenizer  # of fast tokenizers
    words = WordCounts(backend.normalizer, backend.pre_tokenizer or pre_tokenizers.WhitespaceSplit(), min_patients)
    words.add(texts, patients)
    entries = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    is_word_piece = isinstance(backend.model, models.WordPiece)
    known: set[str] = set()
    for word in words.known():
        known.update(_entries_of(word, entries, is_word_piece))
    owners: dict[str, set[Hashable]] = defaultdict(set)
    for word in words.rare():
        for entry in _entries_of(word, entries - known, is_word_piece):
            owners[entry] |= words.patients[word]
    return {entry: len(found) for entry, found in sorted(owners.items()) if len(found) < min_patients}


def _entries_of(word: str, entries: set[str], is_word_piece: bool) -> set[str]:
    """The entries of more than one character that are part of a word."""
    parts = {(start, word[start:end]) for start in range(len(word)) for end in range(start + 2, len(word) + 1)}
    return {entry for start, part in parts if (entry := f"##{part}" if start and is_word_piece else part) in entries}
