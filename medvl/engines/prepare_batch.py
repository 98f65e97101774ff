"""Batches of images and texts for MONAI's trainers and evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple

from medvl.transforms import LabelPolicy

NETWORK_KEYS = ("input_ids", "attention_mask", "sentence_ids", "visible_indices")


class PrepareBatchImageText:
    """Splits a batch of studies into what ``monai.engines.SupervisedTrainer`` and ``SupervisedEvaluator`` need.

    The network is called as ``network(image, input_ids=..., attention_mask=...)`` and the loss as ``loss(output, batch)``,
    where batch is the whole batch with its tensors on the device. Use ``decollate=False`` in the engine: MONAI's default
    splits outputs by the length of the longest, which is silently wrong where there are not as many images as texts.

    With a ``label_policy`` the batch also gets ``image_labels`` and ``text_labels``, the numbers that losses take, from the
    finding states ``label`` and ``text_label``.

    Args:
        image_key: key of the images.
        network_keys: keys that are passed to the network by name, if the batch has them.
        label_policy: maps finding states to numbers (:class:`~medvl.transforms.LabelPolicy`), or None.

    Example:
        >>> batch = {"image": torch.zeros(2, 1, 8, 8), "input_ids": torch.zeros(2, 3, dtype=torch.long), "study_id": ["a", "b"]}
        >>> image, targets, args, kwargs = PrepareBatchImageText()(batch, "cpu")
        >>> sorted(targets), args, list(kwargs)
        (['image', 'input_ids', 'study_id'], (), ['input_ids'])
    """

    def __init__(
        self,
        image_key: str = "image",
        network_keys: str | Sequence[str] = NETWORK_KEYS,
        label_policy: LabelPolicy | None = None,
    ) -> None:
        self.image_key, self.network_keys, self.label_policy = image_key, ensure_tuple(network_keys), label_policy

    def __call__(
        self,
        batch: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any], tuple, dict[str, torch.Tensor]]:
        """Returns (images, batch, no positional arguments, keyword arguments) for MONAI's engines.

        An engine's ``to_kwargs`` (dtype, memory format) apply to the images only.
        """
        moved: dict[str, Any] = {
            key: value.to(device=device, non_blocking=non_blocking, **(kwargs if key == self.image_key else {}))
            if isinstance(value, torch.Tensor)
            else value
            for key, value in batch.items()
        }
        if self.label_policy is not None:
            states = {"image_labels": "label", "text_labels": "text_label"}
            moved |= {name: self.label_policy(moved[key]) for name, key in states.items() if key in moved}
        return moved.get(self.image_key), moved, (), {key: moved[key] for key in self.network_keys if key in moved}
