"""Runs compared on the same studies: their values, differences and page."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from medvl.evaluation import BootstrapConfig, compare
from medvl.evaluation.report.comparison import write_comparison
from medvl.workflows import TrainedRun, compare_runs, train
from medvl.workflows.compare import unique_names

SMALL = {
    "synthetic_length": 60,
    "epochs": 1,
    "image_size": 32,
    "batch_size": 12,
    "embed_dim": 8,
    "vocab_size": 200,
    "progress": False,
    "device": "cpu",
    "network_def#image_encoder": {
        "_target_": "medvl.networks.ImageEncoder",
        "backbone": "resnet10",
        "width": 0.125,
        "output_stride": 8,
        "image_size": 32,
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    first = train("convirt", {**SMALL, "output": str(folder / "a")})
    second = train("medvl", {**SMALL, "output": str(folder / "b")})
    return first, second


def test_values_and_differences_are_those_of_the_protocols(runs, tmp_path):
    trained = [TrainedRun(run, "cpu") for run in runs]
    comparison = compare_runs(trained, tmp_path, protocols=["zero-shot", "retrieval"])
    saved = json.loads((tmp_path / "comparison.json").read_text())
    assert saved["runs"] == ["a", "b"]
    first, second = (run.results for run in comparison.runs)
    expected = compare(second["zero_shot"], first["zero_shot"], bootstrap=BootstrapConfig(n_resamples=2000, seed=0))
    assert saved["differences"]["zero_shot"]["b"] == expected.to_dict()
    assert expected.differences
    for value in expected.differences.values():
        assert value.difference.value == pytest.approx(value.first - value.second, nan_ok=True)
    page = (tmp_path / "comparison.html").read_text()
    assert {"zero-shot", "retrieval", "curves", "sentences"} <= set(re.findall(r'<section id="([^"]+)"', page))
    assert "://" not in re.sub(r"http://www.w3.org/\S+", "", page)
    assert page.count("Heat map by a over") == page.count("Heat map by b over") > 0
    assert "8 × 8 patches" in page or "4 × 4 patches" in page
    assert page.count("Each difference is a run minus a on the same patients.") == 1
    assert re.search(r"b differs from a at p &lt; 0.05 in \d+ of \d+ statistics", page)
    assert "AUROC, macro" in page
    assert page.count("<script>") == 1
    assert "script-src &#39;sha256-" in page
    tables = [unquote(text) for text in re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', page)]
    assert len(tables) == 2
    assert tables[0].splitlines()[0] == '\ufeffStatistic,a,b,b - a,"b - a, low","b - a, high",p of b'.replace("\\", "")


def test_a_statistic_of_two_protocols_counts_once(runs, tmp_path):
    """Zero-shot and label agreement have the same F1, but where a finding has no threshold."""
    trained = [TrainedRun(run, "cpu") for run in runs]
    comparison = compare_runs(trained, tmp_path, protocols=["zero-shot", "label-agreement"])
    found = {
        key: {name: part for name, part in by_run["b"].differences.items() if not math.isnan(part.p_value)}
        for key, by_run in comparison.differences.items()
    }
    twice = [
        name for name, part in found["label_agreement"].items() if name.startswith("f1/") and name in found["zero_shot"]
    ]
    assert twice
    for name in twice:
        one, other = (found[key][name] for key in ("zero_shot", "label_agreement"))
        assert (one.first, one.second) == pytest.approx((other.first, other.second))
    macros = [found[key]["f1"] for key in ("zero_shot", "label_agreement")]
    same_macro = macros[0].first == pytest.approx(macros[1].first)
    expected = len(found["zero_shot"]) + len(found["label_agreement"]) - len(twice) - same_macro
    (note,) = comparison.significant()
    assert f" of {expected} statistics;" in note


def test_without_text_no_sentence_is_on_the_page(runs, tmp_path):
    trained = [TrainedRun(run, "cpu") for run in runs]
    comparison = compare_runs(trained, tmp_path, protocols=["retrieval"], show_text=False)
    sentences = [sentence for run in comparison.runs for case in run.sentences for sentence in case.sentences]
    page = (tmp_path / "comparison.html").read_text()
    assert sentences
    assert not any(sentence in page for sentence in sentences)
    assert "--no-text" in page


def test_hostile_sentences_arrive_as_text_on_the_comparison(runs, tmp_path):
    trained = [TrainedRun(run, "cpu") for run in runs]
    comparison = compare_runs(trained, tmp_path / "plain", protocols=["retrieval"])
    hostile = '"><script>alert(1)</script><img src=x onerror="alert(2)">'
    for run in comparison.runs:
        for case in run.sentences:
            case.sentences[:] = [f"{sentence} {hostile}" for sentence in case.sentences]
            object.__setattr__(case, "study_id", hostile)
        object.__setattr__(run, "notes", [hostile])
    write_comparison(tmp_path / "page.html", comparison)
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script") == (tmp_path / "plain" / "comparison.html").read_text().count("<script")
    assert "<img src=x" not in page


def test_a_run_equals_itself(runs, tmp_path):
    trained = [TrainedRun(runs[0], "cpu") for _ in range(2)]
    comparison = compare_runs(trained, tmp_path, protocols=["zero-shot"])
    (difference,) = comparison.differences["zero_shot"].values()
    for part in difference.differences.values():
        if not math.isnan(part.first):
            assert (part.difference.value, part.p_value) == (0, 1)


def test_another_comparison_in_the_folder_is_kept(runs, tmp_path):
    first, second = (TrainedRun(run, "cpu") for run in runs)
    files = "comparison.html", "comparison.json"
    for pair in ((first, second), (first, second), (second, first)):
        before = {name: (tmp_path / name).read_bytes() for name in files if (tmp_path / name).exists()}
        compare_runs(pair, tmp_path, protocols=["retrieval"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("comparison-1.html", "comparison-1.json", "comparison.html", "comparison.json")
    ]
    assert {name: (tmp_path / name.replace(".", "-1.")).read_bytes() for name in files} == before


def test_other_studies_and_a_single_run_are_refused(runs, tmp_path):
    other = train("convirt", {**SMALL, "synthetic_length": 40, "output": str(tmp_path / "other")})
    trained = [TrainedRun(run, "cpu") for run in (runs[0], other)]
    with pytest.raises(ValueError, match=r"^Runs are compared on the same studies, but a has \d+ and other has \d+"):
        compare_runs(trained, tmp_path / "out")
    with pytest.raises(ValueError, match=r"^runs must be at least two, got 1\.$"):
        compare_runs(trained[:1], tmp_path / "out")


def test_other_images_and_labels_under_the_same_ids_are_refused(tmp_path):
    def table(name, seed, state):
        (tmp_path / name).mkdir()
        lines = ["image,report,Edema"]
        for i in range(20):
            pixels = np.random.default_rng(seed + i).integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
            lines.append(f"{i}.png,{'Edema.' if i % 2 else 'Clear lungs.'},{(i + state) % 2}")
        (tmp_path / name / "cases.csv").write_text("\n".join(lines) + "\n")
        return str(tmp_path / name / "cases.csv")

    options = {key: value for key, value in SMALL.items() if key != "synthetic_length"}
    runs = {}
    for name, seed, state in (("a", 0, 0), ("copied", 0, 0), ("images", 100, 0), ("labels", 0, 1)):
        data = table(name, seed, state)
        path = train(
            "convirt",
            {**options, "data": data, "columns": {"label_column": "Edema"}, "output": str(tmp_path / f"run-{name}")},
        )
        runs[name] = TrainedRun(path, "cpu")
    compare_runs([runs["a"], runs["copied"]], tmp_path / "out", protocols=["retrieval"])
    for name, what in (("images", "another image"), ("labels", "other labels")):
        with pytest.raises(
            ValueError,
            match=rf"^Runs are compared on the same studies, but \d+ of them have {what} in run-{name} than in run-a; give",
        ):
            compare_runs([runs["a"], runs[name]], tmp_path / "out", protocols=["retrieval"])


def test_command(medvl, runs, tmp_path):
    code, out, err = medvl("compare", *runs, "--output", tmp_path / "out", "--protocol", "retrieval", "--device", "cpu")
    assert code == 0, err
    assert "b - a" in out
    assert (tmp_path / "out" / "comparison.html").is_file()
    code, _, err = medvl("compare", runs[0], "--output", tmp_path / "out")
    assert code == 2
    assert "runs must be at least two, got 1." in err


@pytest.mark.parametrize("damage", ["metrics", "pipe"])
def test_what_cannot_be_read_is_said_before_the_work(runs, tmp_path, monkeypatch, damage):
    trained = [TrainedRun(run, "cpu") for run in runs]
    if damage == "pipe":
        os.mkfifo(tmp_path / "comparison.json")
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": "x"}\n')
        monkeypatch.setattr(trained[1], "path", tmp_path / "run")
    monkeypatch.setattr(TrainedRun, "studies", lambda *_: pytest.fail("the work has begun"))
    said = {
        "metrics": r"metrics\.jsonl, line 2 is damaged",
        "pipe": r"comparison\.json must be a regular file, got a named",
    }
    with pytest.raises(ValueError, match=said[damage]):
        compare_runs(trained, tmp_path)


def test_names_tell_folders_apart(tmp_path):
    assert unique_names([tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"]) == ["x/run", "y/run", "z"]
    again = [tmp_path / "x" / "run", tmp_path / "x" / "run", tmp_path / "z"]
    assert unique_names(again) == ["run (1)", "run (2)", "z"]
    assert unique_names([*again, tmp_path / "y" / "run"]) == ["x/run (1)", "x/run (2)", "z", "y/run"]
    assert unique_names([Path("/run"), Path("/a/run")]) == ["/run", "a/run"]
