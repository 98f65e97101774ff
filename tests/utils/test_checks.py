"""Checks of arguments: what passes, and the exact message of what does not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medvl.utils.checks import (
    check_fraction,
    check_integer,
    check_non_negative,
    check_number,
    check_option,
    check_positive,
    check_text,
    check_type,
    error_message,
)


def test_a_message_is_one_sentence():
    assert error_message("size", "be above 0", -1) == "size must be above 0, got -1."


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_number, 1),
        (check_number, np.float32(1.5)),
        (check_positive, 1e-9),
        (check_non_negative, 0),
        (check_fraction, 0),
        (check_fraction, 1.0),
        (check_integer, 3),
        (check_integer, np.int64(3)),
        (check_text, ""),
    ],
)
def test_good_values_pass(check, value):
    assert check(value, "size") is None


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (check_number, "1", TypeError, "size must be a number, got '1'."),
        (check_positive, 0, ValueError, "size must be above 0, got 0."),
        (check_positive, float("nan"), ValueError, "size must be above 0, got nan."),
        (check_positive, float("inf"), ValueError, "size must be finite, got inf."),
        (check_positive, None, TypeError, "size must be a number, got None."),
        (check_non_negative, -1, ValueError, "size must be at least 0, got -1."),
        (check_non_negative, float("nan"), ValueError, "size must be at least 0, got nan."),
        (check_non_negative, (1, 2), TypeError, "size must be a number, got (1, 2)."),
        (check_fraction, 1.5, ValueError, "size must be between 0 and 1, got 1.5."),
        (check_fraction, -0.5, ValueError, "size must be between 0 and 1, got -0.5."),
        (check_integer, 1.0, TypeError, "size must be an integer, got 1.0."),
        (check_integer, True, TypeError, "size must be an integer, got True."),
        (check_text, None, TypeError, "size must be a string, got NoneType."),
        (check_text, 1.5, TypeError, "size must be a string, got float."),
        (check_text, float("nan"), TypeError, "size must be a string, got float (NaN: an empty table cell?)."),
        (
            check_text,
            b"secret",
            TypeError,
            "size must be a string, got bytes (decode it first, as in value.decode('utf-8', errors='replace')).",
        ),
    ],
)
def test_bad_values_are_named(check, value, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        check(value, "size")


def test_an_integer_has_a_minimum():
    assert check_integer(3, "size", minimum=3) is None
    with pytest.raises(ValueError, match=r"^size must be at least 3, got 2\.$"):
        check_integer(2, "size", minimum=3)


def test_options_and_types_are_listed():
    assert check_option("a", "mode", ("a", "b")) is None
    with pytest.raises(ValueError, match=r"^mode must be one of 'a', None, got 'c'\.$"):
        check_option("c", "mode", ("a", None))
    assert check_type(1, "size", int) is None
    assert check_type("a", "size", (int, str)) is None
    with pytest.raises(TypeError, match=r"^size must be of type int, got str\.$"):
        check_type("a", "size", int)
    with pytest.raises(TypeError, match=r"^size must be of type int or str, got list\.$"):
        check_type([], "size", (int, str))
