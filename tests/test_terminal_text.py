"""What commands print of names from files and tables does not control the terminal."""

from __future__ import annotations

import os

import pytest

from medvl.cli.messages import echo, error_sentence, printable
from medvl.cli.predict import _print_scores

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9b31m\r\u202ec"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("scan 1.png\n\tü 漢 ‍", "scan 1.png\n\tü 漢 ‍"),
        (HOSTILE, r"a\x1b[2J\x1b]0;title\x07b\x9b31m\r\u202ec"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        ("\x00\x7f\u2028", r"\x00\x7f\u2028"),
    ],
)
def test_control_characters_are_escaped(text, shown, capsys):
    assert printable(text) == shown
    echo(text)
    assert capsys.readouterr().out == shown + "\n"


def test_ids_of_scores_are_one_line_each(capsys):
    _print_scores(["a\nb\x1b", "c"], ["Edema"], [[0.5], [0.25]])
    assert capsys.readouterr().out == "a\\nb\\x1b\n  Edema  0.500\nc\n  Edema  0.250\n"


def test_an_error_is_one_line_without_control_characters(medvl, tmp_path):
    path = tmp_path / f"{HOSTILE}\n.csv"
    path.write_text("x\n1\n")
    code, _, err = medvl("label", path, "--output", tmp_path / "labels.csv")
    assert code == 2
    assert r"\x1b[2J\x1b]0;title\x07b\x9b31m" in err
    assert err.count("\n") == 1
    assert err.strip().isprintable()
    assert "\n" not in error_sentence(FileNotFoundError(2, "No such file", "a\nb.csv"))[0]
