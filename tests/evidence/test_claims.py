"""The table of claims: what it names exists, and every table has its baselines."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import evidence
from evidence.arms import ARMS, SUPERVISED, settings_of
from evidence.claim import FIGURES, Claim, Comparison, arms_of, needed_measures
from evidence.claims import all_claims, choose_claims
from evidence.measures import MEASURES
from evidence.runner import plan
from evidence.scales import SCALES
from evidence.store import Store
from medvl.workflows import config_files

CLAIMS = all_claims()
FOLDER = Path(evidence.__file__).parent


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_names_what_there_is(claim):
    for arm in claim.rows:
        assert arm in ARMS
    assert claim.comparisons
    assert claim.needed is None or 0 < claim.needed <= len(claim.comparisons)
    for comparison in claim.comparisons:
        assert comparison.above in claim.rows
        assert not isinstance(comparison.below, str) or comparison.below in claim.rows
        for figure in (comparison.figure, comparison.below_figure or comparison.figure):
            assert figure in claim.figures
    for figure in claim.figures:
        assert figure in FIGURES
        assert figure.partition("/")[0] in MEASURES


def test_names_are_unique_and_every_arm_is_used():
    assert max(Counter(claim.name for claim in CLAIMS).values()) == 1
    assert {arm.name for arm in arms_of(CLAIMS)} == set(ARMS)


def test_terms_that_are_left_out_are_terms_of_the_recipe():
    for arm in ARMS.values():
        own = yaml.safe_load(config_files(arm.recipe)[-1].read_text()) if arm.without else {}
        assert set(arm.without) < set(own["loss"]["losses"]) if arm.without else not own


def test_an_arm_of_fewer_seeds_decides_nothing():
    few = {arm.name for arm in ARMS.values() if arm.most_seeds}
    assert few
    for claim in CLAIMS:
        assert not few & {arm for comparison in claim.comparisons for arm in (comparison.above, comparison.below)}
    tasks = plan(CLAIMS, CLAIMS, SCALES["full"], Store("nowhere"), Path("nowhere"))
    seeds = Counter(task.arm for task in tasks)
    assert seeds["mlip-vit"] == 2
    assert seeds["mlip"] == 5


def test_the_quick_form_runs_the_code_of_every_arm_that_it_leaves_out():
    def without_numbers(arm):
        settings = {key: value for key, value in arm.settings.items() if isinstance(value, bool | str | list | dict)}
        return arm.recipe, settings, arm.sources, arm.without, arm.trained, arm.test

    quick = SCALES["quick"]
    kept = [without_numbers(arm) for arm in ARMS.values() if arm.seeds(quick)]
    left_out = [arm for arm in ARMS.values() if arm.numbers_only]
    assert left_out
    for arm in left_out:
        assert not arm.seeds(quick)
        assert arm.seeds(SCALES["full"])
        assert without_numbers(arm) in kept, arm.name
    assert {settings_of(arm, quick, 0)["epochs"] for arm in ARMS.values() if arm.seeds(quick)} == {1}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_table_has_an_untrained_network_and_one_that_learned_from_labels_alone(claim):
    assert any(not ARMS[arm].trained for arm in claim.rows)
    assert any(ARMS[arm].recipe == SUPERVISED for arm in claim.rows)


def test_claims_are_chosen_by_name_or_paper():
    assert [claim.name for claim in choose_claims(["umcl-prompts"])] == ["umcl-prompts"]
    assert {claim.name for claim in choose_claims(["mlip"])} == {c.name for c in CLAIMS if c.name.startswith("mlip-")}
    with pytest.raises(ValueError, match=r"--only must be among .*umcl-prompts.*, got 'moco'"):
        choose_claims(["moco"])


def test_an_arm_of_several_claims_is_trained_once_with_all_their_measures():
    def claim(name: str, figure: str) -> Claim:
        comparison = Comparison("medclip", "convirt", figure)
        return Claim(name, "", "", "", True, "", ("medclip", "convirt"), (figure,), (comparison,))

    claims = [claim("a", "zero_shot/auroc"), claim("b", "probe/1")]
    needs = needed_measures(claims)
    assert needs["medclip"] == needs["convirt"] == needs["untrained"] == {"zero_shot", "probe"}
    assert needs["supervised"] == {"probe", "classifier"}
    two_seeds = replace(SCALES["quick"], seeds=(0, 1))
    tasks = plan(claims[:1], claims, two_seeds, Store("nowhere"), Path("nowhere"))
    assert [(task.arm, task.seed) for task in tasks] == [
        (arm, seed) for seed in (0, 1) for arm in ("untrained", "supervised", "convirt", "medclip")
    ]
    assert tasks[2].measures == ("probe", "zero_shot")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_only_public_names_of_the_library_are_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("medvl"):
            continue
        parts = node.module.split(".")
        assert len(parts) == 2 or parts[1] == "utils", f"{path.name}: {node.module} is not public"
        module = importlib.import_module(node.module)
        for alias in node.names:
            public = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
            assert alias.name in public, f"{path.name}: {node.module}.{alias.name} is not public"
