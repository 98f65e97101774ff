"""YAML that anybody may have written is read, or refused in one sentence."""

from __future__ import annotations

import pytest

from medvl.cli.options import parse_settings
from medvl.text import load_vocabulary
from medvl.utils.yaml_text import load_yaml
from medvl.workflows.layers import config_files
from medvl.workflows.model_card import read_front_matter
from medvl.workflows.run_records import read_record

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGED = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
BAD = [
    ("2024-13-45", "month must be in"),
    ("[" * 20_000, "nested too deeply"),
    ("!!timestamp x", "not of the form"),
    ("9" * 6000, "4300 digits"),
    ("&a [*a]", "refers to itself"),
    ("{k: &a [1, {b: *a}]}", "refers to itself"),
    ("!!int x", "other text where a number"),
    ("!!python/object/apply:os.system [exit]", "could not determine a constructor"),
    ("{[a]: 1}", "unhashable key"),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_bad_values_are_named_by_every_reader(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        load_yaml(text)
    with pytest.raises(ValueError, match=r"^--set epochs must be a value in YAML"):
        parse_settings([f"epochs={text}"])
    path = tmp_path / "config.yaml"
    path.write_text(f"epochs: {text}\n")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: .*\.$"):
        read_record(path)
    with pytest.raises(ValueError, match=r"config\.yaml is not valid YAML: .*\.$"):
        config_files(path)
    with pytest.raises(ValueError, match=rf"^config\.yaml is not valid YAML: .*{reason}.*\.$"):
        load_vocabulary(path)
    path.write_text(f"---\nepochs: {text}\n---\n")
    assert read_front_matter(path) == {}


def test_references_in_references_are_bounded(tmp_path):
    for text in (BOMB, MERGED, f"x: {{{BOMB.strip()}}}".replace("\n", ", ")):
        with pytest.raises(ValueError, match="larger than 1000000 values"):
            load_yaml(text)
    (tmp_path / "config.yaml").write_text(BOMB)
    with pytest.raises(ValueError, match=r"^config\.yaml is not valid YAML: its references"):
        load_vocabulary(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: its references"):
        read_record(tmp_path / "config.yaml")


def test_good_documents_and_references_are_read():
    assert load_yaml("a: &a [1, 2]\nb: [*a, *a]\n") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    assert load_yaml("") is None
    assert parse_settings(["lr=1e-4", "names=[a, b]", "x=@network"]) == {
        "lr": 1e-4,
        "names": ["a", "b"],
        "x": "@network",
    }
