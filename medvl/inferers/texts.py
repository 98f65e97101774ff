"""Texts that many images are compared with, embedded once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvl.utils.modes import eval_mode

TEXTS_AT_ONCE = 256
VALUES = 4
"""Of each weight, by which a change is known."""


class TextBank:
    """Unit vectors of fixed texts by a network, computed at the first call and again only when its weights have changed.

    Weights count as changed when they were written in place, as optimizers and ``load_state_dict`` do, when another network
    comes, or when some values in the middle of any weight differ. Writing to the ``data`` of a few other values goes
    unnoticed: call :meth:`clear` after that.

    Args:
        texts: M strings; equal ones are encoded once.
        methods: methods that encode a list of strings to (M, D); the first that the network has is called.

    Raises:
        ValueError: where there is no text.

    Example:
        >>> class Network:
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[float(len(text)), 0.0] for text in texts])
        >>> TextBank(["edema", "no edema"])(Network())
        tensor([[1., 0.],
                [1., 0.]])
    """

    def __init__(self, texts: Sequence[str], methods: Sequence[str] = ("encode_text",)) -> None:
        if isinstance(texts, str) or not texts:
            raise ValueError(f"texts must be a list of at least one string, got {texts!r}.")
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        self.texts, self.methods = list(texts), tuple(methods)
        self._distinct, self._places = distinct, torch.tensor([place[text] for text in texts])
        self.clear()

    def clear(self) -> None:
        """Forgets the embeddings."""
        self._network: weakref.ref[Any] | None = None
        self._state: tuple[Any, ...] | None = None
        self._embeds: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the embeddings: a copy, which may meet another network, computes its own."""
        return {**vars(self), "_network": None, "_state": None, "_embeds": None}

    def __call__(self, network: Any) -> Tensor:
        """The texts' unit vectors (M, D), float32, on the network's device, without gradient."""
        network = getattr(network, "module", network)  # inside DistributedDataParallel
        state = _state(network)
        known = self._network is not None and self._network() is network and state == self._state
        if self._embeds is None or not known:
            # Dropout would stay in the embeddings; made in inference mode, they could take no part in training.
            with eval_mode(network), torch.inference_mode(False), torch.no_grad():
                self._embeds = self._encode(network)
            self._network, self._state = weakref.ref(network), state
        return self._embeds

    def _encode(self, network: Any) -> Tensor:
        method = next((name for name in self.methods if hasattr(network, name)), None)
        if method is None:
            raise TypeError(f"network must have {' or '.join(self.methods)}, got a {type(network).__name__}.")
        encode = getattr(network, method)
        parts = [
            self._distinct[start : start + TEXTS_AT_ONCE] for start in range(0, len(self._distinct), TEXTS_AT_ONCE)
        ]
        embeds = torch.cat([torch.as_tensor(encode(part)).float() for part in parts])
        if embeds.ndim != 2 or len(embeds) != len(self._distinct):
            raise ValueError(
                f"{method} must give ({len(self._distinct)}, D) for {len(self._distinct)} texts, got "
                f"{tuple(embeds.shape)}."
            )
        return F.normalize(embeds, dim=1)[self._places.to(embeds.device)]


def _state(network: Any) -> tuple[Any, ...]:
    """What changes when a network's weights do: torch's count of what is written in place, and some values of each weight.

    Fused optimizers, ``parameter.data`` and ``vector_to_parameters`` write past the count.
    """
    if not isinstance(network, nn.Module):
        return ()
    weights = [weight.detach() for weight in network.parameters() if weight.numel()]
    written = tuple(
        (id(t), t.device, 0 if t.is_inference() else t._version) for t in (*network.parameters(), *network.buffers())
    )
    # From the middle, as the first row of a table is often that of padding, which no step changes; a view, never a copy.
    rows = [weight[tuple(side // 2 for side in weight.shape[:-1])].reshape(-1)[:VALUES] for weight in weights]
    values = torch.cat([row.to(rows[0].device, torch.float32) for row in rows]).cpu().numpy().tobytes() if rows else b""
    return (*written, values)
