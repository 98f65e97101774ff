"""Tensors as arguments: dtype, subclass, shape, and the exact message of what does not fit."""

from __future__ import annotations

import re

import pytest
import torch

from medvl.utils.tensors import (
    as_float,
    as_ids,
    as_labels,
    as_mask,
    as_matrix,
    as_number,
    as_plain,
    as_scale,
    check_same_size,
    wide_dtype,
)

CPU = torch.device("cpu")


class Sub(torch.Tensor):
    pass


def test_subclasses_are_stripped():
    assert type(as_plain(torch.ones(2).as_subclass(Sub))) is torch.Tensor
    parameter, plain = torch.nn.Parameter(torch.ones(2)), torch.ones(2)
    assert as_plain(parameter) is parameter
    assert as_plain(plain) is plain


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
        (torch.bool, torch.float32),
    ],
)
def test_float_of_any_dtype(given, expected):
    assert as_float(torch.ones(2, dtype=given)).dtype == expected


def test_wide_dtype():
    assert wide_dtype(CPU) == wide_dtype(torch.device("cuda")) == torch.float64
    assert wide_dtype(torch.device("mps")) == torch.float32


def test_matrix():
    matrix = as_matrix(torch.ones(2, 3).half().as_subclass(Sub), "x", "N, D")
    assert (type(matrix), matrix.dtype, matrix.shape) == (torch.Tensor, torch.float32, (2, 3))


def test_mask():
    like = torch.ones(2, 3, 4)
    assert as_mask(None, "mask", like).tolist() == [[True] * 3] * 2
    mask = as_mask(torch.tensor([[0, 1, 2], [0, 0, 1]]), "mask", like)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[False, True, True], [False, False, True]]
    assert type(as_mask(torch.ones(2, 3).as_subclass(Sub), "mask", like)) is torch.Tensor


def test_scale_is_the_temperatures_else_the_networks_else_the_default():
    like = torch.ones(1, dtype=torch.float64)
    learned = torch.tensor([[7.0]], requires_grad=True)
    assert as_scale(None, 0.1, like, 0.5).item() == 1 / 0.1
    assert as_scale(None, 0.1, like, 0.5).dtype == torch.float64
    assert as_scale(learned, 0.1, like, 0.5).item() == 1 / 0.1
    scale = as_scale(learned, None, like, 0.5)
    assert (scale.shape, scale.dtype, scale.item(), scale.requires_grad) == ((), torch.float64, 7.0, True)
    assert as_scale(3, None, like, 0.5).item() == 3
    assert as_scale(None, None, like, 0.5).item() == 2
    assert as_number(2, "x", like).shape == ()


def test_ids_of_tensors_numbers_and_strings():
    assert as_ids([3, torch.tensor(4)], "ids", 2, CPU).tolist() == [3, 4]
    assert as_ids(["study-1"], "ids", 1, CPU).tolist() == [2395529724176179553]
    assert as_ids(torch.tensor([3], dtype=torch.int8).as_subclass(Sub), "ids", 1, CPU).dtype == torch.int64
    assert type(as_ids(torch.tensor([3]).as_subclass(Sub), "ids", 1, CPU)) is torch.Tensor
    assert as_ids((), "ids", 0, CPU).shape == (0,)


ROWS = "one for each row of the embeddings"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_matrix([1.0], "x", "N, D"), TypeError, "x must be a tensor (N, D), got list."),
        (lambda: as_matrix(torch.ones(2, 3).long(), "x", "N, D"), TypeError,
         "x must be floating point, got torch.int64."),
        (lambda: as_matrix(torch.ones(2), "x", "N, D"), ValueError, "x must have shape (N, D), got (2,)."),
        (lambda: as_matrix(torch.ones(2, 3), "x", "N, P, D"), ValueError, "x must have shape (N, P, D), got (2, 3)."),
        (lambda: as_mask([True], "mask", torch.ones(1, 1)), TypeError, "mask must be of type Tensor, got list."),
        (lambda: as_mask(torch.ones(1, 2), "mask", torch.ones(1, 1)), ValueError,
         "mask must have shape (1, 1), got (1, 2)."),
        (lambda: as_labels(None, "y"), TypeError, "y must be a tensor (rows, K), got NoneType."),
        (lambda: as_labels(torch.ones(2), "y"), ValueError, "y must have shape (rows, K) with K at least 1, got (2,)."),
        (lambda: as_labels(torch.ones(2, 0), "y"), ValueError,
         "y must have shape (rows, K) with K at least 1, got (2, 0)."),
        (lambda: check_same_size(torch.ones(2, 3), torch.ones(2, 4), 1, ("a", "b"), "width"), ValueError,
         "a and b must have the same width, got 3 and 4."),
        (lambda: as_scale(None, 0.0, torch.ones(1), 1.0), ValueError, "temperature must be above 0, got 0.0."),
        (lambda: as_scale(torch.ones(2), None, torch.ones(1), 1.0), ValueError,
         "logit_scale must be a single number, got shape (2,)."),
        (lambda: as_number("1", "x", torch.ones(1)), TypeError, "x must be a number, got '1'."),
        (lambda: as_ids(torch.ones(1), "ids", 1, CPU), TypeError, "ids must be integers or strings, got torch.float32."),
        (lambda: as_ids(torch.ones(1).bool(), "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got torch.bool."),
        (lambda: as_ids(torch.ones(1) * 1j, "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got torch.complex64."),
        (lambda: as_ids("abc", "ids", 3, CPU), TypeError,
         "ids must be a tensor of integers or a list of strings, got str."),
        (lambda: as_ids(3, "ids", 1, CPU), TypeError, "ids must be a tensor of integers or a list of strings, got int."),
        (lambda: as_ids([1.0], "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got an element of type float."),
        (lambda: as_ids([True], "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got an element of type bool."),
        (lambda: as_ids([torch.tensor(1.0)], "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got an element of type Tensor."),
        (lambda: as_ids([torch.tensor([1])], "ids", 1, CPU), TypeError,
         "ids must be integers or strings, got an element of type Tensor."),
        (lambda: as_ids(["a"], "ids", 2, CPU), ValueError, f"ids must have shape (2,), {ROWS}, got (1,)."),
        (lambda: as_ids(torch.ones(2, 1).long(), "ids", 2, CPU), ValueError,
         f"ids must have shape (2,), {ROWS}, got (2, 1)."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_same_size_along_another_axis_passes():
    assert check_same_size(torch.ones(2, 3), torch.ones(2, 4), 0, ("a", "b"), "rows") is None
