"""Tensors as arguments: checked, stripped of subclasses and brought to one dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from medvl.utils.checks import check_number, check_positive, check_type, error_message
from medvl.utils.ids import hash_id


def as_plain(value: Tensor) -> Tensor:
    """The same tensor without its subclass (MONAI's ``MetaTensor`` survives every operation, slowly)."""
    # Tracing has subclasses of its own, by which it follows a tensor.
    plain = type(value) in (Tensor, torch.nn.Parameter) or torch.compiler.is_compiling()
    return value if plain else value.as_subclass(Tensor)


def as_float(value: Tensor) -> Tensor:
    """Plain float64 stays, everything else becomes float32: half precision cannot hold a logit of 100."""
    value = as_plain(value)
    return value if value.dtype == torch.float64 else value.float()


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has no float64 (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_matrix(value: Tensor, name: str, axes: str) -> Tensor:
    """A floating point tensor with the named axes (such as ``"N, D"``), as plain float32 or float64.

    Raises:
        TypeError: If ``value`` is not a floating point tensor.
        ValueError: If it has another number of axes.
    """
    check_axes(value, name, axes)
    return as_float(value)


def check_axes(value: Tensor, name: str, axes: str) -> None:
    """Raise unless ``value`` is a floating point tensor with the named axes (such as ``"N, D"``)."""
    if not isinstance(value, Tensor):
        raise TypeError(error_message(name, f"be a tensor ({axes})", type(value).__name__))
    if not value.is_floating_point():
        raise TypeError(error_message(name, "be floating point", value.dtype))
    if value.ndim != axes.count(",") + 1:
        raise ValueError(error_message(name, f"have shape ({axes})", tuple(value.shape)))


def as_mask(mask: Tensor | None, name: str, like: Tensor) -> Tensor:
    """A boolean mask for the first two axes of ``like``, on its device; all True if ``mask`` is None.

    Raises:
        TypeError: If ``mask`` is neither a tensor nor None.
        ValueError: If it has another shape.
    """
    if mask is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    check_type(mask, name, Tensor)
    if mask.shape != like.shape[:2]:
        raise ValueError(error_message(name, f"have shape {tuple(like.shape[:2])}", tuple(mask.shape)))
    return as_plain(mask).to(device=like.device, dtype=torch.bool)


def hide_masked(values: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Values (N, P, ...) with 0 where a mask (N, P) is not True, so that what it excludes may be NaN and gets no gradient."""
    if mask is None:
        return values
    kept = as_mask(mask, name, values)
    return values.masked_fill(~kept.reshape(*kept.shape, *[1] * (values.ndim - 2)), 0.0)


def as_labels(value: Tensor | None, name: str) -> Tensor:
    """Label vectors (rows, K) of any real dtype, as plain floating point.

    Raises:
        TypeError: If ``value`` is not a tensor.
        ValueError: If it has another number of axes, or no columns.
    """
    if not isinstance(value, Tensor):
        raise TypeError(error_message(name, "be a tensor (rows, K)", type(value).__name__))
    if value.ndim != 2 or not value.shape[1]:
        raise ValueError(error_message(name, "have shape (rows, K) with K at least 1", tuple(value.shape)))
    return as_float(value)


def check_same_size(left: Tensor, right: Tensor, axis: int, names: tuple[str, str], what: str) -> None:
    """Raise unless two tensors have the same size along ``axis``; ``what`` says what that size is."""
    if left.shape[axis] != right.shape[axis]:
        received = f"{left.shape[axis]} and {right.shape[axis]}"
        raise ValueError(error_message(f"{names[0]} and {names[1]}", f"have the same {what}", received))


def as_scale(
    logit_scale: Tensor | float | None, temperature: float | None, like: Tensor, default_temperature: float
) -> Tensor:
    """The scale of the logits: 1 / ``temperature`` if that is given, else ``logit_scale``, else 1 / the default."""
    if temperature is None and logit_scale is not None:
        return as_number(logit_scale, "logit_scale", like)
    if temperature is None:
        temperature = default_temperature
    check_positive(temperature, "temperature")
    return like.new_tensor(1 / temperature)


def as_number(value: Tensor | float, name: str, like: Tensor) -> Tensor:
    """A number, or a tensor that holds one, as a tensor () of the dtype and device of ``like``."""
    if not isinstance(value, Tensor):
        check_number(value, name)
        return like.new_tensor(float(value))
    if value.numel() != 1:
        raise ValueError(error_message(name, "be a single number", f"shape {tuple(value.shape)}"))
    return as_plain(value).to(like).reshape(())


def as_ids(ids: Tensor | Sequence[str] | Sequence[int], name: str, count: int, device: torch.device) -> Tensor:
    """Ids as int64 (count,) on ``device``.

    A string becomes the same integer in every process (:func:`medvl.utils.ids.hash_id`), so that ids may be compared
    after a gather.

    Raises:
        TypeError: If ids are neither integers nor strings.
        ValueError: If there are not ``count`` of them.
    """
    if isinstance(ids, Tensor):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(error_message(name, "be integers or strings", ids.dtype))
        shape, tensor = tuple(ids.shape), as_plain(ids).to(device=device, dtype=torch.int64)
    elif isinstance(ids, Iterable) and not isinstance(ids, str):
        values = list(ids)
        numbers = [_id_number(value, name) for value in values]
        if len({isinstance(value, str) for value in values}) > 1:  # "1" and 1 would be two ids
            raise TypeError(error_message(name, "be all integers or all strings", "both"))
        shape, tensor = (len(numbers),), torch.tensor(numbers, dtype=torch.int64, device=device)
    else:
        raise TypeError(error_message(name, "be a tensor of integers or a list of strings", type(ids).__name__))
    if shape != (count,):
        raise ValueError(error_message(name, f"have shape ({count},), one for each row of the embeddings", shape))
    return tensor


def _id_number(value: Any, name: str) -> int:
    if isinstance(value, str):
        return hash_id(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_floating_point():
        return int(value)
    raise TypeError(error_message(name, "be integers or strings", f"an element of type {type(value).__name__}"))
