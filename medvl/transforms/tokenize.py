"""Tokenization with a sentence id for each token, and training of a tokenizer on reports."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Transform
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medvl.text import tokenize_texts
from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import check_integer, check_text, error_message

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizeText(Transform):
    """Tokenize a text into token ids, an attention mask, and the sentence id of each token.

    With the sentence ids, one pass over a report gives the embedding of every sentence. Tokens are matched to sentences by
    their character offsets, so that the whole text is tokenized at once, as the text model expects.

    Args:
        tokenizer: a fast Hugging Face tokenizer (one with character offsets), or a local folder with one, which is read at
            the first call.
        max_length: maximum length, special tokens included, at least 3; longer texts are truncated.
        padding: pad to ``max_length``. Otherwise batches are padded when they are collated.

    Raises:
        ValueError: If ``max_length`` is below 3, the tokenizer is not a fast one, or ``padding`` is True and the tokenizer
            has no padding token.
        OSError: At the first call, if the folder holds no tokenizer.

    Example:
        >>> tokenizer = train_tokenizer(["no effusion . heart is normal ."])
        >>> out = TokenizeText(tokenizer, max_length=8)("No effusion. Heart is normal.")
        >>> tokenizer.convert_ids_to_tokens(out["input_ids"].tolist())
        ['[CLS]', 'no', 'effusion', '.', 'heart', 'is', 'normal', '[SEP]']
        >>> out["sentence_ids"].tolist()
        [-1, 0, 0, 0, 1, 1, 1, -1]
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | str, max_length: int = 256, padding: bool = False) -> None:
        check_integer(max_length, "max_length", minimum=3)
        self.max_length, self.padding = max_length, padding
        self.source = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else str(tokenizer)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            self._tokenizer = self._checked(tokenizer)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; its folder is read at the first access."""
        if self._tokenizer is None:
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, local_files_only=True)
            except (OSError, ValueError) as error:
                raise OSError(f"the folder {self.source!r} holds no tokenizer.") from error
            self._tokenizer = self._checked(tokenizer)
        return self._tokenizer

    def _checked(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if not tokenizer.is_fast:
            raise ValueError(
                error_message("tokenizer", "be a fast tokenizer (with character offsets)", type(tokenizer).__name__)
            )
        if self.padding and tokenizer.pad_token_id is None:
            raise ValueError(
                error_message("tokenizer", "have a padding token where padding is True", type(tokenizer).__name__)
            )
        return tokenizer

    def __call__(self, text: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenize one text.

        Args:
            text: a text, split into sentences by :func:`medvl.text.split_sentences`, or the list of its sentences.

        Returns:
            ``input_ids`` (L,), ``attention_mask`` (L,) and ``sentence_ids`` (L,), int64. A sentence id is -1 for
            special and padding tokens.

        Raises:
            TypeError: If ``text`` is neither a string nor a sequence of strings.
        """
        padding = "max_length" if self.padding else False
        tokens = tokenize_texts(self.tokenizer, [text], self.max_length, padding)
        return {name: torch.from_numpy(values[0]) for name, values in tokens.items()}


class TokenizeTextd(StudyMapTransform):
    """Dictionary form of :class:`TokenizeText`: writes ``input_ids``, ``attention_mask`` and ``sentence_ids``.

    Args:
        keys: the key of the text, or of the list of its sentences.
        tokenizer: see :class:`TokenizeText`.
        max_length: see :class:`TokenizeText`.
        padding: see :class:`TokenizeText`.
        prefix: prefix of the three output keys, for studies with several texts.
        allow_missing_keys: do nothing for a study without the text.

    Raises:
        ValueError: If ``keys`` names more than one key; see also :class:`TokenizeText`.

    Example:
        >>> tokenizer = train_tokenizer(["no effusion"])
        >>> sorted(TokenizeTextd(tokenizer=tokenizer)({"text": "No effusion."}))
        ['attention_mask', 'input_ids', 'sentence_ids', 'text']
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "text",
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        max_length: int = 256,
        padding: bool = False,
        prefix: str = "",
        allow_missing_keys: bool = False,
    ) -> None:
        if tokenizer is None:
            raise ValueError(error_message("tokenizer", "be a Hugging Face tokenizer or the folder of one", None))
        super().__init__(keys, TokenizeText(tokenizer, max_length, padding), allow_missing_keys)
        self.prefix = prefix

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Tokenize one text."""
        return {self.prefix + name: value for name, value in self.transform(data[key]).items()}


TokenizeTextD = TokenizeTextDict = TokenizeTextd


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 4000, lowercase: bool = True, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer on texts. The same texts give the same tokenizer, byte for byte.

    Args:
        texts: training texts.
        vocab_size: maximum number of tokens, special tokens included.
        lowercase: convert to lower case and strip accents, as uncased BERT does.
        max_length: the tokenizer's ``model_max_length``.

    Returns:
        A tokenizer as BERT's, with [PAD] = 0, [UNK] = 1, [CLS] = 2, [SEP] = 3 and [MASK] = 4.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If there is no text, or ``vocab_size`` is too small for the characters of the texts.

    Example:
        >>> tokenizer = train_tokenizer(["no effusion", "no edema"])
        >>> tokenizer("No edema")["input_ids"][0] == tokenizer.cls_token_id == 2
        True
    """
    texts = list(texts)
    for text in texts:
        check_text(text, "each of texts")
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    characters = sorted({c for text in texts for c in normalizer.normalize_str(text) if not c.isspace()})
    if not characters:
        raise ValueError(error_message("texts", "hold at least one character", "none"))
    # The trainer numbers continuations in the random order of a hash map, and breaks ties between merges by number. As
    # special tokens they have a fixed order.
    seeds = [*SPECIAL_TOKENS, *(f"##{c}" for c in characters)]
    if vocab_size < len(seeds) + len(characters):
        minimum = len(seeds) + len(characters)
        raise ValueError(error_message("vocab_size", f"be at least {minimum} for the characters of texts", vocab_size))
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.normalizer, draft.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=seeds, initial_alphabet=characters, show_progress=False
    )
    draft.train_from_iterator(texts, trainer)
    learned = sorted(draft.get_vocab().items(), key=lambda item: item[1])
    tokenizer = Tokenizer(models.WordPiece({token: i for i, (token, _) in enumerate(learned)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
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
