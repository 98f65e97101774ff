"""Similarity of images to classes that are described by one or several prompts each."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from medvl.functional.similarity import l2_normalize
from medvl.utils.checks import check_option, error_message

Ensemble = Literal["mean", "max"]
Values = TypeVar("Values")

DEFAULT_LOGIT_SCALE = 1 / 0.07
"""Scale of the logits for a network that has none: CLIP's initial one."""


def class_embeddings(prompt_embeds: Tensor, prompt_classes: Tensor, num_classes: int | None = None) -> Tensor:
    """Normalized mean of the unit vectors of each class's prompts (Radford et al., 2021).

    Args:
        prompt_embeds: prompts (P, D); they need not be unit vectors.
        prompt_classes: class of each prompt (P,), integers from 0; every class has a prompt.
        num_classes: C; None for one more than the largest class.

    Returns:
        Unit vectors (C, D).

    Raises:
        ValueError: If the shapes are inconsistent or a class has no prompt.

    Example:
        >>> class_embeddings(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]]), torch.tensor([0, 0, 1]))
        tensor([[ 0.7071,  0.7071],
                [ 0.0000, -1.0000]])
    """
    number = _check(prompt_embeds, prompt_classes, num_classes)
    units = l2_normalize(prompt_embeds.to(torch.promote_types(prompt_embeds.dtype, torch.float32)))
    sums = units.new_zeros(number, units.shape[1]).index_add(0, prompt_classes, units)
    return l2_normalize(sums)


def class_similarity(
    image_embeds: Tensor,
    prompt_embeds: Tensor,
    prompt_classes: Tensor,
    ensemble: Ensemble = "mean",
    num_classes: int | None = None,
) -> Tensor:
    """Cosine similarity of images to classes; an image's row depends on that image and the prompts only.

    With v an image, t_p the prompts of class c, all unit vectors::

        mean: s_c = <v, m_c / norm(m_c)>, m_c the mean of the t_p;    max: s_c = max_p <v, t_p>.

    Args:
        image_embeds: images (N, D); they need not be unit vectors.
        prompt_embeds: prompts (P, D).
        prompt_classes: class of each prompt (P,), integers from 0.
        ensemble: ``"mean"`` or ``"max"``, how the prompts of a class are combined.
        num_classes: C; None for one more than the largest class.

    Returns:
        Cosines (N, C), from -1 to 1.

    Raises:
        ValueError: If the shapes are inconsistent, a class has no prompt, or the ensemble is unknown.

    Example:
        >>> prompts, classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.tensor([0, 0, 1])
        >>> class_similarity(torch.tensor([[2.0, 0.0]]), prompts, classes)
        tensor([[0.7071, 0.0000]])
        >>> class_similarity(torch.tensor([[2.0, 0.0]]), prompts, classes, ensemble="max")
        tensor([[1., 0.]])
    """
    check_option(ensemble, "ensemble", ("mean", "max"))
    number = _check(prompt_embeds, prompt_classes, num_classes)
    if image_embeds.ndim != 2 or image_embeds.shape[1] != prompt_embeds.shape[1]:
        received = f"{tuple(image_embeds.shape)} and {tuple(prompt_embeds.shape)}"
        expected = "have shapes (N, D) and (P, D)"
        raise ValueError(error_message("image_embeds and prompt_embeds", expected, received))
    dtype = torch.promote_types(torch.promote_types(image_embeds.dtype, prompt_embeds.dtype), torch.float32)
    images, prompts = image_embeds.to(dtype), prompt_embeds.to(dtype)
    if ensemble == "mean":
        cosines = class_embeddings(prompts, prompt_classes, number) @ images.T
    else:
        # Rows are prompts, sorted by class: the maximum of consecutive rows runs at memory bandwidth.
        rows = l2_normalize(prompts[prompt_classes.argsort(stable=True)]) @ images.T
        sizes = torch.bincount(prompt_classes, minlength=number).tolist()
        cosines = torch.stack([block.amax(0) for block in rows.split(sizes)])
    # Dividing the few cosines costs less than scaling every image; those of a zero vector are 0 already.
    lengths = images.norm(dim=1)
    return (cosines / lengths.masked_fill(lengths == 0, 1)).T


def finding_margins(similarity: Values) -> Values:
    """Similarity of each finding's present minus its absent prompts.

    Args:
        similarity: (N, 2 K), a tensor or array; the columns 2 k and 2 k + 1 are those of finding k, present and absent.

    Returns:
        (N, K), positive where an image is more similar to the present prompts.

    Example:
        >>> finding_margins(torch.tensor([[0.75, 0.5, 0.25, 0.5]]))
        tensor([[ 0.2500, -0.2500]])
    """
    values: Any = similarity
    margins: Values = values[:, 0::2] - values[:, 1::2]
    return margins


def get_logit_scale(network: Any) -> float:
    """Scale of a network's logits (1 / tau): its ``logit_scale``, a number or a module; 1 / 0.07 if it has none."""
    scale = getattr(getattr(network, "module", network), "logit_scale", None)  # inside DistributedDataParallel
    if isinstance(scale, torch.nn.Module):
        scale = scale()
    return DEFAULT_LOGIT_SCALE if scale is None else float(torch.as_tensor(scale).detach())


def _check(prompt_embeds: Tensor, prompt_classes: Tensor, num_classes: int | None) -> int:
    """The number of classes, after a check that each has a prompt."""
    if prompt_embeds.ndim != 2 or prompt_classes.shape != prompt_embeds.shape[:1] or not len(prompt_classes):
        received = f"{tuple(prompt_embeds.shape)} and {tuple(prompt_classes.shape)}"
        expected = "have shapes (P, D) and (P,) with P at least 1"
        raise ValueError(error_message("prompt_embeds and prompt_classes", expected, received))
    number = int(prompt_classes.max()) + 1 if num_classes is None else num_classes
    if int(prompt_classes.min()) < 0 or int(prompt_classes.max()) >= number:
        raise ValueError(
            error_message("prompt_classes", f"be from 0 to {number - 1}", prompt_classes.unique().tolist())
        )
    without = (torch.bincount(prompt_classes, minlength=number) == 0).nonzero()[:, 0].tolist()
    if without:
        received = f"none for classes {without} of {number}"
        raise ValueError(error_message("prompt_classes", "hold every class", received))
    return number
