"""Tensors as arguments: checked, stripped of subclasses and brought to one dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from medvl.utils.checks import check_number, check_positive
from medvl.utils.ids import hash_id


def as_matrix(value: Tensor, name: str, axes: str) -> Tensor:
    """A floating tensor with the axes that ``axes`` names (such as ``"N D"``), as float32 or float64 and plain."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor ({', '.join(axes.split())}), got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}")
    check_axes(value, name, axes)
    return as_float(value)


def as_mask(mask: Tensor | None, name: str, embeds: Tensor) -> Tensor | None:
    """A mask (rows, elements) of True and False for embeddings (rows, elements, D), where there is one."""
    return None if mask is None else as_full_mask(mask, name, embeds)


def as_full_mask(mask: Tensor, name: str, like: Tensor) -> Tensor:
    """A mask of True and False for the first two axes of ``like``."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(mask).__name__}")
    if mask.shape != like.shape[:2]:
        raise ValueError(f"{name} must have shape {tuple(like.shape[:2])}, got {tuple(mask.shape)}")
    return as_plain(mask).to(device=like.device, dtype=torch.bool)


def check_axes(value: Tensor, name: str, axes: str) -> None:
    """Raise where ``value`` has not as many axes as ``axes`` names."""
    if value.ndim != len(axes.split()):
        raise ValueError(f"{name} must have shape ({', '.join(axes.split())}), got {tuple(value.shape)}")


def as_labels(value: Tensor | None, name: str) -> Tensor:
    """Label vectors (rows, K) of any real dtype as plain floating point."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor (rows, K), got {type(value).__name__}")
    if value.ndim != 2 or not value.shape[1]:
        raise ValueError(f"{name} must have shape (rows, K), K at least 1, got {tuple(value.shape)}")
    return as_float(value)


def as_plain(value: Tensor) -> Tensor:
    """The same tensor without its subclass (MONAI's ``MetaTensor`` survives every operation, slowly)."""
    # Tracing has subclasses of its own, by which it follows a tensor.
    plain = type(value) in (Tensor, torch.nn.Parameter) or torch.compiler.is_compiling()
    return value if plain else value.as_subclass(Tensor)


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_float(value: Tensor) -> Tensor:
    """Plain float64 stays, everything else becomes float32: half precision cannot hold a logit of 100."""
    value = as_plain(value)
    return value if value.dtype == torch.float64 else value.float()


def check_same(left: Tensor, right: Tensor, axis: int, names: tuple[str, str], what: str) -> None:
    """Raise where two tensors differ in the size of ``axis``."""
    if left.shape[axis] != right.shape[axis]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same {what}, got {left.shape[axis]} and {right.shape[axis]}"
        )


def as_embeds(image_embeds: Tensor, text_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and (M, D) of one dtype, float32 or float64."""
    image_embeds = as_matrix(image_embeds, "image_embeds", "N D")
    text_embeds = as_matrix(text_embeds, "text_embeds", "M D")
    check_same(image_embeds, text_embeds, 1, ("image_embeds", "text_embeds"), "width D")
    dtype = torch.promote_types(image_embeds.dtype, text_embeds.dtype)
    return image_embeds.to(dtype), text_embeds.to(dtype)


def as_scale(logit_scale: Tensor | float | None, temperature: float, like: Tensor) -> Tensor:
    """What cosines are multiplied with: the network's scale where there is one, else 1 / temperature."""
    if logit_scale is None:
        check_positive(temperature, "temperature")
        return like.new_tensor(1 / temperature)
    return as_number(logit_scale, "logit_scale", like)


def as_number(value: Tensor | float, name: str, like: Tensor) -> Tensor:
    """One number as a tensor () beside ``like``."""
    if not isinstance(value, Tensor):
        check_number(value, name)
        return like.new_tensor(float(value))
    if value.numel() != 1:
        raise ValueError(f"{name} must be one number, got shape {tuple(value.shape)}")
    return as_plain(value).to(like).reshape(())


def as_ids(ids: Tensor | Sequence[str] | Sequence[int], name: str, count: int, device: torch.device) -> Tensor:
    """Ids as int64 (count,) on ``device``.

    A text becomes the same integer in every process (its 63-bit hash), so that ids may be compared after a gather.
    """
    if isinstance(ids, Tensor):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"{name} must be integers or texts, got {ids.dtype}")
        tensor = as_plain(ids).to(device=device, dtype=torch.int64)
    elif isinstance(ids, Iterable) and not isinstance(ids, str):
        ids = list(ids)
        tensor = torch.tensor([_id_number(value, name) for value in ids], dtype=torch.int64, device=device)
    else:
        raise TypeError(f"{name} must be a tensor of integers or a list of texts, got {type(ids).__name__}")
    if tensor.shape != (count,):
        raise ValueError(
            f"{name} must have shape ({count},), one for each row of the embeddings, got {tuple(ids_shape(ids))}"
        )
    return tensor


def ids_shape(ids: Tensor | Sequence) -> tuple[int, ...]:
    """The shape of ids for a message."""
    return tuple(ids.shape) if isinstance(ids, Tensor) else (len(ids),)


def _id_number(value: object, name: str) -> int:
    if isinstance(value, str):
        return hash_id(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_floating_point():
        return int(value)
    raise TypeError(f"{name} must be integers or texts, got an element of type {type(value).__name__}")
