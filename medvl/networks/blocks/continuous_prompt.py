"""Learned prompt tokens in a text model's input embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from medvl.utils.checks import check_integer, check_option, error_message

REPARAMETERIZATIONS = ("none", "mlp", "lstm")


class PromptTokens(nn.Module):
    """The learned vectors of T prompt tokens, one set for all classes or one for each of K classes.

    Args:
        initial: (K, T, C), the initial vectors; K is 1 for a shared set.
        reparameterization: see :class:`ContinuousPromptEmbedding`.
        hidden_features: width of the MLP or LSTM, by default C.
    """

    def __init__(
        self, initial: torch.Tensor, reparameterization: str = "none", hidden_features: int | None = None
    ) -> None:
        super().__init__()
        width = initial.shape[-1]
        hidden = hidden_features or width
        self.vectors = nn.Parameter(initial.detach().clone())
        self.recurrent: nn.LSTM | None = None
        self.mlp: nn.Sequential | None = None
        if reparameterization == "lstm":
            self.recurrent = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        if reparameterization != "none":
            in_features = 2 * hidden if self.recurrent is not None else width
            self.mlp = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, width))
            # Small, so that training starts from the initial vectors, but not zero, so that every weight has a gradient in
            # the first step.
            scale = float(initial.square().mean().sqrt().clamp_min(1e-6))
            last = cast(nn.Linear, self.mlp[-1])
            nn.init.normal_(last.weight, std=1e-3 * scale / hidden**0.5)
            nn.init.zeros_(last.bias)

    def forward(self) -> torch.Tensor:
        """The vectors (K, T, C)."""
        if self.mlp is None:
            return self.vectors
        hidden = self.vectors if self.recurrent is None else self.recurrent(self.vectors)[0]
        return self.vectors + self.mlp(hidden)


class ContinuousPromptEmbedding(nn.Embedding):
    r"""A text model's input embedding with learned prompt tokens beyond its vocabulary.

    Ids below V, the number of rows of the embedding table, are looked up in the table; id V + k T + t is prompt token t (of
    T) of class k::

        e(id) = table[id]                   id < V
        e(V + k T + t) = p_kt + g(p_k)_t    g = 0, an MLP, or a bidirectional LSTM and an MLP

    A set of tokens shared by all classes is CoOp's unified context, a set for each class its class-specific context (Zhou et
    al. 2022, https://arxiv.org/abs/2109.01134); the reparameterization g is P-tuning's (Liu et al. 2021,
    https://arxiv.org/abs/2103.10385), added to p so that training starts from p. Set with ``model.set_input_embeddings``, as
    :meth:`medvl.networks.TextEncoder.add_prompt_tokens` does, it works with every Hugging Face text model.
    :class:`medvl.transforms.AddPromptTokens` inserts the ids beside a class name.

    The parameter ``weight`` of the given embedding is shared, under the same name and with the same look-up (BART's scales
    it); tied weights stay tied. Therefore weights saved without prompt tokens can be loaded, and
    ``resize_token_embeddings`` keeps the tokens, whose ids then begin at the new V.

    Args:
        embedding: the text model's input embedding, V rows of width C; prompt tokens that it has are dropped.
        num_tokens: T, at least 1.
        num_classes: K for a set of tokens for each class, None for one shared set.
        initial_ids: token ids (L,) of a text whose embeddings are the initial vectors, repeated or truncated to T; or K such
            lists. None draws the vectors from a normal distribution with the mean and standard deviation of the table.
        reparameterization: g, "none", "mlp" or "lstm".
        hidden_features: width of the MLP and of the LSTM, by default C.

    Raises:
        TypeError: If ``embedding`` is not an ``nn.Embedding``.
        ValueError: If an argument or an initial id is out of range.

    Example:
        >>> table = nn.Embedding(10, 4)
        >>> prompted = ContinuousPromptEmbedding(table, num_tokens=2, initial_ids=[7, 8])
        >>> prompted.num_embeddings, prompted.num_prompt_ids
        (10, 2)
        >>> bool((prompted(torch.tensor([3, 10, 11])) == table(torch.tensor([3, 7, 8]))).all())
        True
    """

    def __init__(
        self,
        embedding: nn.Module,
        num_tokens: int,
        num_classes: int | None = None,
        initial_ids: Sequence[int] | Sequence[Sequence[int]] | torch.Tensor | None = None,
        reparameterization: str = "none",
        hidden_features: int | None = None,
    ) -> None:
        if not isinstance(embedding, nn.Embedding):
            raise TypeError(error_message("embedding", "be of type Embedding", type(embedding).__name__))
        for name, value in (
            ("num_tokens", num_tokens),
            ("num_classes", num_classes),
            ("hidden_features", hidden_features),
        ):
            if value is not None:
                check_integer(value, name, minimum=1)
        check_option(reparameterization, "reparameterization", REPARAMETERIZATIONS)
        nn.Module.__init__(self)
        self._adopt(embedding)
        self.num_tokens, self.num_classes = num_tokens, num_classes
        initial = self._initial(num_classes or 1, initial_ids)
        self.prompt_tokens = PromptTokens(initial, reparameterization, hidden_features).to(self.weight.device)
        self._options = {
            "num_tokens": num_tokens,
            "num_classes": num_classes,
            "reparameterization": reparameterization,
            "hidden_features": hidden_features,
        }

    def _adopt(self, embedding: nn.Embedding) -> None:
        """Share the parameters, attributes and look-up of an embedding."""
        plain = type(embedding).forward in (nn.Embedding.forward, ContinuousPromptEmbedding.forward)
        # An embedding with a forward of its own is kept for that. In a tuple, it is not a submodule.
        self._custom: tuple[nn.Embedding, ...] = () if plain else (embedding,)
        module = vars(nn.Module())
        for name, value in vars(embedding).items():
            if name not in module:
                setattr(self, name, value)
        for name, parameter in embedding.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in embedding.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in embedding._non_persistent_buffers_set)
        self.training = embedding.training

    def _look_up(self, input_ids: torch.Tensor) -> torch.Tensor:
        if not self._custom:
            return super().forward(input_ids)
        own = {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}
        return torch.func.functional_call(self._custom[0], own, (input_ids,))

    @torch.no_grad()
    def _initial(self, sets: int, ids: Any) -> torch.Tensor:
        table = self._look_up(torch.arange(len(self.weight), device=self.weight.device)).float()
        if ids is None:
            noise = torch.randn(sets, self.num_tokens, table.shape[1], device=table.device)
            return table.mean() + noise * table.std(correction=0)
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else [*ids]
        rows = rows if rows and isinstance(rows[0], Sequence) else [rows] * sets
        lengths = [len(row) for row in rows]
        if len(rows) != sets or not all(lengths):
            expected = f"be one list of ids or {sets} lists, none of them empty"
            raise ValueError(error_message("initial_ids", expected, f"lists of lengths {lengths}"))
        wrong = [i for row in rows for i in row if not 0 <= i < len(table)]
        if wrong:
            raise ValueError(error_message("initial_ids", f"be from 0 to {len(table) - 1}", wrong[0]))
        index = torch.tensor([[row[t % len(row)] for t in range(self.num_tokens)] for row in rows], device=table.device)
        return table[index]

    @property
    def num_prompt_ids(self) -> int:
        """Number K T of the prompt tokens' ids."""
        return self.num_tokens * (self.num_classes or 1)

    def to_config(self) -> dict[str, Any]:
        """The arguments that, with an embedding, build this module, as plain values for JSON."""
        return dict(self._options)

    @classmethod
    def from_config(cls, embedding: nn.Module, config: Mapping[str, Any]) -> ContinuousPromptEmbedding:
        """The module that :meth:`to_config` describes, for ``embedding``."""
        return cls(embedding, **config)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed ids (...) from 0 to V + K T - 1 as vectors (..., C).

        Raises:
            ValueError: If an id is out of range (checked on the CPU only: elsewhere the look-up itself fails).
        """
        size = len(self.weight)
        if input_ids.device.type == "cpu" and not torch.compiler.is_compiling() and input_ids.numel():
            low, high = (int(value) for value in input_ids.aminmax())
            if low < 0 or high >= size + self.num_prompt_ids:
                expected = f"be from 0 to {size + self.num_prompt_ids - 1}, the last prompt token"
                raise ValueError(error_message("input_ids", expected, low if low < 0 else high))
        is_prompt = input_ids >= size
        # Both look-ups get valid ids at every position, so that shapes do not depend on the data.
        own = self._look_up(input_ids.where(~is_prompt, 0))
        learned = self.prompt_tokens().flatten(0, 1)
        prompt = nn.functional.embedding((input_ids - size).where(is_prompt, 0), learned).to(own.dtype)
        return prompt.where(is_prompt.unsqueeze(-1), own)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join([super().extra_repr(), *(f"{name}={value!r}" for name, value in self._options.items())])
