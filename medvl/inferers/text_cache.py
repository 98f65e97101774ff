"""Embeddings of texts that many images are compared with, computed once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvl.utils.checks import error_message
from medvl.utils.modes import eval_mode

TEXT_BATCH_SIZE = 256
NUM_FINGERPRINT_VALUES = 4
"""Values of each weight by which a change of the weight is detected."""


class TextEmbeddingCache:
    """Unit vectors of fixed texts by a network, computed at the first call and again only when its weights have changed.

    A change is detected if weights were written in place, as optimizers and ``load_state_dict`` do, if another network
    comes, or if some values in the middle of any weight differ. Writing to the ``data`` of a few other values is not
    detected: call :meth:`clear` after that.

    Args:
        texts: M strings; equal ones are encoded once.
        methods: methods that encode a list of strings to (M, D); the first that the network has is called.

    Raises:
        ValueError: If there is no text.

    Example:
        >>> class Network:
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[float(len(text)), 0.0] for text in texts])
        >>> TextEmbeddingCache(["edema", "no edema"])(Network())
        tensor([[1., 0.],
                [1., 0.]])
    """

    def __init__(self, texts: Sequence[str], methods: Sequence[str] = ("encode_text",)) -> None:
        if isinstance(texts, str) or not texts:
            raise ValueError(error_message("texts", "be a list of at least one string", repr(texts)))
        distinct = list(dict.fromkeys(texts))
        row_of = {text: row for row, text in enumerate(distinct)}
        self.texts, self.methods = list(texts), tuple(methods)
        self._distinct, self._rows = distinct, torch.tensor([row_of[text] for text in texts])
        self.clear()

    def clear(self) -> None:
        """Discard the embeddings."""
        self._network: weakref.ref[Any] | None = None
        self._fingerprint: tuple[Any, ...] | None = None
        self._embeds: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state without embeddings, so that a copy, which may get another network, computes its own."""
        return {**vars(self), "_network": None, "_fingerprint": None, "_embeds": None}

    def __call__(self, network: Any) -> Tensor:
        """Unit vectors (M, D) of the texts, float32, on the network's device, without gradient."""
        network = getattr(network, "module", network)  # inside DistributedDataParallel
        fingerprint = _weight_fingerprint(network)
        is_same_network = self._network is not None and self._network() is network
        if self._embeds is None or not is_same_network or fingerprint != self._fingerprint:
            # Dropout would stay in the embeddings; tensors of inference mode could take no part in training.
            with eval_mode(network), torch.inference_mode(False), torch.no_grad():
                self._embeds = self._encode(network)
            self._network, self._fingerprint = weakref.ref(network), fingerprint
        return self._embeds

    def _encode(self, network: Any) -> Tensor:
        method = next((name for name in self.methods if hasattr(network, name)), None)
        if method is None:
            expected = f"have {' or '.join(self.methods)}"
            raise TypeError(error_message("network", expected, f"a {type(network).__name__}"))
        encode = getattr(network, method)
        count = len(self._distinct)
        batches = [self._distinct[start : start + TEXT_BATCH_SIZE] for start in range(0, count, TEXT_BATCH_SIZE)]
        embeds = torch.cat([torch.as_tensor(encode(batch)).float() for batch in batches])
        if embeds.ndim != 2 or len(embeds) != count:
            expected = f"return shape ({count}, D) for {count} texts"
            raise ValueError(error_message(method, expected, tuple(embeds.shape)))
        return F.normalize(embeds, dim=1)[self._rows.to(embeds.device)]


def _weight_fingerprint(network: Any) -> tuple[Any, ...]:
    """What changes when weights do: torch's counters of in-place writes, and some values of each weight.

    Fused optimizers, ``parameter.data`` and ``vector_to_parameters`` write without counting.
    """
    if not isinstance(network, nn.Module):
        return ()
    weights = [weight.detach() for weight in network.parameters() if weight.numel()]
    versions = tuple(
        (id(t), t.device, 0 if t.is_inference() else t._version) for t in (*network.parameters(), *network.buffers())
    )
    # From the middle, as the first row of a table is often that of padding, which no step changes; a view, never a copy.
    rows = [
        weight[tuple(side // 2 for side in weight.shape[:-1])].reshape(-1)[:NUM_FINGERPRINT_VALUES]
        for weight in weights
    ]
    values = torch.cat([row.to(rows[0].device, torch.float32) for row in rows]).cpu().numpy().tobytes() if rows else b""
    return (*versions, values)
