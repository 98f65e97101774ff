"""Objects as plain data, and back."""

from __future__ import annotations

import enum
from pathlib import Path

import numpy as np
import pytest
import torch

from medvl.utils.targets import Allowed, describe, make, state_target


class Mode(enum.StrEnum):
    AREA = "area"


class Parts(torch.nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments


def stated(**arguments):
    made = Parts(**arguments)
    state_target(made, f"{__name__}.Parts", arguments)
    return made


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None), (True, True), (2, 2), (0.5, 0.5), ("$1", "$1"), (Mode.AREA, "area"), (Path("a/b"), "a/b"),
        ((1, [2]), [1, [2]]), ({"a": (1,)}, {"a": [1]}), (np.float32(0.5), 0.5), (np.int64(3), 3),
        (torch.float16, {"_dtype_": "torch.float16"}), (np.float32, {"_dtype_": "torch.float32"}),
        (np.dtype("uint8"), {"_dtype_": "torch.uint8"}),
    ],
)  # fmt: skip
def test_plain_arguments(value, plain):
    assert describe(stated(x=value)) == {"_target_": f"{__name__}.Parts", "x": plain}


@pytest.mark.parametrize(
    "value", [len, object(), np.zeros(2), torch.zeros(2), {1: 2}, torch.nn.Linear(1, 1), np.ndarray]
)
def test_what_is_not_plain_is_named(value):
    with pytest.raises(ValueError, match=r"^the argument .*Parts\(x\) is a .*, which is not plain data\.$"):
        describe(stated(x=value))


def test_what_is_described_is_made_again():
    inner = stated(size=3)
    description = describe(stated(parts=[inner], dtype=torch.float64, text="$__import__('os')"))
    again = make(description, Allowed(torch.nn.Module, ()), [__name__.partition(".")[0]])
    assert again.arguments["parts"][0].arguments == {"size": 3}
    assert again.arguments["dtype"] is torch.float64
    assert again.arguments["text"] == "$__import__('os')"
    assert describe(again) == description


def test_what_nobody_stated_is_not_known():
    with pytest.raises(ValueError, match=r"^what made the Linear is not known\.$"):
        describe(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("description", [None, {}, {"_target_": 3}, ["torch.nn.Linear"]])
def test_a_description_is_a_dictionary_with_a_target(description):
    with pytest.raises(ValueError, match=r"^description must be a dictionary with _target_, got "):
        make(description, Allowed(torch.nn.Module, ("torch.nn",)))


def test_dtypes_are_dtypes():
    with pytest.raises(ValueError, match=r"^_dtype_ must be a dtype of torch, got 'torch.load'\.$"):
        make(
            {"_target_": "torch.nn.Linear", "dtype": {"_dtype_": "torch.load"}}, Allowed(torch.nn.Module, ("torch.nn",))
        )
