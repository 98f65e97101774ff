"""Text encoders: any Hugging Face text model with a pooling."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

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
from medvl.networks.encoders.checkpointing import set_hugging_face_checkpointing
from medvl.networks.encoders.pooling import DEPTHS, POOLINGS
from medvl.networks.encoders.text_models import build_text_model, is_causal, position_limit
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.tensors import as_plain


class TextEncoder(nn.Module):
    """Text, token and sentence embeddings from a Hugging Face text model. Nothing is downloaded.

    A model wrapped by peft keeps its adapters: their configuration and weights are saved with the encoder's, so that training
    can continue; :meth:`merge_adapters` merges them into the model instead.

    Args:
        model: a model, with or without adapters of peft, which is not copied; a configuration (object or dictionary with
            ``model_type``), built with random weights; a local folder with weights, or the name of a model of the Hugging Face
            Hub that is in this machine's cache.
        pooling: how tokens become one embedding: "cls" (the first token), "mean" or "max" (ConVIRT) over the tokens that the
            attention mask keeps, "last_layers" (MedCLIP; the mean of hidden layers 1, 2 and last, then over tokens),
            "last_four_layers" (GLoRIA; the mean of the last four hidden layers, then over tokens), or "last" (the last token
            kept; for causal models, whose first token does not depend on the text).
        prompt_tokens: arguments of :meth:`add_prompt_tokens`; None for no learned prompt tokens.
        adapters: configurations of peft's adapters by name, to be added with new weights; None for none.

    Raises:
        ValueError: If the pooling is unknown or does not suit the model ("last_layers" with fewer than two layers,
            "last_four_layers" with fewer than four, "cls" with a causal model), or ``model`` is not a text model.

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
        check_option(pooling, "pooling", tuple(POOLINGS))
        self.model = build_text_model(model)
        depth = self.model.config.num_hidden_layers
        if depth < DEPTHS.get(pooling, 0):
            raise ValueError(
                f"pooling={pooling!r} needs at least {DEPTHS[pooling]} hidden layers, the model has {depth}."
            )
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
        """Number V of rows of the model's embedding table; prompt tokens have the ids from V on."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def prompt_embedding(self) -> ContinuousPromptEmbedding | None:
        """The input embedding if it has prompt tokens, else None."""
        embedding = self.model.get_input_embeddings()
        return embedding if isinstance(embedding, ContinuousPromptEmbedding) else None

    @property
    def prompt_tokens(self) -> PromptTokens | None:
        """The module of the learned prompt tokens, all that prompt learning trains; None without prompt tokens."""
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
        """Add learned tokens with the ids from :attr:`vocab_size` on; they replace previous ones.

        :meth:`insert_prompt_tokens` inserts the ids in a batch of texts, :class:`medvl.transforms.AddPromptTokens` with
        ``vocab_size=encoder.vocab_size`` in one text. The tokens are saved with the encoder. To train only the tokens::

            model.requires_grad_(False)
            model.text_encoder.add_prompt_tokens(16)

        Args:
            num_tokens: number of tokens; this and the next four are arguments of
                :class:`~medvl.networks.ContinuousPromptEmbedding`.
            num_classes: number of classes with tokens of their own, None for shared tokens.
            initial_ids: token ids (L,) of a text whose embeddings are the initial vectors, or a list for each class.
            reparameterization: "none", "mlp" or "lstm".
            hidden_features: width of the MLP and of the LSTM.
            position: position of the tokens in a text: "front", "middle" or "end".

        Returns:
            The module of the tokens.

        Raises:
            ValueError: If an argument is out of range.

        Example:
            >>> from transformers import BertConfig
            >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
            >>> encoder = TextEncoder(BertConfig(vocab_size=30, **sizes)).requires_grad_(False)
            >>> prompt_tokens = encoder.add_prompt_tokens(4, num_classes=5)
            >>> [name for name, value in encoder.named_parameters() if value.requires_grad]
            ['model.embeddings.word_embeddings.prompt_tokens.vectors']
            >>> tuple(prompt_tokens().shape), encoder.vocab_size
            ((5, 4, 8), 30)
        """
        check_option(position, "position", POSITIONS)
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
        """Insert the ids of the prompt tokens in texts, at their position.

        Args:
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero for tokens to keep.
            sentence_ids: (M, L), -1 for special and padding tokens.
            class_indices: (M,), the class of each text, if every class has tokens of its own.

        Returns:
            ``input_ids``, ``attention_mask`` and ``sentence_ids``, (M, L + T), arguments of :meth:`forward`.

        Raises:
            ValueError: If there are no prompt tokens, or ``class_indices`` are missing, not needed or out of range.

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
            raise ValueError("The text encoder has no prompt tokens: call add_prompt_tokens first.")
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
                    error_message(
                        "class_indices",
                        f"be one class from 0 to {classes - 1} for each of {len(input_ids)} texts",
                        index.tolist(),
                    )
                )
            prompt_ids = prompt_ids + index.unsqueeze(1) * tokens
        values = insert_prompt_tokens(input_ids, attention_mask, sentence_ids, prompt_ids, self.prompt_position)
        return dict(zip(("input_ids", "attention_mask", "sentence_ids"), values, strict=True))

    def merge_adapters(self) -> None:
        """Merge peft's adapters into the model's weights; the encoder then does not need peft."""
        if has_adapters(self.model):
            self.model = self.model.merge_and_unload()

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder with random weights, as plain values for JSON."""
        config: dict[str, Any] = {"model": self.model.config.to_dict(), "pooling": self.pooling}
        config["model"].pop("_name_or_path", None)  # a path on this machine
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
        """Freeze the token embeddings and the first ``layers`` transformer layers, or the whole model if None.

        ConVIRT freezes the embeddings and the first 6 of BERT's 12 layers. Learned prompt tokens and adapters are not frozen;
        ``requires_grad_(False)`` freezes them too.

        Raises:
            TypeError: If ``layers`` is neither an integer nor None.
            ValueError: If the model has fewer layers, or all layers share their weights.
        """
        model, added = unwrap_adapters(self.model), self._added_parameters()
        weights = [(name, value) for name, value in model.named_parameters() if id(value) not in added]
        if layers is not None:
            check_integer(layers, "layers")
            depth = model.config.num_hidden_layers
            if not 0 <= layers <= depth:
                raise ValueError(error_message("layers", f"be between 0 and the model's {depth}", layers))
            stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
            if not stacks:
                raise ValueError(
                    f"layers must be None for a {type(model).__name__}, which has no list of {depth} layers."
                )
            names = [name for name, _ in weights]
            first = next(i for i, name in enumerate(names) if name.startswith(f"{stacks[0]}."))
            # XLM and FlauBERT have one list for each part of a layer.
            beside = [stack for stack in stacks if stack.rpartition(".")[0] == stacks[0].rpartition(".")[0]]
            frozen = tuple(f"{stack}.{layer}." for stack in beside for layer in range(layers))
            # Parameters before the layers are those of the embeddings of tokens, positions and types.
            weights = [(n, v) for i, (n, v) in enumerate(weights) if i < first or n.startswith(frozen)]
        for _, value in weights:
            value.requires_grad_(False)

    def _added_parameters(self) -> set[int]:
        """Identities of the parameters that were added to the model: prompt tokens and adapters."""
        prefix = adapter_prefix(self.model)
        added = {id(v) for n, v in self.model.named_parameters() if prefix is not None and prefix in n}
        return added | ({id(v) for v in self.prompt_tokens.parameters()} if self.prompt_tokens is not None else set())

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode a batch of token sequences. Padding may be on either side; compiled models need it on the right.

        Args:
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero for tokens to keep; None keeps every token.
            sentence_ids: (M, L), the sentence of each token, -1 for none, as :class:`medvl.transforms.TokenizeText` gives.
            token_type_ids: (M, L), as a Hugging Face tokenizer gives; a model without token types takes zeros.

        Returns:
            ``embed`` (M, C) and ``tokens`` (M, L, C), the last hidden states, or with the pooling "last_four_layers" the mean
            of the last four. With ``sentence_ids`` also ``sentences`` (M, S, C), the mean over the tokens of each sentence that
            the attention mask keeps, and ``sentence_mask`` (M, S), True for sentences with such tokens; S is one more than the
            largest sentence id.

        Raises:
            ValueError: If shapes differ, there are more tokens than the model has positions, an id is out of range, or the
                model has no token types and there is one that is not 0.
        """
        input_ids = as_plain(input_ids)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else as_plain(attention_mask)
        self._check(input_ids, attention_mask, sentence_ids, token_type_ids)
        types = {} if token_type_ids is None else self._token_types(as_plain(token_type_ids))
        all_layers = self.pooling in DEPTHS
        # Models count positions from the left: what a batch has padded there is moved to the right.
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        source = (place + attention_mask.bool().int().argmax(1, keepdim=True)) % input_ids.shape[1]  # (M, L)
        on_cpu = input_ids.device.type == "cpu"  # elsewhere the check would wait for the mask
        padded_left = not torch.compiler.is_compiling() and (not on_cpu or bool((source != place).any()))
        if padded_left:
            input_ids, moved_mask = input_ids.gather(1, source), attention_mask.gather(1, source)
            types = {name: value.gather(1, source) for name, value in types.items()}
        else:
            moved_mask = attention_mask
        output = self.model(input_ids=input_ids, attention_mask=moved_mask, output_hidden_states=all_layers, **types)
        tokens, mask = output.last_hidden_state, attention_mask.bool()
        states = (*output.hidden_states[:-1], tokens) if all_layers else (tokens,)
        result = {"embed": POOLINGS[self.pooling](states, moved_mask.bool())}
        if self.pooling == "last_four_layers":
            tokens = torch.stack(states[-4:]).mean(0)
        if padded_left:
            tokens = torch.zeros_like(tokens).scatter(1, source.unsqueeze(-1).expand_as(tokens), tokens)
        result["tokens"] = tokens
        if sentence_ids is not None:
            result["sentences"], result["sentence_mask"] = segment_mean(tokens, sentence_ids.where(mask, -1))
        return result

    def _token_types(self, token_type_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The token types as an argument of the model, if it has an embedding of them."""
        count = int(getattr(self.model.config, "type_vocab_size", 0) or 0)
        takes = "token_type_ids" in inspect.signature(unwrap_adapters(self.model).forward).parameters
        if count > 1 and takes:
            return {"token_type_ids": token_type_ids.long()}
        if not torch.compiler.is_compiling() and token_type_ids.device.type == "cpu" and token_type_ids.any():
            expected = f"be 0 for a {type(unwrap_adapters(self.model)).__name__}, which has no token types"
            raise ValueError(error_message("token_type_ids", expected, int(token_type_ids.max())))
        return {}

    def gradient_checkpointing_enable(self, enabled: bool = True) -> None:
        """Keep only the inputs of the model's layers for the gradient, and compute the rest again in the backward pass.

        Args:
            enabled: False to keep everything again.

        Raises:
            ValueError: If the model does not support it.
        """
        set_hugging_face_checkpointing(self.model, enabled)

    def _check(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        sentence_ids: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
    ) -> None:
        if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                error_message(
                    "input_ids", "be integers of shape (M, L)", f"{input_ids.dtype} of shape {tuple(input_ids.shape)}"
                )
            )
        given = {"attention_mask": attention_mask, "sentence_ids": sentence_ids, "token_type_ids": token_type_ids}
        for name, value in given.items():
            if value is not None and value.shape != input_ids.shape:
                raise ValueError(
                    error_message(
                        f"input_ids and {name}",
                        "share one shape (M, L)",
                        f"{tuple(input_ids.shape)} and {tuple(value.shape)}",
                    )
                )
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[1]} tokens a text, more than the model's {self.max_length} positions; "
                "tokenize with a smaller max_length."
            )
        # On another device the check would wait for the ids; there the look-up itself fails.
        can_check = input_ids.device.type == "cpu" and not torch.compiler.is_compiling() and input_ids.numel()
        if can_check and self.prompt_embedding is None:
            low, high = (int(value) for value in input_ids.aminmax())
            if low < 0 or high >= self.vocab_size:
                raise ValueError(
                    error_message("input_ids", f"be from 0 to {self.vocab_size - 1}", low if low < 0 else high)
                )
