"""Zero-shot classification as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medvl.functional.zero_shot import Ensemble, class_similarity, finding_margins, get_logit_scale
from medvl.inferers.text_cache import TextEmbeddingCache
from medvl.inferers.windows import WindowEncoder, pool_windows
from medvl.utils.checks import check_option, check_text_list, error_message

STATES = ("present", "absent")
POOLINGS = ("mean", "max")

ClassPrompts = Mapping[str, Mapping[str, Sequence[str]]] | Mapping[str, Sequence[str]]


class ZeroShotInferer(Inferer):
    r"""Probabilities of classes that are described by prompts, for images and volumes, without a classifier's head.

    With s_c the cosine similarity of an image to class c, by the normalized mean of its prompts' unit vectors (Radford et
    al. 2021, https://arxiv.org/abs/2103.00020) or the maximum over its prompts, and 1 / tau the logit scale::

        multi-label, findings that are present or absent:  p_k = exp(s_k+ / tau) / (exp(s_k+ / tau) + exp(s_k- / tau))
        single-label, mutually exclusive classes:          p_c = exp(s_c / tau) / sum_b exp(s_b / tau)

    The prompts are encoded at the first call, and again only when the network's weights have changed.

    Args:
        class_prompts: multi-label, ``{"Edema": {"present": [...], "absent": [...]}, ...}``, as
            :func:`medvl.text.make_class_prompts` gives them; single-label, ``{"COVID-19": [...], "Normal": [...]}``.
        ensemble: how the prompts of a class are combined, "mean" or "max".
        roi_size: sides in pixels of windows that slide over the image; None encodes the whole image.
        overlap: share of a window that overlaps with the next, in [0, 1).
        sw_batch_size: number of windows in a batch.
        window_pooling: "mean" embeds an image as the mean of its windows; "max" takes the largest similarity over the
            windows for each class, for findings in a small part of a volume.
        logit_scale: 1 / tau; None takes the network's own ``logit_scale``, or 1 / 0.07 if it has none.

    Raises:
        ValueError: If the prompts have neither form, a list of them is empty, or an option is unknown.

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
        class_prompts: ClassPrompts,
        ensemble: Ensemble = "mean",
        roi_size: int | Sequence[int] | None = None,
        overlap: float = 0.25,
        sw_batch_size: int = 4,
        window_pooling: str = "mean",
        logit_scale: float | None = None,
    ) -> None:
        check_option(ensemble, "ensemble", POOLINGS)
        check_option(window_pooling, "window_pooling", POOLINGS)
        lists, self.multi_label = _prompt_lists(class_prompts)
        self.names = tuple(class_prompts)
        self.ensemble, self.window_pooling, self.logit_scale = ensemble, window_pooling, logit_scale
        self.encode = WindowEncoder(roi_size, overlap, sw_batch_size)
        prompts = [prompt for texts in lists for prompt in texts]
        self.prompt_embeds = TextEmbeddingCache(prompts, methods=("encode_class_prompts", "encode_text"))
        self.prompt_classes = torch.tensor([number for number, texts in enumerate(lists) for _ in texts])

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities of a batch.

        Args:
            inputs: images (N, C, H, W[, D]).
            network: any object with ``encode_image`` and ``encode_text``, such as a :class:`~medvl.networks.DualEncoder`.
            *args: not used; MONAI's evaluators may pass some.
            **kwargs: not used.

        Returns:
            (N, K), the probability that each finding is present, or of each class; in the order of ``names``.
        """
        windows = self.encode(inputs, network)
        if self.window_pooling == "mean":
            return self.classify(pool_windows(windows), network)
        similarity = self._similarity(windows.flatten(0, 1), network).unflatten(0, windows.shape[:2]).amax(0)
        return self._probabilities(similarity, network)

    def classify(self, image_embeds: Tensor, network: Any) -> Tensor:
        """Probabilities (N, K) of image embeddings (N, D), which need not be unit vectors."""
        return self._probabilities(self._similarity(image_embeds, network), network)

    def _similarity(self, image_embeds: Tensor, network: Any) -> Tensor:
        """Cosine similarities (N, K) to the classes; to findings, those to present minus those to absent prompts."""
        images = image_embeds.float()
        prompts, classes = self.prompt_embeds(network).to(images.device), self.prompt_classes.to(images.device)
        similarity = class_similarity(images, prompts, classes, self.ensemble)
        return finding_margins(similarity) if self.multi_label else similarity

    def _probabilities(self, similarity: Tensor, network: Any) -> Tensor:
        logits = similarity * (get_logit_scale(network) if self.logit_scale is None else self.logit_scale)
        # The classes are contiguous in memory (class_similarity): softmax along them takes a fraction of the time.
        return logits.sigmoid() if self.multi_label else logits.T.softmax(0).T


def _prompt_lists(class_prompts: ClassPrompts) -> tuple[list[list[str]], bool]:
    """The lists of prompts in order, and whether they are pairs of present and absent."""
    is_pair = (
        [isinstance(entry, Mapping) for entry in class_prompts.values()] if isinstance(class_prompts, Mapping) else []
    )
    if not is_pair or any(is_pair) != all(is_pair):
        expected = "be a list of prompts for every class, or lists of 'present' and 'absent' prompts for every finding"
        raise ValueError(error_message("class_prompts", expected, repr(class_prompts)))
    lists: list[tuple[str, Any]] = []
    for name, entry in class_prompts.items():
        if isinstance(entry, Mapping):
            lists += [(f"[{name!r}][{state!r}]", entry.get(state)) for state in STATES]
        else:
            lists.append((f"[{name!r}]", entry))
    for name, texts in lists:
        check_text_list(texts, f"class_prompts{name}")
    return [list(texts) for _, texts in lists], is_pair[0]
