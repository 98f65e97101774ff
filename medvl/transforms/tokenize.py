"""Text to token ids that remember their sentence, and a tokenizer trained on the reports themselves."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Transform
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medvl.text import tokenize_texts
from medvl.text.spans import require_text
from medvl.transforms.study import StudyMapTransform

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizeText(Transform):
    """Token ids of a text, its attention mask, and the sentence that each token comes from.

    One pass over a report then yields every sentence's embedding. Tokens are matched to sentences by their characters
    in the text, so the whole text is tokenised at once, as the text model expects.

    Args:
        tokenizer: a Hugging Face tokenizer (a fast one: it knows the characters behind each token) or the local folder
            of one, which is read at the first call.
        max_length: longest sequence, special tokens included; the rest is cut off.
        padding: pad every result to ``max_length``. Without it, batches are padded where they are collated.

    Raises:
        ValueError: if ``max_length`` is below 3, if the tokenizer is not a fast one, or if padding is asked of a
            tokenizer without a padding token.
        OSError: at the first call, if the folder holds no tokenizer.

    Example:
        >>> tokenizer = train_tokenizer(["no effusion . heart is normal ."])
        >>> out = TokenizeText(tokenizer, max_length=8)("No effusion. Heart is normal.")
        >>> tokenizer.convert_ids_to_tokens(out["input_ids"].tolist())
        ['[CLS]', 'no', 'effusion', '.', 'heart', 'is', 'normal', '[SEP]']
        >>> out["sentence_ids"].tolist()
        [-1, 0, 0, 0, 1, 1, 1, -1]
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | str, max_length: int = 256, padding: bool = False) -> None:
        if max_length < 3:
            raise ValueError(f"max_length must be at least 3, got {max_length}")
        self.max_length, self.padding = max_length, padding
        self.source = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else str(tokenizer)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            self._tokenizer = self._checked(tokenizer)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, read from its folder when first needed."""
        if self._tokenizer is None:
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, local_files_only=True)
            except (OSError, ValueError) as error:
                raise OSError(f"tokenizer: there is none in {self.source!r}, expected a local folder of one") from error
            self._tokenizer = self._checked(tokenizer)
        return self._tokenizer

    def _checked(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if not tokenizer.is_fast:
            raise ValueError(
                f"tokenizer must be a fast tokenizer, which keeps character offsets, got {type(tokenizer).__name__}"
            )
        if self.padding and tokenizer.pad_token_id is None:
            raise ValueError(f"padding needs a tokenizer with a padding token, got {type(tokenizer).__name__} without")
        return tokenizer

    def __call__(self, text: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise one text.

        Args:
            text: a text, split into sentences by :func:`medvl.text.split_sentences`, or the list of its sentences.

        Returns:
            ``input_ids`` (L,), ``attention_mask`` (L,) and ``sentence_ids`` (L,), int64. A sentence id is -1 for
            special and padding tokens.

        Raises:
            TypeError: if ``text`` is neither a string nor a sequence of strings.
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
        prefix: put before the names of the three results, for studies with several texts.
        allow_missing_keys: do nothing for a study without the text.

    Raises:
        ValueError: if ``keys`` names more than one key; for the rest see :class:`TokenizeText`.

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
            raise ValueError("tokenizer must be a Hugging Face tokenizer or the folder of one, got None.")
        super().__init__(keys, TokenizeText(tokenizer, max_length, padding), allow_missing_keys)
        self.prefix = prefix

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Tokenize one text."""
        return {self.prefix + name: value for name, value in self.transform(data[key]).items()}


TokenizeTextD = TokenizeTextDict = TokenizeTextd


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 4000, lowercase: bool = True, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer on reports; the same texts give the same tokenizer, byte for byte.

    Args:
        texts: training texts.
        vocab_size: largest number of tokens, special tokens included.
        lowercase: fold case and strip accents, as uncased BERT does.
        max_length: the tokenizer's ``model_max_length``.

    Returns:
        A BERT-like tokenizer with [PAD] = 0, [UNK] = 1, [CLS] = 2, [SEP] = 3 and [MASK] = 4, ready for
        ``save_pretrained``.

    Raises:
        TypeError: if a text is not a string.
        ValueError: if there is no text, or if ``vocab_size`` leaves no room beside the characters in the texts.

    Example:
        >>> tokenizer = train_tokenizer(["no effusion", "no edema"])
        >>> tokenizer("No edema")["input_ids"][0] == tokenizer.cls_token_id == 2
        True
    """
    texts = [require_text(text, "each of texts") for text in texts]
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    characters = sorted({c for text in texts for c in normalizer.normalize_str(text) if not c.isspace()})
    if not characters:
        raise ValueError("texts must hold at least one text with characters in it, got none")
    # Left to itself, the trainer numbers continuations in the random order of a hash map, and with them breaks ties
    # between merges. Named beforehand, they have one order.
    seeds = [*SPECIAL_TOKENS, *(f"##{c}" for c in characters)]
    if vocab_size < len(seeds) + len(characters):
        raise ValueError(
            f"vocab_size must be at least {len(seeds) + len(characters)} for the characters in texts, got {vocab_size}"
        )
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
