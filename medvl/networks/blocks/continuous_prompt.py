"""Learned tokens served beside a text model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

REPARAMETERIZATIONS = ("none", "mlp", "lstm")


class PromptTokens(nn.Module):
    """The learned vectors of T prompt tokens, one set for all classes or one for each of K.

    Args:
        initial: (K, T, C), where the vectors start; K is 1 where one set is shared.
        reparameterization: see :class:`ContinuousPromptEmbedding`.
        hidden_features: width of the MLP or LSTM; C where not given.
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
            entrance = 2 * hidden if self.recurrent is not None else width
            self.mlp = nn.Sequential(nn.Linear(entrance, hidden), nn.ReLU(), nn.Linear(hidden, width))
            # Small at first, so that training starts from the initial vectors, but not zero, so that every weight has a
            # gradient from the first step.
            size = float(initial.square().mean().sqrt().clamp_min(1e-6))
            nn.init.normal_(self.mlp[-1].weight, std=1e-3 * size / hidden**0.5)
            nn.init.zeros_(self.mlp[-1].bias)

    def forward(self) -> torch.Tensor:
        """The vectors (K, T, C)."""
        if self.mlp is None:
            return self.vectors
        hidden = self.vectors if self.recurrent is None else self.recurrent(self.vectors)[0]
        return self.vectors + self.mlp(hidden)


class ContinuousPromptEmbedding(nn.Embedding):
    r"""A text model's input embedding with learned prompt tokens past its table.

    Ids below V, the table's size, are looked up in the table; id V + k T + t is prompt token t (of T) of class k::

        e(id) = table[id]                   id < V
        e(V + k T + t) = p_kt + g(p_k)_t    g = 0, an MLP, or a bidirectional LSTM and an MLP

    One set of tokens shared by all classes is CoOp's unified context, one a class its class-specific context (Zhou et al.
    2022, https://arxiv.org/abs/2109.01134); the reparameterization g is P-tuning's (Liu et al. 2021,
    https://arxiv.org/abs/2103.10385), added to p so that training starts where p does. Set by
    ``model.set_input_embeddings``, it works with every Hugging Face text model;
    :meth:`medvl.networks.TextEncoder.add_prompt_tokens` does so. :class:`medvl.transforms.AddPromptTokens` puts the ids
    beside a class name.

    It takes over the table that it is given: the same parameter ``weight`` under the same name, tied where it was tied, looked
    up by the same rule (BART's scales it). So saved weights of the model without prompt tokens fit, and
    ``resize_token_embeddings`` keeps the tokens, whose ids then begin at the new V.

    Args:
        embedding: the text model's table, V ids of width C; of one with prompt tokens the table alone is taken.
        num_tokens: T, at least 1.
        num_classes: K for a set of tokens of its own for each class, None for one shared set.
        initial_ids: where the vectors start: ids of a text, repeated or cut to T (one list, or K lists). None draws them
            from a normal distribution with the table's mean and standard deviation.
        reparameterization: g: "none", "mlp" or "lstm".
        hidden_features: width of the MLP and of the LSTM; C where not given.

    Raises:
        TypeError: where ``embedding`` is no ``nn.Embedding``.
        ValueError: for arguments out of range, or an initial id that the table does not hold.

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
            raise TypeError(f"embedding must be an nn.Embedding, got {type(embedding).__name__}.")
        for name, value in (
            ("num_tokens", num_tokens),
            ("num_classes", num_classes),
            ("hidden_features", hidden_features),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if reparameterization not in REPARAMETERIZATIONS:
            raise ValueError(
                f"reparameterization must be one of {', '.join(REPARAMETERIZATIONS)}, got {reparameterization!r}."
            )
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
        """Takes over a table's parameters, settings and way of looking up."""
        plain = type(embedding).forward in (nn.Embedding.forward, ContinuousPromptEmbedding.forward)
        # A table with a rule of its own is kept for that rule. In a tuple, it is no second owner of the weights.
        self._rule: tuple[nn.Embedding, ...] = () if plain else (embedding,)
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
        if not self._rule:
            return super().forward(input_ids)
        own = {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}
        return torch.func.functional_call(self._rule[0], own, (input_ids,))

    @torch.no_grad()
    def _initial(self, sets: int, ids: Any) -> torch.Tensor:
        table = self._look_up(torch.arange(len(self.weight), device=self.weight.device)).float()
        if ids is None:
            noise = torch.randn(sets, self.num_tokens, table.shape[1], device=table.device)
            return table.mean() + noise * table.std(correction=0)
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else [*ids]
        rows = rows if rows and isinstance(rows[0], Sequence) else [rows] * sets
        if len(rows) != sets or not all(len(row) for row in rows):
            raise ValueError(
                f"initial_ids must be one list of ids or {sets}, none of them empty, got {len(rows)} of lengths "
                f"{[len(row) for row in rows]}."
            )
        wrong = [i for row in rows for i in row if not 0 <= i < len(table)]
        if wrong:
            raise ValueError(f"initial_ids must be below the table's {len(table)}, got {wrong[0]}.")
        index = torch.tensor([[row[t % len(row)] for t in range(self.num_tokens)] for row in rows], device=table.device)
        return table[index]

    @property
    def num_prompt_ids(self) -> int:
        """K T, the ids past the table."""
        return self.num_tokens * (self.num_classes or 1)

    def to_config(self) -> dict[str, Any]:
        """The arguments that, with a table, build this anew: plain values for JSON."""
        return dict(self._options)

    @classmethod
    def from_config(cls, embedding: nn.Module, config: Mapping[str, Any]) -> ContinuousPromptEmbedding:
        """What :meth:`to_config` describes, over ``embedding``."""
        return cls(embedding, **config)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeds ids (...) below V + K T as vectors (..., C).

        Raises:
            ValueError: where an id is negative or past the last prompt token's (checked on the CPU only: elsewhere the
                look-up itself fails).
        """
        size = len(self.weight)
        if input_ids.device.type == "cpu" and not torch.compiler.is_compiling() and input_ids.numel():
            low, high = (int(value) for value in input_ids.aminmax())
            if low < 0 or high >= size + self.num_prompt_ids:
                raise ValueError(
                    f"input_ids holds {low if low < 0 else high}, outside the table's {size} ids and the "
                    f"{self.num_prompt_ids} prompt ids."
                )
        is_prompt = input_ids >= size
        # Both look-ups get ids of their own range everywhere, so that shapes do not depend on the data.
        own = self._look_up(input_ids.where(~is_prompt, 0))
        learned = self.prompt_tokens().flatten(0, 1)
        prompts = nn.functional.embedding((input_ids - size).where(is_prompt, 0), learned).to(own.dtype)
        return prompts.where(is_prompt.unsqueeze(-1), own)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join([super().extra_repr(), *(f"{name}={value!r}" for name, value in self._options.items())])
