"""Identifiers that stand in reports are in no file of a run, but in the page that shows the reports."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

PLANTS = [
    "Zyxwquist", "JONQUIL-VEXLEY", "Žižkovský", "48213759", "MRN-7719-40382", "(0471) 5550193", "03.11.1947",
    "1947-11-03", "qz.vexley@kormail.zz", "#XK99-20317",
]  # fmt: skip
FINDINGS = ("Small left pleural effusion.", "The heart is enlarged.", "No acute disease.", "Possible pneumonia, 12 mm.")
SMALL = ["--epochs", 1, "--batch-size", 6, "--image-size", 32, "--seed", 0]
SMALL += [part for value in ("embed_dim=8", "vocab_size=400", "progress=false") for part in ("--set", value)]


def plain(text: str) -> str:
    """Lower case without accents, as the tokenizer writes it."""
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))


def pieces(plant: str, length: int) -> set[bytes]:
    """A plant and its pieces, with and without accents and what stands between them, as text and as NumPy has it."""
    texts = set()
    for written in (plain(plant), plant.lower()):
        words = ["".join(c for c in written if c.isalnum()), *re.split(r"\W+", written)]
        texts |= {written, *(word[i : i + length] for word in words for i in range(len(word) - length + 1))}
    texts = {text for text in texts if len(text) > 6 or not text.isdigit()}  # as short numbers have them by chance
    return {text.encode(encoding) for text in texts for encoding in ("utf-8", "utf-16-le", "utf-32-le")}


def contents(path: Path):
    """The bytes of a file, and where it is an archive of each of its members."""
    data = path.read_bytes()
    yield re.sub(rb"base64,[\w+/=]+", b"", data) if path.suffix == ".html" else data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def found(path: Path) -> set[str]:
    """The plants of which a file has something."""
    length = 6 if path.suffix in (".pt", ".safetensors", ".npz") else 5
    parts = [part.lower() for part in contents(path)]
    return {plant for plant in PLANTS if any(piece in part for piece in pieces(plant, length) for part in parts)}


def write_table(folder: Path) -> Path:
    rows = [["image", "report", "patient_id", "study_id", "Edema", "Cardiomegaly"]]
    for i in range(36):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        plant = PLANTS[i % len(PLANTS)] if i < 30 else ""
        report = (
            f"{plant}. {FINDINGS[i % 4]} Seen by Dr. {plant}: {FINDINGS[(i + 1) % 4]} Also {plant}, pleural effusion."
        )
        rows.append([f"{i}.png", report, f"a{i}", f"b{i}", i % 2, (i + 1) % 2])
    rows.append(["gone.png", f"Edema. {PLANTS[0]}", "a90", "b90", 1, 0])
    rows.append([f"{PLANTS[1]} has edema, {PLANTS[2]}.", "x", "a91", "b91", 1, 0])  # a report in the wrong column
    rows.append(["0.png", "Edema.", "a92", "b92", f"{PLANTS[3]} {PLANTS[0]}", 0])
    path = folder / "cases.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module", params=["convirt", "medclip"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, write_table(folder), folder / "run"


COLUMNS = ["--label-column", "Edema", "--label-column", "Cardiomegaly", "--on-error", "skip"]


def train(recipe: str, table: Path, folder: Path) -> list:
    return ["train", recipe, "--data", table, "--output", folder, *SMALL, *COLUMNS, "--set", "tensorboard=true",
            "--set", "keep=best"]  # fmt: skip


def test_a_run_gives_no_identifier_away(medvl, run, tmp_path):
    recipe, table, folder = run
    said = []
    columns = COLUMNS
    commands = [
        train(recipe, table, folder),
        ["evaluate", folder, "--split", "all", "--no-text", "--on-error", "skip"],
        ["embed", folder, "--output", folder / "embeddings.npz", "--on-error", "skip"],
        ["audit", "--data", table, "--output", folder / "audit", "--batch-size", 8, *columns],
        ["evaluate", folder, "--split", "all", "--output", tmp_path / "shown", "--on-error", "skip"],
    ]  # fmt: skip
    for command in commands:
        code, out, err = medvl(*command)
        assert code == 0, err
        said.append(out + err)
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).parts[0] for path in files}
    assert names >= {"config.yaml", "environment.json", "splits.json", "metrics.jsonl", "skipped.jsonl", "tensorboard",
                     "checkpoints", "model", "evaluation.json", "report.html", "embeddings.npz", "audit"}  # fmt: skip
    assert {path.name: found(path) for path in files if found(path)} == {}
    assert "It was written without the text of reports" in (folder / "report.html").read_text()
    assert len((folder / "skipped.jsonl").read_text().splitlines()) == 3
    assert [plant for plant in PLANTS if plain(plant) in plain("".join(said))] == []

    shown = {path.name: found(path) for path in (tmp_path / "shown").iterdir()}
    assert len(shown.pop("report.html")) >= 3  # what the search would find
    assert not any(shown.values())
    page = (tmp_path / "shown" / "report.html").read_text()
    assert "the text of reports: keep it as you keep those" in page


def test_later_commands_give_no_identifier_away(medvl, run, tmp_path):
    """predict, explain, compare, card, pack, embed, nearest, and the table that label adds nothing of reports to."""
    recipe, table, folder = run
    if recipe != "convirt":
        pytest.skip("one recipe is enough: the commands do not depend on it")
    if not (folder / "model").is_dir():
        assert medvl(*train(recipe, table, folder))[0] == 0
    out, images = tmp_path / "out", [table.parent / "0.png", table.parent / "1.png"]
    reports = tmp_path / "reports.csv"
    with table.open(encoding="utf-8") as rows, reports.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(row[:4] for row in csv.reader(rows))
    commands = [
        ["predict", folder, *images, "--output", out / "scores.csv"],
        ["predict", folder, "--data", table, *COLUMNS, "--output", out / "scores.json"],
        ["explain", folder, images[0], "--text", "Edema.", "--output", out / "maps.svg"],
        ["compare", folder, folder, "--split", "all", "--no-text", "--output", out / "compared", "--on-error", "skip"],
        ["embed", folder, "--output", out / "embeddings.csv", "--on-error", "skip"],
        ["embed", folder, "--output", out / "embeddings.parquet", "--on-error", "skip"],
        ["embed", folder, "--output", out / "stored", "--on-error", "skip"],
        ["nearest", out / "stored", "--output", out / "nearest.csv", "--count", 2],
        ["card", folder],
        ["pack", "--data", table, "--output", out / "packed", *COLUMNS, "--image-size", 16, "--shard-size", 9],
        ["pack", "--verify", out / "packed"],
        ["label", reports, "--output", out / "labels.csv", "--explain"],
        ["compare", folder, folder, "--split", "all", "--output", tmp_path / "shown", "--on-error", "skip"],
    ]  # fmt: skip
    said = []
    for command in commands:
        code, stdout, err = medvl(*command)
        assert code == 0, (command, err)
        said.append(stdout + err)
    holders = {"labels.csv", "studies.jsonl"}  # the table itself, with its reports
    packed = {path.name for path in (out / "packed").glob("shard-*.tar")}
    leaks = {str(path.relative_to(out)): found(path) for path in out.rglob("*") if path.is_file() and found(path)}
    assert {Path(name).name for name in leaks} == holders | packed
    assert {
        name: found(path) for path in folder.rglob("*") if path.is_file() and found(path) for name in [path.name]
    } == {}
    assert "It was written without the text of reports" in (out / "compared" / "comparison.html").read_text()
    assert [plant for plant in PLANTS if plain(plant) in plain("".join(said))] == []
    assert found(tmp_path / "shown" / "comparison.html")  # what the search would find
    assert not found(tmp_path / "shown" / "comparison.json")
