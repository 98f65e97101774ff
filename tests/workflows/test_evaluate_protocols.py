"""``medvl evaluate --protocol``: what is measured by default and on demand, and masks beside images."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib
import json
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medvl.evaluation import segmentation
from medvl.evaluation.case_selection import CHEXPERT_COMPETITION_FINDINGS
from medvl.utils.errors import StudyError
from medvl.workflows import TrainedRun, evaluate_run, evaluation_files, train
from medvl.workflows.evaluate import evaluation_context
from medvl.workflows.evaluation_files import _merge_rows
from medvl.workflows.masks import find_masks, masked_dataset

SMALL = {"image_size": 32, "batch_size": 16, "epochs": 1, "embed_dim": 8, "vocab_size": 200, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on the synthetic set; nothing is learned, everything is there."""
    output = tmp_path_factory.mktemp("protocols") / "run"
    train("convirt", {**SMALL, "data": "synthetic", "synthetic_length": 120, "output": str(output), "num_workers": 0})
    return output


@pytest.fixture(scope="module")
def run(folder):
    return TrainedRun(folder)


def squares(folder, number=12, blank=()):
    """A table of images (48 x 32) with a bright rectangle off the middle, and masks of it at twice the size."""
    folder.mkdir()
    rows = [["image", "report", "square", "patient_id"]]
    generator = np.random.default_rng(0)
    for i in range(number):
        pixels = generator.integers(0, 60, (32, 48), dtype=np.uint8)
        y, x = generator.integers(2, 18), generator.integers(2, 30)
        pixels[y : y + 10, x : x + 14] = 250
        mask = np.zeros((32, 48), np.uint8)
        mask[y : y + 10, x : x + 14] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
        Image.fromarray(mask).resize((96, 64), Image.Resampling.NEAREST).save(folder / f"m{i}.png")
        rows.append([f"{i}.png", "A square is seen.", "" if i in blank else f"m{i}.png", f"p{i}"])
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "cases.csv"


def test_the_run_s_seed_is_that_of_the_protocols(folder):
    run = TrainedRun(folder)
    run.environment["seed"] = 7
    manifest = run.studies()
    context = evaluation_context(run, manifest, run.loader(manifest))
    assert (context.seed, context.bootstrap.seed) == (7, 7)


class TestProtocols:
    def test_by_default_what_the_data_permit(self, run, tmp_path):
        manifest = run.studies()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # some findings are rare in so small a set
            evaluate_run(run, manifest, run.loader(manifest), tmp_path, untrained=False)
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert {"zero_shot", "retrieval", "linear_probe", "grounding"} <= set(content)
        assert not {"single_label", "segmentation", "fine_tune"} & set(content)
        assert content["grounding"]["findings"]["Cardiomegaly"]["cases"] > 0
        page = (tmp_path / "report.html").read_text()
        assert 'id="heat-maps"' in page
        assert 'id="sentences"' in page

    def test_several_protocols_behind_one_option(self, medvl, folder, tmp_path):
        code, out, err = medvl("evaluate", folder, "--output", tmp_path, "--protocol", "retrieval", "grounding")
        assert code == 0, err
        assert set(json.loads((tmp_path / "evaluation.json").read_text())) == {
            "retrieval",
            "grounding",
            "untrained",
            "evaluated_on",
        }
        assert "Pointing game" in out
        assert "AUROC" not in out

    @pytest.mark.parametrize("content", [b"", b"a\xff"])
    def test_an_earlier_table_that_is_damaged_is_named(self, tmp_path, content):
        """A table that SHA256SUMS does not list, as after it was edited."""
        (tmp_path / "evaluation.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"evaluation.csv is damaged; move it away"):
            _merge_rows(tmp_path / "evaluation.csv", "protocol,value\nretrieval,1\n", ["zero_shot"])

    def test_wrong_protocols_are_named(self, medvl, folder, tmp_path):
        code, _, err = medvl("evaluate", folder, "--output", tmp_path, "--protocol", "retreival")
        assert code == 2
        assert "--protocol must be one of 'zero-shot', " in err
        assert "got 'retreival'." in err
        code, _, err = medvl("evaluate", folder, "extra", "--output", tmp_path)
        assert code == 2
        assert "'extra' is not expected here; name protocols by --protocol." in err
        table = squares(tmp_path / "squares")
        code, _, err = medvl("evaluate", folder, "--data", table, "--output", tmp_path, "--protocol", "grounding")
        assert code == 2
        assert "--protocol grounding: cases.csv has no masks; name their columns by --mask-column." in err
        arguments = ("--protocol", "zero-shot", "--class", "Edema")
        code, _, err = medvl("evaluate", folder, "--output", tmp_path, *arguments)
        assert code == 2
        assert "--class is for --protocol single-label, got --protocol zero-shot." in err

    def test_single_label_by_a_column_of_class_names(self, medvl, folder, tmp_path):
        table = squares(tmp_path / "squares", number=9)
        rows = table.read_text().splitlines()
        classes = ["class", *["Edema", "Fracture", "No Finding"] * 3]
        table.write_text("\n".join(f"{row},{name}" for row, name in zip(rows, classes, strict=True)) + "\n")
        arguments = ["--data", table, "--label-column", "class", "--output", tmp_path]
        code, out, err = medvl("evaluate", folder, *arguments, "--protocol", "single-label")
        assert code == 0, err
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert set(content) == {"single_label", "untrained", "evaluated_on"}
        assert content["single_label"]["classes"] == ["Edema", "Fracture", "No Finding"]
        assert np.array(content["single_label"]["confusion"]).sum(1).tolist() == [3, 3, 3]
        assert "3 in place of 200 studies of each class" in err
        assert "0.333" in next(line for line in out.splitlines() if line.startswith("Accuracy"))
        page = (tmp_path / "report.html").read_text()
        assert 'id="single-label"' in page
        assert "Predicted No Finding" in page
        # Classes that are named ask for it, beside what is measured by default.
        code, _, err = medvl("evaluate", folder, *arguments, "--class", "Edema", "--class", "Fracture")
        assert code == 0, err
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert {"zero_shot", "single_label"} <= set(content)
        assert content["single_label"]["classes"] == ["Edema", "Fracture"]
        code, _, err = medvl("evaluate", folder, *arguments, "--class", "Edema", "--class", "Nodule")
        assert code == 2
        assert "classes must be two or more different ones of ['Edema', 'Fracture', 'No Finding']" in err
        assert "got ['Nodule']" in err

    def test_single_label_takes_the_five_of_the_competition_where_they_are(self, run, tmp_path):
        manifest = run.studies(split="all")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            result = evaluate_run(
                run, manifest, run.loader(manifest), tmp_path, protocols=["single-label"], untrained=False
            )
        assert result["single_label"].classes == CHEXPERT_COMPETITION_FINDINGS

    def test_segmentation_and_grounding_by_mask_columns(self, medvl, folder, tmp_path, monkeypatch):
        short = functools.partial(segmentation, steps=3, seeds=1)
        monkeypatch.setattr(importlib.import_module("medvl.evaluation.protocols.segmentation"), "segmentation", short)
        table = squares(tmp_path / "squares", blank=[3])
        arguments = ["--data", table, "--output", tmp_path, "--mask-column", "A bright square=square", "--split", "all"]
        code, out, err = medvl("evaluate", folder, *arguments, "--protocol", "segmentation", "grounding")
        assert code == 0, err
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert content["grounding"]["cases"] == 11
        assert set(content["segmentation"]["structures"]) == {"A bright square"}
        assert "50 labeled cases were asked for" in err
        assert "A bright square" in out

    def test_a_finding_of_very_few_patients_is_undefined_not_a_crash(self, run, tmp_path):
        table = squares(tmp_path / "squares")
        rows = table.read_text().splitlines()
        labels = ["Edema,Fracture,Pneumonia", "1,0,", *["0,0,"] * 10, "0,1,"]
        table.write_text("\n".join(f"{row},{more}" for row, more in zip(rows, labels, strict=True)) + "\n")
        columns = {"label_column": ["Edema", "Fracture", "Pneumonia"]}
        manifest = run.studies(table, "all", columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            result = evaluate_run(
                run, manifest, run.loader(manifest), tmp_path, protocols=["zero-shot"], data=table, columns=columns
            )
        assert result["zero_shot"].findings["Edema"].positives == 1
        assert not result["zero_shot"].findings["Edema"].auroc.has_interval
        assert "Pneumonia" not in result["zero_shot"].findings
        assert (tmp_path / "report.html").is_file()
        # All labels of one class: no AUROC at all, and still a table, JSON and a page.
        manifest = run.studies(table, "all", {"label_column": ["Pneumonia", "Fracture"]})
        manifest = replace(manifest, studies=manifest.studies[:11])
        with pytest.warns(RuntimeWarning, match="one class only"):
            result = evaluate_run(
                run,
                manifest,
                run.loader(manifest),
                tmp_path,
                protocols=["zero-shot"],
                data=table,
                columns={"label_column": ["Pneumonia", "Fracture"]},
                untrained=False,
            )
        assert "n/a" in result.table()
        assert json.loads((tmp_path / "evaluation.json").read_text())["zero_shot"]["macro"]["auroc"]["value"] is None

    def test_a_table_of_test_studies_alone_is_measured_without_what_must_learn(self, run, tmp_path):
        table = squares(tmp_path / "squares", number=4)
        rows = table.read_text().splitlines()
        more = ["Edema,Fracture,split", "1,0,test", "0,1,test", "0,0,test", "1,1,test"]
        table.write_text("\n".join(f"{row},{cells}" for row, cells in zip(rows, more, strict=True)) + "\n")
        columns = {"label_column": ["Edema", "Fracture"]}
        manifest = run.studies(table, "test", columns)
        options = {"data": table, "columns": columns, "mask_columns": ["square"], "untrained": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            evaluate_run(run, manifest, run.loader(manifest), tmp_path, **options)
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert {"zero_shot", "retrieval", "grounding"} <= set(content)
        assert not {"linear_probe", "segmentation"} & set(content)
        with pytest.raises(
            ValueError, match=r"--protocol linear-probe: .* has no studies both to train on and to test on"
        ):
            evaluate_run(run, manifest, run.loader(manifest), tmp_path, protocols=["linear-probe"], **options)


class TestMasks:
    def test_masks_lie_on_their_images(self, run, tmp_path):
        table = squares(tmp_path / "squares")
        manifest = run.studies(table, "all")
        dataset = masked_dataset(run, manifest.studies, find_masks(run, manifest, table, ["square"]))
        assert len(dataset) == 12
        for item in dataset:
            assert item["image"].shape == (1, 32, 32)
            assert item["mask"].shape == (1, 32, 32)
            assert item["mask"].dtype == torch.bool
            inside, outside = item["image"][item["mask"]], item["image"][~item["mask"]]
            assert inside.min() > 0.5
            # Pixels on the edge are mixed by the resizing.
            assert (outside < 0.5).float().mean() > 0.95

    def test_masks_of_the_synthetic_set_are_those_of_its_images(self, run):
        manifest = run.studies()
        masks = find_masks(run, manifest)
        assert masks.names[0] == "Cardiomegaly"
        present = {
            study["study_id"]: study["label"][list(manifest.names).index("Pleural Effusion")] == 1
            for study in manifest.studies
        }
        column = masks.names.index("Pleural Effusion")
        for item in masked_dataset(run, manifest.studies, masks):
            assert bool(item["mask"][column].any()) <= bool(present[item["study_id"]])

    def test_rows_without_a_mask_are_left_out_and_other_blanks_are_empty(self, run, tmp_path):
        table = squares(tmp_path / "squares", blank=[0, 1])
        text = table.read_text().splitlines()
        table.write_text(
            "\n".join([text[0] + ",other", *(line + ("," if i else ",m0.png") for i, line in enumerate(text[1:]))])
        )
        manifest = run.studies(table, "all")
        masks = find_masks(run, manifest, table, ["square", "Other=other"])
        assert masks.names == ("square", "Other")
        dataset = masked_dataset(run, manifest.studies, masks)
        assert len(dataset) == 11
        assert dataset[0]["mask"].flatten(1).any(1).tolist() == [False, True]
        assert dataset[1]["mask"].flatten(1).any(1).tolist() == [True, False]

    def test_wrong_masks_are_named(self, run, tmp_path):
        table = squares(tmp_path / "squares")
        manifest = run.studies(table, "all")
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(table.parent / "m0.png")
        dataset = masked_dataset(run, manifest.studies, find_masks(run, manifest, table, ["square"]))
        with pytest.raises(
            StudyError, match=r"m0.png must have the aspect ratio of its image, \(32, 48\), got \(32, 32\)"
        ):
            dataset[0]
        (table.parent / "m0.png").unlink()
        with pytest.raises(ValueError, match=r"cases.csv, row 1 \(line 2\): the mask m0.png does not exist"):
            find_masks(run, manifest, table, ["square"])
        with pytest.raises(ValueError, match="mask_column"):
            find_masks(run, manifest, table, ["squares"])
        assert find_masks(run, manifest, table) is None


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.csv"])
def test_a_pipe_is_refused_before_the_work(run, tmp_path, name):
    os.mkfifo(tmp_path / name)
    manifest = run.studies()
    with pytest.raises(ValueError, match=rf"{name} must be a regular file, got a named pipe\.$"):
        evaluate_run(run, manifest, run.loader(manifest), tmp_path, protocols=["retrieval"], untrained=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_of_two_evaluations_at_once_none_is_lost(folder, tmp_path, monkeypatch):
    """Where both read before one writes, which waiting makes certain, the results of one would be lost."""
    both_have_read, read = threading.Barrier(2), evaluation_files._earlier_results

    def read_and_wait(path):
        earlier = read(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_have_read.wait(timeout=2)
        return earlier

    monkeypatch.setattr(evaluation_files, "_earlier_results", read_and_wait)

    def evaluate(protocol):
        trained = TrainedRun(folder)
        manifest = trained.studies()
        evaluate_run(trained, manifest, trained.loader(manifest), tmp_path, protocols=[protocol], untrained=False)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, ["retrieval", "knn"]))
    assert {"retrieval", "knn"} <= set(json.loads((tmp_path / "evaluation.json").read_text()))
    assert {path.name for path in tmp_path.glob("report*.html")} == {"report.html", "report-1.html"}
    assert not list(tmp_path.glob("evaluation-*"))
