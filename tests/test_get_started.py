"""Get started: the commands and snippets run as they stand, and the tables say what the package says."""

from __future__ import annotations

import configparser
import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs" / "get_started").glob("*.md")}
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """The commands of a text; one that goes on in the next line is one."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("medvl ")]


def test_the_quick_start_is_that_of_the_readme():
    """Whose commands and table are run by its own test."""
    section = README.split("## Your own images and reports\n")[1].split("\n## ")[0]
    readme = {line.partition("  #")[0].strip() for line in commands(section)}
    assert len(commands(PAGES["quick_start"])) == 7
    assert set(commands(PAGES["quick_start"])) <= readme
    assert blocks(PAGES["quick_start"], "text") == blocks(section, "text")


@pytest.fixture
def demo(tmp_path, monkeypatch, medvl) -> None:
    """A tiny run where ``medvl demo`` writes its own."""
    monkeypatch.chdir(tmp_path)
    assert commands(PAGES["tour"])[0] == "medvl demo"
    tiny = {"synthetic_length": 70, "embed_dim": 8, "vocab_size": 200, "batch_size": 8, "progress": "false"}
    settings = [argument for name, value in tiny.items() for argument in ("--set", f"{name}={value}")]
    options = ["--data", "synthetic", "--output", "medvl-demo", "--epochs", "1", "--image-size", "32"]
    code, _, err = medvl("train", "medvl", *options, *settings)
    assert code == 0, err


@pytest.mark.usefixtures("demo")
def test_the_tour(medvl):
    for line in commands(PAGES["tour"])[1:]:
        code, _, err = medvl(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"
    assert Path("heart.png").stat().st_size > 1000
    names: dict = {}
    snippets = blocks(PAGES["tour"], "python")
    assert len(snippets) == 3
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippets[0], names)
    assert [printed.getvalue()] == blocks(PAGES["tour"], "text")
    exec(snippets[1], names)
    assert names["pairs"].isfinite()
    assert names["meaning"].isfinite()
    exec(snippets[2], names)
    assert names["present"].shape == (8,)


def test_what_the_demonstration_does_is_what_the_tour_says():
    import yaml

    demo = yaml.safe_load((ROOT / "medvl" / "bundles" / "demo.yaml").read_text())
    assert f"{demo['synthetic_length']:,} X-rays" in PAGES["tour"]
    assert demo["epochs"] == 9
    assert "for nine epochs" in PAGES["tour"]


def test_every_extra_is_on_the_page_of_the_installation():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    extras = set(parser["options.extras_require"])
    rows = re.findall(r"^\| .* \| `(\w+)` \| .* \|$", PAGES["installation"], re.M)
    assert sorted(rows) == sorted(extras - {"all", "docs", "dev"})
    assert {"all", "docs", "dev"} <= set(re.findall(r"`(\w+)`", PAGES["installation"]))
    required = parser["options"]["python_requires"].removeprefix(">=")
    assert f"Python {required} or newer." in PAGES["installation"]
