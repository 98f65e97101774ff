"""The page says what the results files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evidence.arms import ARMS
from evidence.claims import all_claims
from evidence.page import RESULTS, render, write_page
from evidence.scales import SCALES
from evidence.store import ResultsError, Store, result_key

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def store(tmp_path, add_result):
    """MedCLIP above ConVIRT in zero-shot on each of five seeds, which differ more than the two."""
    store = Store(tmp_path / "results")
    for seed, level in enumerate((0.6, 0.7, 0.65, 0.8, 0.75)):
        add_result(store, "convirt", seed, {"zero_shot/auroc": level, "probe/1": 0.7})
        add_result(store, "medclip", seed, {"zero_shot/auroc": level + 0.05 + seed / 500, "probe/1": 0.7})
    return store


def test_the_committed_page_is_made_from_the_committed_results():
    assert (DOCS / "evidence.md").read_text() == render(Store(RESULTS)), "run python -m evidence --page"
    for name in re.findall(r"\]\(images/(.*?)\)", (DOCS / "evidence.md").read_text()):
        assert (DOCS / "images" / name).is_file()


def test_committed_results_are_of_claims_that_there_are():
    for result in Store(RESULTS).results("full"):
        assert result["arm"] in ARMS
        assert result["seed"] in SCALES["full"].seeds


def test_committed_results_are_of_the_settings_that_the_arms_have():
    for result in Store(RESULTS).results("full"):
        assert result["key"] == result_key(ARMS[result["arm"]], SCALES["full"], result["seed"]), result["arm"]


def test_without_results_there_is_no_page(tmp_path):
    with pytest.raises(ResultsError, match=r"must have results of the full form, got none; python -m evidence --full"):
        write_page(Store(tmp_path / "none"), tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_results_of_other_settings_are_named(store, add_result):
    assert ":::{warning}" not in render(store)
    add_result(store, "convirt", 1, {"zero_shot/auroc": 0.7}, key="other")
    add_result(store, "medclip", 9, {"zero_shot/auroc": 0.7})
    store.path("full", "convirt", 2).parent.rename(store.folder / "full" / "convirt-old")
    for path in (store.folder / "full" / "convirt-old").iterdir():
        path.write_text(path.read_text().replace('"arm": "convirt"', '"arm": "convirt-old"'))
    page = render(store)
    named = ", ".join(f"`convirt-old` seed {seed}" for seed in range(5))
    assert f"Results of settings that no arm has any more: {named}, `medclip` seed 9." in page


def test_a_figure_that_is_not_defined_for_a_seed_is_counted(store, add_result):
    add_result(store, "convirt", 1, {"zero_shot/auroc": float("nan"), "probe/1": 0.7})
    section = render(store).split("## MedCLIP: better at zero-shot", 2)[1]
    assert "| convirt | 0.700 [0.555, 0.845] (of 4 seeds) | 0.700 [0.700, 0.700] |" in section


def test_a_claim_about_every_seed_says_so(store, add_result):
    for seed in range(2):
        add_result(store, "real-medclip", seed, {"pneumonia/auroc": 0.95})
    section = render(store).split("## Real images: pneumonia without a single pair, medclip", 2)[1]
    assert "(every seed) | +0.000 [+0.000, +0.000] | at least 0 | reproduced |" in section


def test_figures_and_verdicts_are_those_of_the_results(store):
    page = render(store)
    section = page.split("## MedCLIP: better at zero-shot", 2)[1].split("\n## ")[0]
    # The mean over seeds, and the interval of the differences seed by seed.
    assert "| convirt | 0.700 [0.602, 0.798] | 0.700 [0.700, 0.700] |" in section
    difference = "+0.054 [+0.050, +0.058]"
    assert f"| medclip − convirt: zero-shot AUROC | {difference} | above 0 | reproduced |" in section
    assert "| medclip − convirt: probe, 1 % of labels | +0.000 [+0.000, +0.000] | above 0 | undecided |" in section
    assert "| medclip − convirt: same diagnosis recognized (AUROC) | – | above 0 | no results |" in section
    assert "**Verdict: no results.**" in section
    assert "image to report R@10 |" not in section.split("difference")[0]  # a column without a figure
    assert "10 trainings on 2026-11-01 to 2026-11-05, at commit `abc`" in page
    assert "| `medclip` | medclip | `num_texts=32` | 390 | 36 s |" in page


def test_figures_that_were_kept_say_where_they_are_from(store, add_result):
    before = {"measures": ["probe"], "versions": {"torch": "2.12"}, "python": "3.12.3", "machine": "x86_64"}
    before |= {"date": "2026-10-01", "commit": "before"}
    add_result(store, "convirt", 0, {"zero_shot/auroc": 0.6, "probe/1": 0.7}, kept=[before])
    page = render(store)
    assert "10 trainings on 2026-10-01 to 2026-11-05, at commit `abc`, `before` " in page
    assert "with torch 2.12, 2.13: " in page


def test_fewer_seeds_are_named(store):
    store.path("full", "convirt", 4).unlink()
    page = render(store)
    assert "| convirt (4 seeds) |" in page
    assert "| medclip − convirt: zero-shot AUROC | +0.053 [+0.049, +0.057] | above 0 | reproduced |" in page


def test_the_quick_form_says_that_it_is_no_evidence(store, tmp_path):
    (store.folder / "full").rename(store.folder / "quick")  # with the keys of the full form, which the page names
    page = write_page(store, tmp_path / "docs", "quick").read_text()
    assert "They are no evidence for anything." in page
    drawn = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    assert drawn == set(re.findall(r"\]\(images/(.*?)\)", page))
    assert drawn == {"evidence_recipes.png", "evidence_medclip.png"}  # no other paper has a comparison with results


def test_claims_link_to_their_sections(store):
    """The anchors are those that the renderer gives to headings."""
    page = render(store)
    anchors = set(re.findall(r"\]\(#(.*?)\)", page))
    headings = re.findall(r"^## (.*)$", page, re.M)
    slugs = {re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(anchors) == len(all_claims())
    assert anchors <= slugs
