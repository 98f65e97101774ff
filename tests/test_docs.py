"""The documentation's own parts. That it builds without a warning is a step of CI of its own."""

from __future__ import annotations

import importlib.util
import re
import zlib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make_inventories():
    spec = importlib.util.spec_from_file_location("make_inventories", DOCS / "make_inventories.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_inventories_are_those_that_the_script_writes(make_inventories):
    assert {path.stem for path in make_inventories.FOLDER.iterdir()} == set(make_inventories.PAGES)
    for project in make_inventories.PAGES:
        new, stored = make_inventories.inventory(project), (DOCS / "inventories" / f"{project}.inv").read_bytes()
        head, body = stored.split(b"zlib.\n", 1)
        assert new.startswith(head)
        assert zlib.decompress(new.split(b"zlib.\n", 1)[1]) == zlib.decompress(body), "run docs/make_inventories.py"


def test_an_alias_leads_to_the_page_of_the_public_name(make_inventories):
    lines = list(make_inventories.entries({"generated/{name}.html": "torch.nn.modules.module.Module=torch.nn.Module"}))
    assert lines == ["torch.nn.modules.module.Module py:class 1 generated/torch.nn.Module.html#torch.nn.Module -"]


def test_every_inventory_has_an_address(make_inventories):
    names = re.search(r"_PROJECTS = \{(.*?)\}", (DOCS / "conf.py").read_text(), re.S).group(1)
    assert re.findall(r'^ *"(\w+)": "https://', names, re.M) == list(make_inventories.PAGES)


def test_every_package_has_an_api_page():
    packages = {path.parent.name for path in (DOCS.parent / "medvl").glob("*/__init__.py")} - {"bundles", "cli"}
    pages = {path.stem for path in (DOCS / "api").glob("*.md")}
    assert pages == packages
    listed = re.findall(r"^api/(\w+)$", (DOCS / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(pages)
