"""The field's evaluation sets on small folders in the published layouts, with tiny models that know nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import public_layouts
import pytest

from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.evaluation.benchmarks import BENCHMARKS, _draw_fraction, parse_benchmark
from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES, CHEXPERT_COMPETITION_FINDINGS
from medvl.evaluation.registry import BENCHMARK_NAMES
from medvl.evaluation.retrieval_lists import RetrievalLists
from medvl.workflows import train

TINY = {
    "epochs": 1,
    "image_size": 32,
    "embed_dim": 8,
    "vocab_size": 200,
    "batch_size": 4,
    "progress": False,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained on a public data set, named by its location."""
    folder = tmp_path_factory.mktemp("mimic")
    public_layouts.mimic_cxr(folder / "data", number=16)
    settings = {**TINY, "data": f"mimic-cxr,views=frontal:{folder / 'data'}", "output": str(folder / "run")}
    return train("convirt", settings)


@pytest.fixture(scope="module")
def volume_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    public_layouts.ct_rate(folder / "data")
    settings = {
        **TINY,
        "data": f"ct-rate:{folder / 'data'}",
        "output": str(folder / "run"),
        "spatial_dims": 3,
        "image_size": 16,
    }
    return train("convirt", settings)


def write(name, folder):
    """The benchmark's folder, and how many images of it are evaluated."""
    if name.startswith("chexpert"):
        classes = CHEXPERT_COMPETITION_FINDINGS if name == "chexpert-5x200" else CHEXPERT_8X200_CLASSES
        each = 3 if name == "chexpert-5x200" else 20
        alone = [{finding: "1.0"} for finding in classes for _ in range(each)]
        mixed = [{"Edema": "1.0", "Cardiomegaly": "1.0"}, {"Edema": "1.0", "Fracture": "-1.0"}, {}]
        public_layouts.chexpert(folder, labels=[*mixed, *alone])
        return each * len(classes)
    public_layouts.WRITERS[BENCHMARKS[name].dataset](folder)
    return {"rsna": 4, "siim": 4, "ms-cxr": 12, "ct-rate": 24}[name]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_on_its_folder(name, tmp_path, medvl, request):
    trained = request.getfixturevalue("volume_run" if name == "ct-rate" else "run")
    number = write(name, tmp_path / "data")
    location = f"{name}:{tmp_path / 'data'}"
    code, out, err = medvl(
        "evaluate", trained, "--benchmark", location, "--output", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert results["evaluated_on"]["studies"] == number
    assert results["evaluated_on"]["data"] == f"{name}:data"
    (protocol,) = set(results) - {"evaluated_on", "untrained"}
    assert protocol == BENCHMARKS[name].protocols[0].replace("-", "_")
    assert f"{name}: {BENCHMARKS[name].rule}" in out
    if protocol == "single_label":
        assert results[protocol]["classes"] == list(CHEXPERT_COMPETITION_FINDINGS)
        assert results[protocol]["cases"] == number
    if protocol == "label_retrieval":
        assert results[protocol]["candidates"] == 80  # 20 of each of eight classes, less ten queries
    if protocol == "grounding":
        assert {finding: entry["cases"] for finding, entry in results[protocol]["findings"].items()} == {
            "Edema": 6,
            "Pneumonia": 6,
        }
        assert math.isclose(
            results[protocol]["findings"]["Edema"]["chance"]["pointing"], 1 / 12
        )  # of the padded square


def write_lists(folder, data):
    """ConVIRT's lists in their published form: of three images a class the first is a query, the others are candidates."""
    public_layouts.chexpert(data, labels=[{name: "1.0"} for name in CHEXPERT_8X200_CLASSES for _ in range(3)])
    paths = [f"CheXpert-v1.0-small/train/patient{i + 1:05}/study1/view1_frontal.jpg" for i in range(24)]
    queries = [{"Variable": name, "Path": paths[3 * i]} for i, name in enumerate(CHEXPERT_8X200_CLASSES)]
    candidates = [
        {"Path": paths[3 * i + j], "Sex": "Male", **dict.fromkeys(CHEXPERT_FINDINGS, "0.0"), name: "1.0"}
        for i, name in enumerate(CHEXPERT_8X200_CLASSES)
        for j in (1, 2)
    ]
    texts = [{"Variable": name, "Text": f"{name} is present."} for name in CHEXPERT_8X200_CLASSES]
    tables = {"image-retrieval/query": queries, "image-retrieval/candidate": candidates, "text-retrieval/query": texts}
    for file, rows in tables.items():
        public_layouts.write_table(folder / f"{file}.csv", rows)
    return paths


def test_8x200_by_its_published_lists(run, tmp_path, medvl):
    write_lists(tmp_path / "convirt", tmp_path / "data")
    location = f"chexpert-8x200,lists={tmp_path / 'convirt'}:{tmp_path / 'data'}"
    arguments = ("evaluate", run, "--benchmark", location, "--output", tmp_path / "out", "--device", "cpu")
    code, _, err = medvl(*arguments)
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = results["label_retrieval"]
    assert (found["candidates"], found["settings"]["lists"]) == (16, "convirt")
    assert {kind: found[kind]["queries"] for kind in ("image_to_image", "text_to_image")} == {
        "image_to_image": 8,
        "text_to_image": 8,
    }
    assert math.isclose(found["image_to_image"]["chance"], 1 / 8)
    assert found["settings"]["ks"] == [5, 10]
    (tmp_path / "data" / "train" / "patient00001" / "study1" / "view1_frontal.jpg").unlink()
    code, _, err = medvl(*arguments, "--on-error", "skip")
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert results["label_retrieval"]["image_to_image"]["queries"] == 7


def test_a_published_list_chooses_the_images_of_5x200(tmp_path):
    paths = write_lists(tmp_path / "convirt", tmp_path / "data")
    public_layouts.write_table(tmp_path / "chexpert_5x200.csv", [{"Path": path, "Edema": "1.0"} for path in paths[4:7]])
    benchmark, place = parse_benchmark(f"chexpert-5x200,lists={tmp_path / 'chexpert_5x200.csv'}:{tmp_path / 'data'}")
    chosen, whole = benchmark.read(place)
    assert [study["study_id"] for study in chosen.studies] == [f"patient{i:05}/study1/view1_frontal" for i in (5, 6, 7)]
    assert len(whole) == 24
    public_layouts.write_table(
        tmp_path / "chexpert_5x200.csv", [{"Path": "train/patient99999/study1/view1_frontal.jpg"}]
    )
    with pytest.raises(
        ValueError, match=r"^1 images of the list .* the first patient99999/study1/view1_frontal; --on-err"
    ):
        benchmark.read(place)


def test_lists_that_are_wrong(tmp_path):
    with pytest.raises(
        ValueError, match=r"^option of a benchmark must be lists=PATH, of chexpert-5x200, chexpert-8x200"
    ):
        parse_benchmark("rsna,lists=a:b")
    with pytest.raises(ValueError, match=r"got 'chexpert-8x200,list=a'\.$"):
        parse_benchmark("chexpert-8x200,list=a:b")
    paths = write_lists(tmp_path / "convirt", tmp_path / "data")
    benchmark, place = parse_benchmark(f"chexpert-8x200,lists={tmp_path}:{tmp_path / 'data'}")
    with pytest.raises(FileNotFoundError, match=r"holds no image-retrieval/query\.csv, as ConVIRT's lists"):
        benchmark.read(place)
    rows = [{"Path": paths[0], **dict.fromkeys(CHEXPERT_FINDINGS, "1.0")}]
    public_layouts.write_table(tmp_path / "convirt" / "image-retrieval" / "candidate.csv", rows)
    with pytest.raises(ValueError, match="a candidate shows 8 of the classes, and not one"):
        RetrievalLists.read(tmp_path / "convirt")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_that_lacks_it_is_refused_in_one_sentence(name, tmp_path, medvl, request):
    trained = request.getfixturevalue("volume_run" if name == "ct-rate" else "run")
    code, _, err = medvl("evaluate", trained, "--benchmark", f"{name}:{tmp_path}", "--output", tmp_path / "out")
    assert code != 0
    assert f"{tmp_path} holds no " in err
    assert "is read from" in err


def test_names_that_the_help_lists():
    assert tuple(BENCHMARKS) == BENCHMARK_NAMES


def test_benchmarks_that_are_wrong(run, medvl, tmp_path):
    with pytest.raises(
        ValueError, match=r"^benchmark must be NAME:PATH with NAME one of chexpert-5x200, .*, got 'rsna'\.$"
    ):
        parse_benchmark("rsna")
    with pytest.raises(ValueError, match=r"^benchmark must be one of 'chexpert-5x200', .*, got 'nih'\.$"):
        parse_benchmark("nih:x")
    code, _, err = medvl("evaluate", run, "--benchmark", f"rsna:{tmp_path}", "--data", "cases.csv")
    assert code != 0
    assert "--benchmark names its own data and columns; leave --data and the options of columns out." in err


def test_chexpert_5x200_takes_images_of_the_training_set_that_show_one_finding_alone(tmp_path):
    write("chexpert-5x200", tmp_path)
    with pytest.warns(RuntimeWarning, match="3 in place of 200 images of each class"):
        chosen, whole = BENCHMARKS["chexpert-5x200"].read(tmp_path)
    assert len(whole) == 18
    labels = np.array([study["label"] for study in chosen.studies])
    shown = [[CHEXPERT_FINDINGS[k] for k in np.flatnonzero(label == 1)] for label in labels]
    assert sorted(shown) == sorted([finding] for finding in CHEXPERT_COMPETITION_FINDINGS for _ in range(3))
    assert (labels != -1).all()


def test_the_split_of_gloria_is_that_of_scikit_learn():
    """The first numbers that ``train_test_split(range(20), test_size=0.3, random_state=0)`` and its halving give."""
    held_out, train_rows = _draw_fraction(np.arange(20), 0.3)
    assert held_out.tolist() == [18, 1, 19, 8, 10, 17]
    assert train_rows.tolist() == [6, 13, 4, 2, 5, 14, 9, 7, 16, 11, 3, 0, 15, 12]
    validation, test = _draw_fraction(held_out, 0.5)
    assert (validation.tolist(), test.tolist()) == ([17, 19, 1], [8, 18, 10])
    assert len(_draw_fraction(np.arange(26684), 0.3)[0]) == 8006


def test_boxes_of_a_public_set_are_the_masks_of_other_protocols(run, tmp_path, medvl):
    public_layouts.rsna(tmp_path / "data")
    arguments = ("evaluate", run, "--data", f"rsna:{tmp_path / 'data'}", "--split", "all", "--output", tmp_path / "out")
    code, _, err = medvl(*arguments, "--protocol", "grounding", "zero-shot")
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert results["grounding"]["findings"]["Pneumonia"]["cases"] == 8
    code, _, err = medvl(*arguments, "--protocol", "grounding", "--mask-column", "mask")
    assert code != 0
    assert "mask columns cannot be named for rsna:data, which has regions of its own." in err
