"""Zero-shot classification as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medvl.functional.zero_shot import Ensemble, class_similarity, get_logit_scale
from medvl.inferers.texts import TextBank
from medvl.inferers.windows import WindowEncoder, pool_windows

SIDES = ("present", "absent")
POOLINGS = ("mean", "max")

Prompts = Mapping[str, Mapping[str, Sequence[str]]] | Mapping[str, Sequence[str]]


class ZeroShotInferer(Inferer):
    r"""Probabilities of classes that prompts describe, for images and volumes, in place of a classifier's head.

    With s_c the cosine of an image with class c, by the normalised mean of its prompts' unit vectors (Radford et al. 2021,
    https://arxiv.org/abs/2103.00020) or the largest over its prompts, and 1 / tau the logit scale::

        findings, each present or absent:  p_k = exp(s_k+ / tau) / (exp(s_k+ / tau) + exp(s_k- / tau))
        classes of which one is true:      p_c = exp(s_c / tau) / sum_b exp(s_b / tau)

    The prompts are encoded at the first call, and again only when the network's weights have changed.

    Args:
        prompts: for findings, ``{"Edema": {"present": [...], "absent": [...]}, ...}``; for classes of which one is true,
            ``{"COVID-19": [...], "Normal": [...]}``.
        ensemble: how several prompts of a class count, "mean" or "max".
        roi_size: sides in pixels of windows that slide over the image; None takes the image as a whole.
        overlap: share of a window that lies in the next, in [0, 1).
        sw_batch_size: windows that are encoded at once.
        window_pooling: "mean" embeds an image by the mean of its windows; "max" takes, of each finding or class, the window
            that shows it most, for what fills a small part of a volume.
        logit_scale: 1 / tau; None takes the network's own ``logit_scale``, or 1 / 0.07 where it has none.

    Raises:
        ValueError: for prompts of neither form, an empty list of them, or an unknown option.

    Example:
        >>> class Network:
        ...     def encode_image(self, image):
        ...         return image.flatten(1)
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[0.0, 1.0] if text.startswith("No") else [1.0, 0.0] for text in texts])
        >>> inferer = ZeroShotInferer({"Edema": {"present": ["Edema."], "absent": ["No edema."]}}, logit_scale=1.0)
        >>> inferer(torch.tensor([[[[3.0, 4.0]]]]), Network())
        tensor([[0.4502]])
    """

    def __init__(
        self,
        prompts: Prompts,
        ensemble: Ensemble = "mean",
        roi_size: int | Sequence[int] | None = None,
        overlap: float = 0.25,
        sw_batch_size: int = 4,
        window_pooling: str = "mean",
        logit_scale: float | None = None,
    ) -> None:
        for name, value in (("ensemble", ensemble), ("window_pooling", window_pooling)):
            if value not in POOLINGS:
                raise ValueError(f"{name} must be one of {', '.join(POOLINGS)}, got {value!r}.")
        blocks, self.pairs = _blocks(prompts)
        self.names = tuple(prompts)
        self.ensemble, self.window_pooling, self.logit_scale = ensemble, window_pooling, logit_scale
        self.encode = WindowEncoder(roi_size, overlap, sw_batch_size)
        self.texts = TextBank(
            [prompt for block in blocks for prompt in block], methods=("encode_class_prompts", "encode_text")
        )
        self.classes = torch.tensor([number for number, block in enumerate(blocks) for _ in block])  # of each prompt

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities of a batch.

        Args:
            inputs: images (N, C, H, W[, D]).
            network: anything with ``encode_image`` and ``encode_text``, such as a :class:`~medvl.networks.DualEncoder`.
            *args: not used; MONAI's evaluators may give some.
            **kwargs: not used.

        Returns:
            (N, K): of each finding being present, or of each class; in the order of ``names``.
        """
        windows = self.encode(inputs, network)
        if self.window_pooling == "mean":
            return self.classify(pool_windows(windows), network)
        logits = self._logits(windows.flatten(0, 1), network).unflatten(0, windows.shape[:2]).amax(0)
        return self._probabilities(logits, network)

    def classify(self, image_embeds: Tensor, network: Any) -> Tensor:
        """Probabilities (N, K) of image embeddings (N, D), which need not be unit vectors."""
        return self._probabilities(self._logits(image_embeds, network), network)

    def _logits(self, image_embeds: Tensor, network: Any) -> Tensor:
        """Cosines (N, K) with each class; for findings, those with present less those with absent."""
        images = image_embeds.float()
        prompts, classes = self.texts(network).to(images.device), self.classes.to(images.device)
        similarity = class_similarity(images, prompts, classes, self.ensemble)
        return similarity[:, 0::2] - similarity[:, 1::2] if self.pairs else similarity

    def _probabilities(self, logits: Tensor, network: Any) -> Tensor:
        scale = get_logit_scale(network) if self.logit_scale is None else self.logit_scale
        logits = logits * scale
        # Classes lie in memory one after the other (class_similarity): along them, softmax takes a fraction of the time.
        return logits.sigmoid() if self.pairs else logits.T.softmax(0).T


def _blocks(prompts: Prompts) -> tuple[list[list[str]], bool]:
    """The lists of prompts in order, and whether they come in pairs of present and absent."""
    pairs = [isinstance(entry, Mapping) for entry in prompts.values()] if isinstance(prompts, Mapping) else []
    if not pairs or any(pairs) != all(pairs):
        raise ValueError(
            "prompts must give every class a list of prompts, or every finding one under 'present' and one under 'absent', "
            f"got {prompts!r}."
        )
    named: list[tuple[str, Any]] = []
    for name, entry in prompts.items():
        if isinstance(entry, Mapping):
            named += [(f"{name!r}, {side}", entry.get(side)) for side in SIDES]
        else:
            named.append((repr(name), entry))
    for name, block in named:
        if isinstance(block, str) or not block:
            raise ValueError(f"prompts of {name} must be a list of at least one string, got {block!r}.")
    return [list(block) for _, block in named], pairs[0]
