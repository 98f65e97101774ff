"""The command line as a user meets it: what it writes, what it says, and how it fails."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from fork_server import run as run_forked
from PIL import Image
from safetensors.numpy import load_file

TEXTS = [
    "The heart is enlarged. No pleural effusion.",
    "Left pleural effusion. No pneumothorax.",
    "Clear lungs. Heart size is normal.",
    "Right apical pneumothorax is present. The lungs are otherwise clear.",
]
FINDINGS = ["Cardiomegaly", "Effusion", "No Finding", "Pneumothorax"]
SMALL = [
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--set",
    "embed_dim=16",
    "--set",
    "vocab_size=120",
    "--set",
    "progress=false",
]

# Trains as the command does, and kills its own process in a step: at once, with nothing tidied up, and where the test says.
KILLED_AT = """
import os, signal, sys
from medvl.__main__ import main
from medvl.handlers import FiniteLoss

check, iteration = FiniteLoss.__call__, int(sys.argv.pop(1))

def kill(self, engine):
    if engine.state.iteration == iteration:
        os.kill(os.getpid(), signal.SIGKILL)
    check(self, engine)

FiniteLoss.__call__ = kill
main()
"""


def write_table(folder: Path, count: int = 24) -> Path:
    """A table of images that differ by finding: a bright square in one of four corners."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    rows = ["image,text,finding,patient"]
    for i in range(count):
        kind = i % 4
        pixels = generator.integers(0, 60, (32, 32), dtype=np.uint8)
        pixels[16 * (kind // 2) :, 16 * (kind % 2) :][:14, :14] += 150
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f'{i}.png,"{TEXTS[kind]}",{FINDINGS[kind]},p{i}')
    table = folder / "cases.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def columns() -> list[str]:
    return ["--report-column", "text", "--label-column", "finding", "--patient-column", "patient"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table and a run trained on it."""
    folder = tmp_path_factory.mktemp("cli")
    table = write_table(folder / "data")
    run = folder / "run"
    arguments = ["train", "convirt", "--data", table, "--output", run, "--epochs", "2", *SMALL, *columns()]
    run_forked([sys.executable, "-m", "medvl", *map(str, arguments)], check=True, capture_output=True)
    return table, run


class TestTrain:
    def test_run_folder_holds_all_that_is_needed(self, trained):
        _, run = trained
        assert {path.name for path in run.iterdir()} == {
            "SHA256SUMS",
            "checkpoints",
            "config.yaml",
            "environment.json",
            "metrics.jsonl",
            "model",
            "skipped.jsonl",
            "splits.json",
            "splits.key",
        }
        assert {path.name for path in (run / "model").iterdir()} == {
            "README.md",
            "config.json",
            "model.safetensors",
            "preprocessing.json",
            "prompts.json",
            "SHA256SUMS",
            "tokenizer.json",
            "tokenizer_config.json",
            "weights.json",
        }
        environment = json.loads((run / "environment.json").read_text())
        assert environment["seed"] == 0
        assert set(environment["versions"]) >= {"torch", "monai", "transformers", "medvl"}
        assert sum(environment["studies"].values()) == 24
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert {"loss", "contrastive", "val_loss", "lr", "logit_scale"} <= set(lines[0])

    def test_the_written_configuration_runs_as_a_bundle_with_the_same_weights(self, trained, tmp_path):
        _, run = trained
        command = [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            run / "config.yaml",
            "--output",
            tmp_path / "again",
        ]
        run_forked(list(map(str, command)), check=True, capture_output=True)
        first, second = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "again"))
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_a_folder_in_use_is_not_overwritten(self, medvl, trained):
        table, run = trained
        code, _, err = medvl("train", "convirt", "--data", table, "--output", run, *SMALL, *columns())
        assert code == 2
        assert "already holds a run; continue it (--resume) or choose another folder" in err
        code, _, err = medvl(
            "train",
            "convirt",
            "--data",
            table,
            "--output",
            run,
            "--resume",
            "--epochs",
            2,
            *SMALL,
            *columns(),
            "--seed",
            3,
        )
        assert code == 2
        assert "seed is 3 but was 0 in the run at" in err

    def test_a_refused_run_writes_nothing(self, medvl, tmp_path):
        (tmp_path / "config.yaml").write_text("seed: 0\n")
        code, _, err = medvl("train", "convirt", "--data", "synthetic", "--output", tmp_path, *SMALL)
        assert code == 2
        assert "already holds a run" in err
        assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]

    def test_resuming_a_finished_run_changes_nothing(self, medvl, trained):
        table, run = trained
        before = (run / "model" / "model.safetensors").read_bytes()
        code, _, err = medvl(
            "train", "convirt", "--data", table, "--output", run, "--resume", "--epochs", 2, *SMALL, *columns()
        )
        assert code == 0, err
        assert (run / "model" / "model.safetensors").read_bytes() == before
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

    def test_killed_at_any_moment_and_resumed_ends_with_the_same_weights(self, tmp_path):
        table = write_table(tmp_path / "data", 40)
        common = [
            "train",
            "convirt",
            "--data",
            table,
            "--epochs",
            6,
            "--image-size",
            64,
            "--batch-size",
            4,
            "--set",
            "progress=false",
        ]

        def run(output, killed_at, *more):
            command = [sys.executable, "-c", KILLED_AT, killed_at, *common, *columns(), "--output", tmp_path / output]
            return run_forked(list(map(str, [*command, *more])), capture_output=True, text=True)

        done = run("whole", 0)
        assert done.returncode == 0, done.stderr
        for iteration in (13, 31):  # in the middle of an epoch of seven steps
            done = run("broken", iteration, "--resume")
            assert done.returncode == -signal.SIGKILL, done.stderr
            assert not (tmp_path / "broken" / "model").exists()
        done = run("broken", 0, "--resume")
        assert done.returncode == 0, done.stderr
        first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken"))
        assert set(first) == set(second)
        assert all(np.array_equal(first[name], second[name]) for name in first)
        epochs = [
            json.loads(line)["epoch"] for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
        ]
        assert epochs == [1, 2, 3, 4, 5, 6]

    def test_bad_studies_are_skipped_and_counted(self, medvl, tmp_path):
        from medvl.data import read_manifest

        table = write_table(tmp_path)
        manifest = read_manifest(table, report_column="text", patient_column="patient").assign_splits()
        truncated, missing = (study["study_id"] for study in manifest.subset("train").studies[:2])
        arguments = ["train", "convirt", "--data", table, "--epochs", 1, *SMALL, *columns()]
        whole = (tmp_path / truncated).read_bytes()
        (tmp_path / truncated).write_bytes(whole[:60])
        code, _, err = medvl(*arguments, "--output", tmp_path / "a")
        assert code == 2
        assert f"Error: study '{truncated}', image: " in err
        (tmp_path / missing).unlink()
        code, _, err = medvl(*arguments, "--output", tmp_path / "b")
        assert code == 2
        row = f"row {int(missing[:-4]) + 1}"
        assert f"{row} (line {int(missing[:-4]) + 2}): the file {missing} does not exist" in err
        code, _, err = medvl(*arguments, "--output", tmp_path / "c", "--on-error", "skip")
        assert code == 0, err
        skipped = [json.loads(line) for line in (tmp_path / "c" / "skipped.jsonl").read_text().splitlines()]
        assert {line["study_id"] for line in skipped} == {truncated, row}
        assert "2 studies were skipped for an error" in err

    def test_a_run_that_breaks_says_why_once(self, medvl, tmp_path, caplog):
        table = write_table(tmp_path)
        broken = ["--set", "learning_rate=1e30", "--set", "warmup_fraction=0"]
        code, _, err = medvl(
            "train", "convirt", "--data", table, "--output", tmp_path / "a", *SMALL, *columns(), *broken
        )
        assert code == 2
        assert err.splitlines()[-1].startswith("Error: the loss is nan in epoch 1, iteration ")
        assert err.count("the loss is") == 1
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


class TestEvaluate:
    def test_table_json_and_report(self, medvl, trained, tmp_path):
        _, run = trained
        code, out, err = medvl("evaluate", run, "--split", "all", "--output", tmp_path)
        assert code == 0, err
        assert "Macro" in out
        assert "Image to report" in out
        assert "R@10" in out
        figures = json.loads((tmp_path / "evaluation.json").read_text())
        assert {"zero_shot", "retrieval", "linear_probe", "untrained"} <= set(figures)
        assert set(figures["zero_shot"]["findings"]) == set(FINDINGS)
        assert len(figures["zero_shot"]["macro"]["auroc"]["interval"]) == 2
        assert {"recall_at_10", "median_rank", "chance"} <= set(figures["retrieval"]["image_to_text"])
        assert (tmp_path / "evaluation.csv").read_text().startswith("protocol,table,row,column,value,low,high")
        assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")

    def test_other_protocols_keep_the_first_ones_results(self, medvl, trained, tmp_path):
        arguments = ["evaluate", trained[1], "--split", "all", "--output", tmp_path, "--protocol"]

        def files():
            content = json.loads((tmp_path / "evaluation.json").read_text())
            with (tmp_path / "evaluation.csv").open(newline="") as file:
                return content, list(csv.DictReader(file))

        assert medvl(*arguments, "retrieval", "zero-shot")[0] == 0
        (first, first_rows), first_report = files(), (tmp_path / "report.html").read_text()
        assert medvl(*arguments, "knn")[0] == 0
        second, rows = files()
        assert list(second["untrained"]) == ["zero_shot", "retrieval", "knn"]
        for key in ("zero_shot", "retrieval"):
            assert (second[key], second["untrained"][key]) == (first[key], first["untrained"][key])
        assert rows[: len(first_rows)] == first_rows
        assert {row["protocol"] for row in rows[len(first_rows) :]} == {"knn"}
        assert (tmp_path / "report-1.html").read_text() == first_report
        assert "zero_shot, retrieval: figures in report-1.html" in (tmp_path / "report.html").read_text()
        assert medvl(*arguments, "retrieval", "knn", "zero-shot")[0] == 0
        again, rows = files()
        assert again == {key: second[key] for key in again}
        assert len(rows) == len({(row["protocol"], row["table"], row["row"], row["column"]) for row in rows})
        assert not (tmp_path / "report-2.html").exists()

    def test_results_of_other_studies_are_not_mixed(self, medvl, trained, tmp_path):
        arguments = ["evaluate", trained[1], "--output", tmp_path, "--protocol", "retrieval"]
        assert medvl(*arguments, "--split", "all")[0] == 0
        before = {name: (tmp_path / name).read_text() for name in ("evaluation.json", "evaluation.csv", "report.html")}
        code, _, err = medvl(*arguments, "--split", "train")
        assert code == 0
        assert "kept as evaluation-1.json, evaluation-1.csv, report-1.html." in err
        assert {name: (tmp_path / name.replace(".", "-1.")).read_text() for name in before} == before
        content = json.loads((tmp_path / "evaluation.json").read_text())
        assert content["evaluated_on"]["studies"] < 24
        (tmp_path / "evaluation.json").write_text("{")
        assert medvl(*arguments, "--split", "train")[0] == 0
        assert (tmp_path / "evaluation-2.json").read_text() == "{"

    @pytest.mark.parametrize("command", ["evaluate", "embed", "audit", "train"])
    def test_unwritable_output_is_noticed_before_the_work(self, medvl, trained, tmp_path, monkeypatch, command):
        from torch import nn

        def work(*_, **__):
            raise AssertionError("the work has begun")

        monkeypatch.setattr(nn.Module, "__call__", work)
        monkeypatch.setattr(Image, "open", work)
        table, run = trained
        (tmp_path / "file").write_text("")
        output = tmp_path / "file" / "folder" / "e.npz"
        first = {"audit": ["--data", table, *columns()], "train": ["convirt", "--data", table, *columns()]}
        code, _, err = medvl(command, *first.get(command, [run]), "--output", output)
        assert code == 2
        assert err.strip().splitlines()[-1].endswith(f"cannot be written: {tmp_path / 'file'} is not a folder.")
        if command == "embed":
            code, _, err = medvl("embed", run, "--output", tmp_path / "e.txt")
            assert (
                err
                == "Error: the file of embeddings must end in .npz, .csv, .parquet or have no suffix (a folder), got e.txt.\n"
            )
            (tmp_path / "e.npz").mkdir()
            code, _, err = medvl("embed", run, "--output", tmp_path / "e.npz")
            assert err == f"Error: {tmp_path / 'e.npz'} cannot be written: it is a folder.\n"
            monkeypatch.setitem(sys.modules, "pyarrow", None)
            code, _, err = medvl("embed", run, "--output", tmp_path / "e.parquet")
            assert err == 'Error: Writing e.parquet needs pyarrow: pip install "medvl[tables]"\n'

    @pytest.mark.usefixtures("default_signals")
    def test_ctrl_c_says_how_to_go_on_and_leaves_nothing(self, medvl, tmp_path, monkeypatch):
        from medvl.evaluation import LeakAudit

        def stop(*_, **__):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        monkeypatch.setattr(LeakAudit, "table", stop)
        table = write_table(tmp_path / "data")
        code, _, err = medvl("audit", "--data", table, *columns(), "--output", tmp_path / "new")
        assert code == 130
        assert err.splitlines()[-1] == "Stopped by SIGINT. Nothing is left half written; give the same command again."
        assert not (tmp_path / "new").exists()

    def test_words_of_few_patients_in_a_vocabulary_are_counted_and_listed(self, medvl, tmp_path):
        table = write_table(tmp_path / "data")
        lines = table.read_text().splitlines()
        for number in range(1, 5):  # of which one at least is for training
            text = lines[number].split('"')[1]
            lines[number] = lines[number].replace(text, "Effusion seen by Zyxwquist.")
        table.write_text("\n".join(lines))
        from medvl.transforms import train_tokenizer

        tokenizer = train_tokenizer(["Effusion seen by Zyxwquist."] * 20, min_patients=1)
        tokenizer.save_pretrained(tmp_path / "run" / "model")
        options = ["audit", "--data", table, *columns(), "--batch-size", "8", "--output", tmp_path / "audit"]
        code, out, err = medvl(*options, "--tokenizer", tmp_path / "run")
        assert code == 0, err
        listed = (tmp_path / "audit" / "rare_tokens.csv").read_text().splitlines()
        assert listed[0] == "token,patients"
        assert any(re.fullmatch("zyxwquist,[1-4]", line) for line in listed)
        assert f"{len(listed) - 1} are of words in the reports of fewer than 5 patients" in out
        assert "zyxwquist" not in out + err
        code, out, err = medvl(*options, "--tokenizer", tmp_path / "run", "--min-word-patients", "1")
        assert ", 0 are of words in the reports of fewer than 1 patients" in out
        code, out, err = medvl(*options, "--tokenizer", tmp_path / "nowhere")
        assert code != 0
        assert f"there is no folder {tmp_path / 'nowhere'}." in err

    def test_splits_are_those_of_the_training(self, trained):
        from medvl.workflows import TrainedRun

        run = TrainedRun(trained[1])
        patients = {
            s: {study["patient_id"] for study in run.studies(split=s).studies} for s in ("train", "val", "test")
        }
        assert {s: len(ids) for s, ids in patients.items()} == run.environment["studies"]
        assert len(set.union(*patients.values())) == 24

    def test_untrained_differs_and_is_seeded(self, trained):
        from medvl.workflows import TrainedRun

        run = TrainedRun(trained[1])
        a, b, c = run.model.state_dict(), run.reinitialized_model().state_dict(), run.reinitialized_model().state_dict()
        assert any(not np.array_equal(a[k], b[k]) for k in a)
        assert all(np.array_equal(b[k], c[k]) for k in b)

    def test_a_run_of_an_earlier_version_is_named(self, medvl, trained, tmp_path):
        run = shutil.copytree(trained[1], tmp_path / "run")
        environment = json.loads((run / "environment.json").read_text())
        del environment["tables_sha256"]
        (run / "environment.json").write_text(json.dumps(environment))
        (run / "SHA256SUMS").unlink()
        code, _, err = medvl("evaluate", run)
        assert code == 2
        assert err.startswith(
            f"Error: {run / 'environment.json'} holds no tables_sha256: the run was trained by an earlier"
        )

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("config.yaml", "config.yaml is damaged: its content is not what was saved."),
            ("environment.json", "environment.json is damaged: its content is not what was saved."),
            ("model/prompts.json", "model cannot be loaded: "),
            ("model/config.json", "model cannot be loaded: "),
            ("model/model.safetensors", "model cannot be loaded: "),
        ],
    )
    def test_a_damaged_file_is_named(self, medvl, trained, tmp_path, name, said):
        run = shutil.copytree(trained[1], tmp_path / "run")
        (run / name).write_bytes(b"")
        code, _, err = medvl("evaluate", run, "--split", "all", "--protocol", "zero-shot")
        assert code == 2
        assert err.splitlines()[-1].startswith(f"Error: {run / said}")
        assert name in err.splitlines()[-1]

    def test_unfinished_run(self, medvl, tmp_path):
        code, _, err = medvl("evaluate", tmp_path)
        assert (code, err) == (2, f"Error: {tmp_path} holds no trained model: no run.\n")
        (tmp_path / "config.yaml").write_text("{}")
        code, _, err = medvl("evaluate", tmp_path)
        assert "is not finished; continue it by --resume" in err


def test_a_run_finds_its_data_from_any_folder(medvl, tmp_path, monkeypatch):
    write_table(tmp_path / "#1 of 2", 24)
    monkeypatch.chdir(tmp_path)
    arguments = ["--epochs", "1", *SMALL, *columns()]
    code, _, err = medvl("train", "convirt", "--data", "#1 of 2/cases.csv", "--output", "run", *arguments)
    assert code == 0, err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    code, out, err = medvl("embed", "../run", "--output", "e.npz")
    assert code == 0, err
    assert "24 studies in" in out
    code, _, err = medvl("train", "../run/config.yaml", "--output", "again")
    assert code == 0, err
    source = ["--source", "image-text=../#1 of 2/cases.csv", "--source", "text-label=../#1 of 2/cases.csv"]
    code, _, err = medvl("train", "medclip", *source, "--output", "mixed", *arguments)
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    code, out, err = medvl("embed", "elsewhere/mixed", "--output", "e.npz")
    assert code == 0, err


def test_weights_have_the_mode_of_the_other_files(trained):
    model = trained[1] / "model"
    assert {path.stat().st_mode for path in model.iterdir()} == {(model / "config.json").stat().st_mode}


def test_embed(medvl, trained, tmp_path):
    code, out, err = medvl("embed", trained[1], "--output", tmp_path / "e.npz")
    assert code == 0, err
    assert "24 studies in" in out
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["image_embeds"].shape == arrays["text_embeds"].shape == (24, 16)
        np.testing.assert_allclose(np.linalg.norm(arrays["image_embeds"], axis=1), 1, rtol=1e-5)
        assert sorted(arrays["study_id"]) == sorted(f"{i}.png" for i in range(24))
        assert arrays["label"].shape == (24, 4)
        assert arrays["findings"].tolist() == FINDINGS
        splits = dict(zip(arrays["study_id"].tolist(), arrays["split"].tolist(), strict=True))
        images = arrays["image_embeds"]
    recorded = json.loads((trained[1] / "environment.json").read_text())["studies"]
    assert {split: list(splits.values()).count(split) for split in recorded} == recorded
    code, _, err = medvl("embed", trained[1], "--split", "val", "--output", tmp_path / "e.csv")
    assert code == 0, err
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["study_id"] for row in rows} == {study for study, split in splits.items() if split == "val"}
    place = list(splits).index(rows[0]["study_id"])
    assert [float(rows[0][f"image_embeds_{number}"]) for number in range(16)] == pytest.approx(images[place], abs=1e-6)


def test_images_alone_are_embedded_but_give_nothing_to_evaluate(medvl, trained, tmp_path):
    table, run = trained
    images = table.with_name("images.csv")
    images.write_text("image\n0.png\n1.png\n")
    code, out, err = medvl("embed", run, "--data", images, "--output", tmp_path / "e.npz")
    assert code == 0, err
    assert "2 studies in" in out
    with np.load(tmp_path / "e.npz") as arrays:
        np.testing.assert_allclose(np.linalg.norm(arrays["image_embeds"], axis=1), 1, rtol=1e-5)
    code, _, err = medvl("evaluate", run, "--data", images, "--split", "all")
    assert code == 2
    assert err == (
        "images.csv: 2 studies without a patient are split by study, so that a patient may be in two splits; if it has "
        "patients, name their column.\nError: images.csv has neither labels nor reports to evaluate on; name their columns.\n"
    )
    code, _, err = medvl("embed", run, "--data", images, "--report-column", "text")
    assert code == 2
    assert "--report-column: images.csv has no column 'text'" in err


class TestLabel:
    def test_counts_of_one_agree_with_their_words(self, medvl, tmp_path):
        (tmp_path / "one.csv").write_text("report\nINDICATION: Cough. FINDINGS: Kein Pneumothorax. No effusion.\n")
        code, out, err = medvl("label", tmp_path / "one.csv", "--output", tmp_path / "out.csv")
        assert (code, out.splitlines()) == (
            0,
            [
                f"1 report, 0 of them empty; 1 row in {tmp_path / 'out.csv'}.",
                "1 sentence without a state in sections such as the indication.",
                "1 report has sentences in another language, which get no state.",
            ],
        ), err

    def test_states_and_what_decided_them(self, medvl, tmp_path):
        table = write_table(tmp_path, 4)
        code, out, err = medvl("label", table, "--report-column", "text", "--output", tmp_path / "out.csv", "--explain")
        assert code == 0, err
        assert "4 reports, 0 of them empty; 4 rows in" in out
        with (tmp_path / "out.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["Cardiomegaly"] for row in rows] == ["1", "", "0", ""]
        assert [row["Pleural Effusion"] for row in rows] == ["0", "1", "", ""]
        assert rows[0]["Pleural Effusion cue"] == "No"

    def test_unknown_column(self, medvl, tmp_path):
        code, _, err = medvl(
            "label", write_table(tmp_path, 4), "--report-column", "txt", "--output", tmp_path / "out.csv"
        )
        assert code == 2
        assert err.splitlines()[-1].startswith(
            "Error: --report-column: cases.csv has no column 'txt' (did you mean 'text'?)"
        )
        assert not (tmp_path / "out.csv").exists()

    def test_a_table_with_none_of_the_columns_says_which_it_has_and_the_options(self, medvl, tmp_path):
        (tmp_path / "scans.csv").write_text("scan,impression\na.png,Clear lungs.\n")
        code, _, err = medvl("audit", "--data", tmp_path / "scans.csv")
        assert code == 2
        assert err.splitlines()[-1] == (
            "Error: --image-column or --report-column must name a column of scans.csv, got None for both; "
            "its columns are scan, impression."
        )


class TestErrors:
    """Each is one sentence, exit code 2, and no traceback."""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (
                ["train", "convrt", "--data", "x.csv"],
                "recipe must be one of convirt, medclip, medvl, mlip, umcl, or a YAML file, got 'convrt'.",
            ),
            (["train", "convirt"], "--data is needed"),
            (["audit"], "--data is needed"),
            (["train", "convirt", "--data", "nowhere.csv"], "nowhere.csv"),
            (["train", "convirt", "--data", "TABLE", "--report-column", "txt"], "'txt'"),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "lerning_rate=1"],
                "did you mean 'learning_rate'?",
            ),
            (["train", "convirt", "--data", "TABLE", "--set", "epochs"], "--set must be KEY=VALUE, got 'epochs'."),
            (
                ["train", "convirt", "--data", "TABLE", "--device", "tpu"],
                "--device must be cpu or cuda, got 'tpu'.",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--on-error", "ignore"],
                "--on-error must be raise or skip, got 'ignore'.",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "learning_rate=fast"],
                "learning_rate must be a number, as 0.0005, got 'fast'.",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "epochs=2.5"],
                "epochs must be an integer, as 50, got 2.5.",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "batch_size=null"],
                "batch_size must be a number, got null.",
            ),
            (
                ["train", "medclip", "--source", "image-label=TABLE", "--label-column", "fnding"],
                "--label-column: there is no column 'fnding' in cases.csv",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "progress=1"],
                "progress must be true or false, got 1.",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--set", "text_encoder=bert"],
                "a tokenizer is read from a local folder (nothing is downloaded), there is no folder bert",
            ),
            (
                ["train", "convirt", "--data", "TABLE", "--report-column", "text", "--output", "TABLE"],
                "cases.csv is not a folder.",
            ),
            (
                ["train", "medclip", "--source", "image-label=foo:somewhere"],
                "siim, vindr-cxr before the colon, got 'foo:somewhere'.",
            ),
            (["embed", "nowhere"], "nowhere holds no trained model"),
        ],
    )
    def test_one_sentence(self, medvl, tmp_path, monkeypatch, arguments, sentence):
        monkeypatch.chdir(tmp_path)
        table = write_table(tmp_path, 4)
        code, _, err = medvl(*[a.replace("TABLE", str(table)) for a in arguments])
        assert code == 2
        lines = err.strip().splitlines()
        assert lines[-1].startswith("Error: ")
        assert sentence in lines[-1]
        assert "Traceback" not in err

    def test_wrong_usage_is_typers(self, medvl):
        code, _, err = medvl("evaluate")
        assert code == 2
        assert "Missing argument" in err

    def test_label_of_the_wrong_width_names_row_and_column(self, medvl, tmp_path):
        table = write_table(tmp_path, 4)
        lines = table.read_text().splitlines()
        rows = [
            line.rsplit(",", 2)[0] + f",{label},p"
            for line, label in zip(lines[1:], ["1;0", "0;1", "1;0;1", "0;0"], strict=True)
        ]
        table.write_text("\n".join([lines[0], *rows]) + "\n")
        code, _, err = medvl("train", "convirt", "--data", table, *columns(), "--output", tmp_path / "run")
        assert code == 2
        assert "row 3" in err
        assert "finding" in err

    def test_debug_shows_the_traceback(self, medvl):
        with pytest.raises(ValueError, match="recipe must be one of"):
            medvl("train", "convrt", "--data", "x.csv", "--debug")


def test_version(medvl):
    assert medvl("--version") == (0, f"medvl {version('medvl')}\n", "")


def test_help_teaches():
    out = subprocess.run([sys.executable, "-m", "medvl", "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("demo", "train", "config", "evaluate", "compare", "embed", "label", "audit"):
        assert command in out


@pytest.mark.parametrize(("terminal", "interval"), [(True, None), (False, "10")])
def test_a_log_gets_the_progress_every_ten_seconds(monkeypatch, terminal, interval):
    from medvl import __main__ as command

    monkeypatch.setenv("TQDM_MININTERVAL", "")  # restored at the end
    monkeypatch.delenv("TQDM_MININTERVAL")
    monkeypatch.setattr("medvl.cli.main", lambda: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    command.main()
    assert os.environ.get("TQDM_MININTERVAL") == interval
