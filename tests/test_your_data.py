"""Every command and snippet of "Your data in three lines" runs as it stands, on files as the page describes them."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import public_layouts
import pytest
from PIL import Image

from medvl.data import public_datasets
from medvl.data.public.registry import parse_public_location
from medvl.evaluation.benchmarks import BENCHMARKS
from medvl.evaluation.case_selection import CHEXPERT_COMPETITION_FINDINGS

PAGE = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text()
TINY = [
    "--epochs",
    "1",
    "--image-size",
    "32",
    "--set",
    "embed_dim=8",
    "--set",
    "vocab_size=200",
    "--set",
    "progress=false",
]
TEXTS = ("The heart is enlarged. No edema.", "Lungs are clear.", "Pulmonary edema. No fracture.", "Rib fracture.")


def commands(section: str) -> list[str]:
    text = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1]
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines]


def save_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (36, 32), dtype=np.uint8)).save(path)


def run(medvl, section: str) -> list[str]:
    outputs = []
    for line in commands(section):
        arguments = shlex.split(line)
        assert arguments[0] == "medvl", line
        code, out, err = medvl(*arguments[1:], *(TINY if arguments[1] == "train" else ()))
        assert code == 0, f"{line}: {err}"
        outputs.append(out + err)
    return outputs


@pytest.fixture
def cases(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"image": f"{i}.png", "report": TEXTS[i % 4], "patient_id": f"p{i}"} for i in range(72)]
    for i, row in enumerate(rows):
        save_image(Path(row["image"]), i)
    frame = pandas.DataFrame(rows)
    frame.to_csv("cases.csv", index=False)
    frame.to_csv("cases.csv.gz", index=False)
    frame.to_excel("cases.xlsx", index=False)
    frame.to_parquet("cases.parquet")
    frame[["patient_id", "report"]].to_csv("reports.csv", index=False)
    frame[["patient_id", "report"]].to_csv("reports.csv.gz", index=False)


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, labels = [], []
    for i in range(36):
        split = ("train", "train", "valid", "test")[i % 4]
        save_image(Path("scans", split, f"a_{i}.png"), i)
        rows.append(
            {"split": split, "VolumeName": f"a_{i}", "Findings_EN": TEXTS[i // 4 % 4], "Impressions_EN": f"Case {i}."}
        )
        labels.append({"VolumeName": f"a_{i}", "Edema": i // 4 % 2, "Fracture": ""})
    pandas.DataFrame(rows).to_csv("volumes.csv", index=False)
    pandas.DataFrame(labels[:-1]).to_csv("labels.csv", index=False)


@pytest.mark.usefixtures("cases")
def test_a_table_of_images_and_reports(medvl):
    outputs = run(medvl, "A table of images and reports")
    assert len(outputs) == 6
    columns, figures = zip(*(outputs[i].split("Leaks:")[0].split("\n\n", 1) for i in (0, 3, 4)), strict=True)
    assert figures[0] == figures[1] == figures[2]
    read = [text.splitlines()[2].split() for text in columns]
    assert [row[0] for row in read] == ["cases.csv", "cases.xlsx", "cases.parquet"]
    assert [row[1:] for row in read] == 3 * [["image", "report", "none", "patient_id", "none", "none"]]


@pytest.mark.usefixtures("volumes")
def test_images_elsewhere_are_evaluated_by_the_options_of_the_training(medvl, tmp_path, monkeypatch):
    trained, evaluated = run(medvl, "Images elsewhere, reports and labels in two tables")
    assert "volumes.csv: 36 rows: 36 with an image, 0 without; 36 with a report, 0 without; 35 with a label" in trained
    assert "1 row has no row in labels.csv." in trained
    results = json.loads(Path("runs/volumes/evaluation.json").read_text())
    assert set(results["zero_shot"]["findings"]) == {"Edema"}  # Fracture is blank everywhere
    assert "Edema" in evaluated
    monkeypatch.chdir("/")
    code, _, err = medvl(
        "evaluate", tmp_path / "runs/volumes", "--protocol", "retrieval", "--data", tmp_path / "volumes.csv"
    )
    assert code == 0, err


def test_a_folder_with_metadata(medvl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for i in range(72):
        save_image(Path("folder", f"{i}.png"), i)
        lines.append(json.dumps({"file_name": f"{i}.png", "text": TEXTS[i % 4]}))
    Path("folder", "metadata.jsonl").write_text("\n".join(lines))
    audited, trained = run(medvl, "A folder of images with `metadata.jsonl`")
    assert "72 rows" in audited
    assert "metadata.jsonl: 72 rows: 72 with an image, 0 without; 72 with a report, 0 without" in trained


@pytest.mark.usefixtures("cases")
def test_reports_without_images(medvl):
    first, second, piped = commands("Reports without images")
    for line in (first, second):
        code, _, err = medvl(*shlex.split(line)[1:])
        assert code == 0, err
    command = piped.replace("medvl ", f"{shlex.quote(sys.executable)} -m medvl ")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    frames = [pandas.read_csv("labels.csv.gz"), pandas.read_csv("labels.csv")]
    pandas.testing.assert_frame_equal(*frames)
    parquet = pandas.read_parquet("findings.parquet")["Edema"]
    assert frames[0]["Edema"].fillna(9).tolist() == parquet.fillna(9).tolist()
    with Path("labels.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 73


@pytest.mark.usefixtures("volumes")
def test_python(capsys):
    code = re.search(r"^## In Python\n\n```python\n(.*?)^```$", PAGE, re.M | re.S)[1]
    exec(code, {})
    assert capsys.readouterr().out.endswith("1 row has no row in labels.csv.\n")


FOLDERS = {
    "CheXpert-v1.0-small": public_layouts.chexpert,
    "mimic-cxr-jpg": public_layouts.mimic_cxr,
    "NLMCXR": public_layouts.openi_tables,
    "ChestX-ray14": public_layouts.nih,
    "vindr-cxr": public_layouts.vindr_cxr,
    "rsna-pneumonia": public_layouts.rsna,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_public_data_sets_and_benchmarks(medvl, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, write in FOLDERS.items():
        write(tmp_path / name)
    alone = [{finding: "1.0"} for finding in CHEXPERT_COMPETITION_FINDINGS for _ in range(14)]
    public_layouts.chexpert(tmp_path / "CheXpert-v1.0-small", labels=alone)
    outputs = run(medvl, "Public data sets as they are published")
    assert "mimic-cxr:mimic-cxr-jpg: 12 rows: 12 with an image, 0 without; 12 with a report" in outputs[1]
    outputs = run(medvl, "The field's evaluation sets")
    assert "Single-label zero-shot" in outputs[0]
    text = re.search(r"^## Public data sets as they are published$(.*?)^## ", PAGE, re.M | re.S)[1]
    exec(re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)[1], {})
    assert capsys.readouterr().out.startswith("vindr-cxr:vindr-cxr: 24 rows: 24 with an image")


def test_every_public_data_set_is_in_the_table_and_its_line_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, dataset in public_datasets().items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {dataset.title} |"))
        assert dataset.license in row
        assert dataset.url in row
        location = parse_public_location(re.search(r"`--data (\S+)`", row)[1])
        assert location.name == name
        public_layouts.WRITERS[name](tmp_path / location.path)
        if "images" in location.options:
            (tmp_path / location.path / "files").rename(tmp_path / "mimic-files")
            (tmp_path / location.options["images"]).mkdir(exist_ok=True)
            (tmp_path / "mimic-files").rename(tmp_path / location.options["images"] / "files")
        assert len(location.read()) > 0
        shutil.rmtree(tmp_path / location.path)
        for place in location.options.values():
            shutil.rmtree(tmp_path / str(place), ignore_errors=True)
    for benchmark in BENCHMARKS.values():
        assert f"| `{benchmark.name}` | {benchmark.rule} |" in PAGE
