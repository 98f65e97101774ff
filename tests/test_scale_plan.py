"""The page that computes what a large training takes: it is the script's, and the script's figures are the formulas'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "make_scale_plan.py"


@pytest.fixture(scope="module")
def make_scale_plan(docs_script):
    return docs_script("make_scale_plan")


def measured():
    rows = [
        {"what": "medclip", "compiled": False, "n": 64, "seconds": 0.2, "images_per_second": 320.0, "peak_mib": 6400.0},
        {"what": "medclip", "compiled": True, "n": 64, "seconds": 0.1, "images_per_second": 640.0, "peak_mib": 3200.0},
        {"what": "mlip", "compiled": True, "n": 64, "error": "out of memory"},
    ]
    results = {"matrix_throughput": [{"what": "8192 x 8192 bfloat16", "teraflops": 500.0}], "training": rows}
    return {"date": "2027-01-01", "device": "torch 2.13, a GPU", "small": False, "results": results}


def test_the_page_is_what_the_script_writes(make_scale_plan):
    text = make_scale_plan.PAGE.read_text()
    assert text == make_scale_plan.page(make_scale_plan.FIGURES, text), "run python docs/make_scale_plan.py"


def test_every_figure_says_whether_it_is_measured_or_assumed(make_scale_plan):
    for figure in make_scale_plan.FIGURES.values():
        assert figure.source.split(":")[0] in {"counted", "measured", "assumed", "chosen"}
        assert figure.value > 0
    text = make_scale_plan.PAGE.read_text()
    assert "**No GPU has been measured yet.**" in text
    assert make_scale_plan.FIGURES["device_flops"].source.startswith("assumed")


def test_formulas(make_scale_plan):
    figures = {
        "pair_flops": 1e11, "weights": 1e8, "width": 500, "pair_bytes": 1e8, "image_bytes": 3e4, "row_bytes": 300,
        "process_bytes": 7e8, "read_rate": 500, "device_flops": 1e14, "share": 0.5, "machine_bandwidth": 1e11,
        "network_bandwidth": 1e10, "price": 2, "batch": 100, "chunk": 50,
    }  # fmt: skip
    plan = make_scale_plan.Plan(figures, pairs=1_000_000, gpus=16, epochs=10)
    assert plan.step_pairs == 1600
    compute = 100 * 1e11 * 4 / 3 / 5e13 + 8 * 1600**2 * 500 / 5e13
    traffic = 2 * 15 / 16 * 4e8 + 15 / 16 * 2 * 1600 * 500 * 4 + 2 * 15 / 16 * 2 * 1600 * 500 * 4
    assert plan.compute_seconds == pytest.approx(compute)
    assert plan.traffic_bytes == pytest.approx(traffic)
    assert plan.step_seconds == pytest.approx(compute + traffic / 1e10)
    assert plan.hours == pytest.approx(1e7 / 1600 * plan.step_seconds / 3600)
    assert plan.cost == pytest.approx(plan.hours * 32)
    assert plan.gpu_bytes == pytest.approx(16e8 + 50e8 + 4 * 1600 * 500 * 4 + 100 * 224 * 224 * 4)
    assert plan.machine_bytes == pytest.approx(8 * (7e8 + 3e8))
    assert plan.disk_bytes == 3e10
    assert plan.read_bytes_a_second == pytest.approx(1600 / plan.step_seconds * 3e4)
    assert plan.cores == pytest.approx(800 / plan.step_seconds / 500)
    assert plan.embed_hours == pytest.approx(1e6 * 1e11 / 3 / 5e13 / 16 / 3600)
    alone = make_scale_plan.Plan({**figures, "chunk": 100}, pairs=1_000_000, gpus=1, epochs=1)
    assert alone.traffic_bytes == 0
    assert alone.compute_seconds == pytest.approx(100 * 1e11 / 5e13 + 8 * 100**2 * 500 / 5e13)
    eight = make_scale_plan.Plan(figures, pairs=1_000_000, gpus=8, epochs=1)
    assert eight.traffic_seconds == pytest.approx(eight.traffic_bytes / 1e11)


def test_figures_of_a_gpu_take_the_place_of_assumptions(make_scale_plan):
    figures = make_scale_plan.parse_figures(["price=4"], measured())
    assert figures["device_flops"].value == 5e14
    assert figures["share"].value == pytest.approx(make_scale_plan.FIGURES["pair_flops"].value * 640 / 5e14)
    assert figures["pair_bytes"].value == 50 * 2**20
    assert (figures["price"].value, figures["price"].source) == (4, "given")
    text = make_scale_plan.page(figures, make_scale_plan.PAGE.read_text())
    assert "The speed of the GPU was measured." in text
    assert "measured: torch 2.13, a GPU, 2027-01-01" in text
    with pytest.raises(ValueError, match="small sizes say nothing"):
        make_scale_plan.parse_figures([], {**measured(), "small": True})
    with pytest.raises(ValueError, match="has no step of medclip"):
        make_scale_plan.parse_figures([], {**measured(), "results": {}})


def test_the_command(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(measured()))
    line = [sys.executable, SCRIPT, "--print", "--gpu", tmp_path / "gpu.json", "--set", "price=3"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "400 million" in done.stdout
    assert "| `price` | an hour of a GPU | 3 USD | given |" in done.stdout
    for wrong, message in {
        "prize=3": "prize must be one of pair_flops, ",
        "price=0": "price must be a number above 0, got '0'",
    }.items():
        done = subprocess.run([*line[:3], "--set", wrong], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
