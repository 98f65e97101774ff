"""The front page: its pipeline runs, its table says what the results say, and its pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evidence.claims import choose_claims
from evidence.store import Store

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "index.md").read_text()
TEXTS = ("The heart is enlarged. No edema.", "Clear lungs.", "Pulmonary edema.", "Left effusion. The heart is normal.")


def test_the_pipeline_has_twelve_lines_and_trains(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    lines = [line for line in code.splitlines() if line]
    assert len([line for line in lines if line.startswith(("import", "from"))]) == 4
    assert len(lines) == 12
    assert code.count("image_size=128") == 2
    rows = ["image,report"]
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 48), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f'{i}.png,"{TEXTS[i % 4]}"')
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    before, call = code.replace("128", "32").replace(", 20, loader", ", 1, loader").rsplit("monai.engines", 1)
    names: dict = {}
    exec(f"{before}trainer = monai.engines{call.strip().removesuffix('.run()')}", names)
    weights = {name: weight.clone() for name, weight in names["model"].named_parameters()}
    names["trainer"].run()
    assert names["trainer"].state.iteration == 1
    assert set(names["loss"].terms) == {"pairs", "patches"}
    assert all(np.isfinite(value.item()) for value in names["loss"].terms.values())
    assert any(not weight.equal(weights[name]) for name, weight in names["model"].named_parameters())


def test_pictures_are_there_and_small():
    pictures = re.findall(r"^::::\{figure\} (\S+)$", PAGE, re.M)
    assert len(pictures) == 2
    for picture in pictures:
        assert (DOCS / picture).stat().st_size < 400_000


@pytest.fixture(scope="module")
def methods_table(docs_script):
    return docs_script("methods_table")


def add(store: Store, arm: str, seed: int, auroc: float) -> None:
    content = {"arm": arm, "seed": seed, "key": "k", "measures": [], "figures": {"zero_shot/auroc": auroc}, "steps": 1}
    origin = {"versions": {}, "python": "3.12.3", "machine": "x86_64", "date": "2026-11-01", "commit": "abc"}
    store.write("full", arm, seed, {**content, **origin, "seconds": {"training": 30.0, "measures": 6.0}})


def cells(table: str, method: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith((f"| [{method}](", f"| {method} |"))]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_means_and_intervals_of_three_seeds_or_more(methods_table, tmp_path):
    store = Store(tmp_path)
    add(store, "convirt", 0, 0.70)
    for seed, auroc in enumerate((0.70, 0.80, 0.90)):
        add(store, "medclip", seed, auroc)
    table = methods_table.methods_table(store)
    assert cells(table, "convirt")[2] == "0.70"
    assert cells(table, "medclip")[2:4] == ["0.80 ± 0.25", "–"]  # 4.303 x 0.1 / sqrt(3)
    assert cells(table, "mlip")[2:5] == ["–", "–", "–"]
    assert "means over 0 to 3 seeds, with 95 % intervals from 3 seeds on." in table


def test_the_table_counts_the_verdicts_of_each_papers_claims(methods_table, tmp_path, monkeypatch):
    verdicts = {"umcl-kinds": "not reproduced", "umcl-negatives": "reproduced", "convirt-labels": "reproduced"}
    monkeypatch.setattr("evidence.claim.Claim.verdict", lambda claim, *_: verdicts.get(claim.name, "undecided"))
    table = methods_table.methods_table(Store(tmp_path))
    undecided = len(choose_claims(["umcl"])) - 2
    assert cells(table, "umcl")[-1] == f"1 reproduced, 1 not reproduced, {undecided} undecided"
    assert cells(table, "convirt")[-1] == "1 reproduced, 2 undecided"
    assert cells(table, "untrained")[-1] == "–"


def test_every_recipe_is_in_the_table_and_on_the_readme(methods_table):
    from medvl.workflows.layers import recipe_names

    readme = (DOCS.parent / "README.md").read_text()
    assert set(methods_table.METHODS) == set(recipe_names())
    assert {*re.findall(r"^\| `(\w+)` \|", readme, re.M)} == set(recipe_names())
