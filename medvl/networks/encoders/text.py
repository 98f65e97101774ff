"""Text encoders: any Hugging Face text model with a stated pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel


def _pool_cls(states: tuple[torch.Tensor, ...], mask: torch.Tensor) -> torch.Tensor:
    return states[-1][:, 0]


def _pool_mean(states: tuple[torch.Tensor, ...], mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(states[-1].dtype)  # (M, L, 1)
    return (states[-1] * weights).sum(1) / weights.sum(1).clamp(min=1)


def _pool_max(states: tuple[torch.Tensor, ...], mask: torch.Tensor) -> torch.Tensor:
    lowest = torch.finfo(states[-1].dtype).min
    pooled = states[-1].masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    return pooled * mask.any(1, keepdim=True).to(pooled.dtype)  # a text without a token pools to zero


def _pool_last_layers(states: tuple[torch.Tensor, ...], mask: torch.Tensor) -> torch.Tensor:
    chosen = torch.stack([states[1], states[2], states[-1]]).mean(0)
    return _pool_mean((chosen,), mask)


POOLINGS: dict[str, Callable[[tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]] = {
    "cls": _pool_cls,
    "mean": _pool_mean,
    "max": _pool_max,
    "last_layers": _pool_last_layers,
}


def build_text_model(model: PreTrainedModel | PretrainedConfig | Mapping[str, Any] | str | Path) -> PreTrainedModel:
    """A Hugging Face text model from itself, its configuration (random weights), or a local folder (its weights)."""
    if isinstance(model, PreTrainedModel):
        return model
    if isinstance(model, Mapping):
        model = AutoConfig.for_model(**model)
    if isinstance(model, PretrainedConfig):
        built = AutoModel.from_config(model)
    elif Path(model).is_dir():
        built = AutoModel.from_pretrained(str(model), local_files_only=True)
    else:
        raise ValueError(
            f"model must be a Hugging Face model, a configuration or a local folder, received {str(model)!r}."
        )
    if getattr(built, "pooler", None) is not None:
        built.pooler = None  # its weights would never see a gradient
    return built


def load_tokenizer(folder: str | Path) -> Any:
    """The Hugging Face tokenizer saved in a local folder."""
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


class TextEncoder(nn.Module):
    """Text and token embeddings from a Hugging Face text model. Nothing is downloaded.

    Args:
        model: a model object; a configuration (object or dictionary with ``model_type``), built with random weights; or a
            local folder with weights.
        pooling: how tokens become one embedding: "cls" (the first token), "mean", "max" (ConVIRT's), both over the tokens
            that the attention mask keeps, or "last_layers" (MedCLIP's mean of hidden layers 1, 2 and last, then over tokens).

    Raises:
        ValueError: an unknown pooling; a folder that does not exist; "last_layers" of a model with fewer than two layers.

    Example:
        >>> from transformers import BertConfig
        >>> sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> encoder = TextEncoder(BertConfig(vocab_size=30, **sizes), pooling="max")
        >>> output = encoder(torch.tensor([[2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 0]]))
        >>> output["embed"].shape, output["tokens"].shape
        (torch.Size([1, 8]), torch.Size([1, 4, 8]))
    """

    def __init__(
        self,
        model: PreTrainedModel | PretrainedConfig | Mapping[str, Any] | str | Path,
        pooling: str = "cls",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, received {pooling!r}.")
        self.model = build_text_model(model)
        if pooling == "last_layers" and self.model.config.num_hidden_layers < 2:
            raise ValueError(
                f"pooling='last_layers' needs at least 2 hidden layers, the model has {self.model.config.num_hidden_layers}."
            )
        self.pooling = pooling

    @property
    def out_features(self) -> int:
        """Width C of the embedding."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """The greatest number of tokens that the model's position table holds."""
        return int(getattr(self.model.config, "max_position_embeddings", 512))

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder anew (with random weights), as plain values for JSON."""
        return {"model": self.model.config.to_dict(), "pooling": self.pooling}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextEncoder:
        """The encoder that :meth:`to_config` describes, with random weights."""
        return cls(**config)

    def freeze(self, layers: int | None = None) -> None:
        """Stops training the token embeddings and the first ``layers`` transformer layers (all of the model where None).

        ConVIRT freezes the embeddings and the first 6 of BERT's 12 layers.

        Raises:
            ValueError: where the model has fewer layers.
        """
        if layers is None:
            self.model.requires_grad_(False)
            return
        depth = self.model.config.num_hidden_layers
        if not 0 <= layers <= depth:
            raise ValueError(f"layers must be between 0 and the model's {depth}, received {layers}.")
        stack = next(m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
        self.model.get_input_embeddings().requires_grad_(False)
        if hasattr(self.model, "embeddings"):
            self.model.embeddings.requires_grad_(False)
        for layer in stack[:layers]:
            layer.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Encodes a batch of token sequences.

        Args:
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero = keep; every token where None.

        Returns:
            ``embed`` (M, C) and ``tokens`` (M, L, C), the last hidden states.

        Raises:
            ValueError: shapes that differ, or more tokens than the model has positions.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
            raise ValueError(
                "input_ids and attention_mask must share one shape (M, L), received "
                f"{tuple(input_ids.shape)} and {tuple(attention_mask.shape)}."
            )
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[1]} tokens a text, more than the model's {self.max_length} positions; "
                "tokenize with a smaller max_length."
            )
        all_layers = self.pooling == "last_layers"
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=all_layers)
        states = output.hidden_states if all_layers else (output.last_hidden_state,)
        return {"embed": POOLINGS[self.pooling](states, attention_mask.bool()), "tokens": output.last_hidden_state}
