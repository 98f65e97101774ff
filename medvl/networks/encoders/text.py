"""Text encoders: any Hugging Face text model with a stated pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PretrainedConfig

from medvl.functional import insert_prompt_tokens, segment_mean
from medvl.functional.prompt_tokens import POSITIONS
from medvl.networks.blocks.continuous_prompt import ContinuousPromptEmbedding, PromptTokens
from medvl.networks.encoders.adapters import (
    adapter_prefix,
    adapters_config,
    add_adapters,
    has_adapters,
    unwrap_adapters,
)
from medvl.networks.encoders.pooling import POOLINGS
from medvl.networks.encoders.text_models import build_text_model, is_causal, position_limit
from medvl.utils.tensors import as_plain


def load_tokenizer(folder: str | Path) -> Any:
    """The Hugging Face tokenizer saved in a local folder.

    Raises:
        ValueError: where there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(
            f"a tokenizer is read from a local folder (nothing is downloaded), there is no folder {folder}."
        )
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


class TextEncoder(nn.Module):
    """Text, token and sentence embeddings from a Hugging Face text model. Nothing is downloaded.

    A model that peft has wrapped keeps its adapters: their configuration is saved with the encoder's and their weights with
    its weights, so that training can go on; :meth:`merge_adapters` makes them part of the model instead.

    Args:
        model: a model object (with peft's adapters or without), which becomes the encoder's own; a configuration (object or
            dictionary with ``model_type``), built with random weights; or a local folder with weights.
        pooling: how tokens become one embedding: "cls" (the first token), "mean", "max" (ConVIRT's), both over the tokens
            that the attention mask keeps, "last_layers" (MedCLIP's mean of hidden layers 1, 2 and last, then over tokens), or
            "last" (the last token kept; for causal models, whose first token knows nothing of the text).
        prompt_tokens: learned prompt tokens, arguments of :meth:`add_prompt_tokens`; None for none.
        adapters: configurations of peft's adapters by name, to be added with new weights; None for none.

    Raises:
        ValueError: an unknown pooling; a folder that does not exist; "last_layers" of a model with fewer than two layers;
            "cls" of a causal model.

    Example:
        >>> from transformers import BertConfig
        >>> sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> encoder = TextEncoder(BertConfig(vocab_size=30, **sizes), pooling="max")
        >>> ids, mask = torch.tensor([[2, 7, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1, 0]])
        >>> output = encoder(ids, mask, sentence_ids=torch.tensor([[-1, 0, 1, -1, -1]]))
        >>> {name: tuple(value.shape) for name, value in output.items()}
        {'embed': (1, 8), 'tokens': (1, 5, 8), 'sentences': (1, 2, 8), 'sentence_mask': (1, 2)}
    """

    def __init__(
        self,
        model: nn.Module | PretrainedConfig | Mapping[str, Any] | str | Path,
        pooling: str = "cls",
        prompt_tokens: Mapping[str, Any] | None = None,
        adapters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
        self.model = build_text_model(model)
        depth = self.model.config.num_hidden_layers
        if pooling == "last_layers" and depth < 2:
            raise ValueError(f"pooling='last_layers' needs at least 2 hidden layers, the model has {depth}.")
        if pooling == "cls" and is_causal(unwrap_adapters(self.model)):
            raise ValueError(
                f"pooling='cls' reads the first token, which knows nothing of the text in the causal model "
                f"{type(unwrap_adapters(self.model)).__name__}: take 'last' or 'mean'."
            )
        self.pooling, self.prompt_position = pooling, "front"
        self.max_length = position_limit(unwrap_adapters(self.model))
        if adapters:
            self.model = add_adapters(self.model, adapters)
        if prompt_tokens:
            self.add_prompt_tokens(**prompt_tokens)

    @property
    def out_features(self) -> int:
        """Width C of the embedding."""
        return int(self.model.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """V, the ids of the model's table; prompt tokens have the ids from V on."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def prompt_embedding(self) -> ContinuousPromptEmbedding | None:
        """The input embedding, where it serves prompt tokens."""
        embedding = self.model.get_input_embeddings()
        return embedding if isinstance(embedding, ContinuousPromptEmbedding) else None

    @property
    def prompt_tokens(self) -> PromptTokens | None:
        """The learned prompt vectors, all that prompt learning trains; None without prompt tokens."""
        embedding = self.prompt_embedding
        return None if embedding is None else embedding.prompt_tokens

    def add_prompt_tokens(
        self,
        num_tokens: int,
        num_classes: int | None = None,
        initial_ids: Sequence[int] | Sequence[Sequence[int]] | torch.Tensor | None = None,
        reparameterization: str = "none",
        hidden_features: int | None = None,
        position: str = "front",
    ) -> PromptTokens:
        """Lets the ids from :attr:`vocab_size` on stand for learned tokens, in place of those that there were.

        :meth:`insert_prompt_tokens` puts the ids into a batch of texts, :class:`medvl.transforms.AddPromptTokens` with
        ``vocab_size=encoder.vocab_size`` into one. The tokens are saved with the encoder. To learn nothing but them::

            model.requires_grad_(False)
            model.text_encoder.add_prompt_tokens(16)

        Args:
            num_tokens: see :class:`~medvl.networks.ContinuousPromptEmbedding`, as for the next four.
            num_classes: see there.
            initial_ids: see there.
            reparameterization: see there.
            hidden_features: see there.
            position: where the tokens belong: "front", "middle" or "end" of a text.

        Returns:
            The module that holds the vectors and nothing else.

        Raises:
            ValueError: for arguments out of range.

        Example:
            >>> from transformers import BertConfig
            >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
            >>> encoder = TextEncoder(BertConfig(vocab_size=30, **sizes)).requires_grad_(False)
            >>> prompts = encoder.add_prompt_tokens(4, num_classes=5)
            >>> [name for name, value in encoder.named_parameters() if value.requires_grad]
            ['model.embeddings.word_embeddings.prompt_tokens.vectors']
            >>> tuple(prompts().shape), encoder.vocab_size
            ((5, 4, 8), 30)
        """
        if position not in POSITIONS:
            raise ValueError(f"position must be one of {', '.join(POSITIONS)}, got {position!r}.")
        prompted = ContinuousPromptEmbedding(
            self.model.get_input_embeddings(), num_tokens, num_classes, initial_ids, reparameterization, hidden_features
        )
        self.model.set_input_embeddings(prompted)
        self.prompt_position = position
        return prompted.prompt_tokens

    def insert_prompt_tokens(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        sentence_ids: torch.Tensor,
        class_indices: torch.Tensor | Sequence[int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Puts the ids of the prompt tokens into texts, at the position that they belong to.

        Args:
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero = keep.
            sentence_ids: (M, L), -1 for special and padding tokens.
            class_indices: (M,), the class of each text, where every class has tokens of its own.

        Returns:
            The three by name, (M, L + T): what :meth:`forward` takes.

        Raises:
            ValueError: without prompt tokens; without classes where they are needed, or with ones that there are not.

        Example:
            >>> from transformers import BertConfig
            >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
            >>> encoder = TextEncoder(BertConfig(vocab_size=30, **sizes), prompt_tokens={"num_tokens": 2, "position": "end"})
            >>> ids, mask, sentences = torch.tensor([[2, 7, 3]]), torch.ones(1, 3), torch.tensor([[-1, 0, -1]])
            >>> encoder.insert_prompt_tokens(ids, mask, sentences)["input_ids"].tolist()
            [[2, 7, 30, 31, 3]]
        """
        embedding = self.prompt_embedding
        if embedding is None:
            raise ValueError("the text encoder has no prompt tokens: call add_prompt_tokens first.")
        tokens, classes = embedding.num_tokens, embedding.num_classes
        if (classes is None) != (class_indices is None):
            raise ValueError(
                f"class_indices must be {'None' if classes is None else 'given'} for prompt tokens "
                f"{'shared by all classes' if classes is None else f'of {classes} classes'}."
            )
        prompt_ids = self.vocab_size + torch.arange(tokens, device=input_ids.device)
        if classes is not None:
            index = torch.as_tensor(class_indices, device=input_ids.device)
            fits = index.shape == input_ids.shape[:1] and not index.is_floating_point()
            if not fits or not ((index >= 0) & (index < classes)).all():
                raise ValueError(
                    f"class_indices must be one class from 0 to {classes - 1} for each of {len(input_ids)} texts, "
                    f"got {index.tolist()}."
                )
            prompt_ids = prompt_ids + index.unsqueeze(1) * tokens
        values = insert_prompt_tokens(input_ids, attention_mask, sentence_ids, prompt_ids, self.prompt_position)
        return dict(zip(("input_ids", "attention_mask", "sentence_ids"), values, strict=True))

    def merge_adapters(self) -> None:
        """Makes peft's adapters part of the model's weights; the encoder then needs peft no more."""
        if has_adapters(self.model):
            self.model = self.model.merge_and_unload()

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder anew (with random weights), as plain values for JSON."""
        config: dict[str, Any] = {"model": self.model.config.to_dict(), "pooling": self.pooling}
        config["model"].pop("_name_or_path", None)  # a place on this machine
        if self.prompt_embedding is not None:
            config["prompt_tokens"] = {**self.prompt_embedding.to_config(), "position": self.prompt_position}
        if has_adapters(self.model):
            config["adapters"] = adapters_config(self.model)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextEncoder:
        """The encoder that :meth:`to_config` describes, with random weights."""
        return cls(**config)

    def freeze(self, layers: int | None = None) -> None:
        """Stops training the token embeddings and the first ``layers`` transformer layers (all of the model where None).

        ConVIRT freezes the embeddings and the first 6 of BERT's 12 layers. Learned prompt tokens and adapters, which are
        there to be trained, stay as they are; ``requires_grad_(False)`` stops them too.

        Raises:
            ValueError: where the model has fewer layers, or shares one layer's weights among all.
        """
        model, added = unwrap_adapters(self.model), self._added_parameters()
        weights = [(name, value) for name, value in model.named_parameters() if id(value) not in added]
        if layers is not None:
            depth = model.config.num_hidden_layers
            if not 0 <= layers <= depth:
                raise ValueError(f"layers must be between 0 and the model's {depth}, got {layers}.")
            stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
            if not stacks:
                raise ValueError(
                    f"layers must be None for a {type(model).__name__}, which has no list of {depth} layers."
                )
            names = [name for name, _ in weights]
            first = next(i for i, name in enumerate(names) if name.startswith(f"{stacks[0]}."))
            # XLM and FlauBERT keep the parts of their layers in lists side by side.
            beside = [stack for stack in stacks if stack.rpartition(".")[0] == stacks[0].rpartition(".")[0]]
            frozen = tuple(f"{stack}.{layer}." for stack in beside for layer in range(layers))
            # What comes before the layers makes their input: the embeddings of tokens, positions and types.
            weights = [(n, v) for i, (n, v) in enumerate(weights) if i < first or n.startswith(frozen)]
        for _, value in weights:
            value.requires_grad_(False)

    def _added_parameters(self) -> set[int]:
        """Identities of the parameters that came on top of the model: prompt tokens and adapters."""
        prefix = adapter_prefix(self.model)
        added = {id(v) for n, v in self.model.named_parameters() if prefix is not None and prefix in n}
        return added | ({id(v) for v in self.prompt_tokens.parameters()} if self.prompt_tokens is not None else set())

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encodes a batch of token sequences.

        Args:
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero = keep; every token where None.
            sentence_ids: (M, L), the sentence of each token, -1 for none, as :class:`medvl.transforms.TokenizeText` gives.

        Returns:
            ``embed`` (M, C) and ``tokens`` (M, L, C), the last hidden states. Where ``sentence_ids`` are given also
            ``sentences`` (M, S, C), the mean of each sentence's tokens that the attention mask keeps, and ``sentence_mask``
            (M, S), True where there are any; S is the largest sentence id and 1.

        Raises:
            ValueError: shapes that differ, more tokens than the model has positions, or ids that it does not have.
        """
        input_ids = as_plain(input_ids)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else as_plain(attention_mask)
        self._check(input_ids, attention_mask, sentence_ids)
        all_layers = self.pooling == "last_layers"
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=all_layers)
        tokens, mask = output.last_hidden_state, attention_mask.bool()
        states = (*output.hidden_states[:-1], tokens) if all_layers else (tokens,)
        result = {"embed": POOLINGS[self.pooling](states, mask), "tokens": tokens}
        if sentence_ids is not None:
            result["sentences"], result["sentence_mask"] = segment_mean(tokens, sentence_ids.where(mask, -1))
        return result

    def _check(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, sentence_ids: torch.Tensor | None) -> None:
        if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"input_ids must be integers of shape (M, L), got {input_ids.dtype} of shape {tuple(input_ids.shape)}."
            )
        for name, value in (("attention_mask", attention_mask), ("sentence_ids", sentence_ids)):
            if value is not None and value.shape != input_ids.shape:
                raise ValueError(
                    f"input_ids and {name} must share one shape (M, L), got {tuple(input_ids.shape)} and "
                    f"{tuple(value.shape)}."
                )
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[1]} tokens a text, more than the model's {self.max_length} positions; "
                "tokenize with a smaller max_length."
            )
        # On another device the ids would have to be waited for; there the look-up itself fails.
        looks = input_ids.device.type == "cpu" and not torch.compiler.is_compiling() and input_ids.numel()
        if looks and self.prompt_embedding is None:
            low, high = (int(value) for value in input_ids.aminmax())
            if low < 0 or high >= self.vocab_size:
                raise ValueError(
                    f"input_ids holds {low if low < 0 else high}, outside the model's {self.vocab_size} ids."
                )
