"""A table is recognized by its studies after its bytes changed, and no figure is silently one of the training."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvl.data import read_manifest
from medvl.utils.tar_members import TarMember
from medvl.workflows import SplitRecord, TrainedRun, evaluate_run, train

TEXTS = ("The heart is enlarged. No pleural effusion.", "Left pleural effusion.", "Clear lungs. No edema.")
TINY = {"epochs": 1, "batch_size": 4, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False}
NAMES = ("image", "report", "patient_id")


def write(path: Path, rows: list[dict], names=NAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(table: Path) -> list[dict]:
    with table.open() as file:
        return list(csv.DictReader(file))


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 30 studies of 30 patients, and a run on it, read-only."""
    folder = tmp_path_factory.mktemp("splits")
    rows = []
    for i in range(30):
        draw(folder / "data" / f"{i}.png", i)
        rows.append({"image": f"{i}.png", "report": TEXTS[i % 3], "patient_id": f"p{i}"})
    table = write(folder / "data" / "cases.csv", rows)
    train("convirt", {**TINY, "data": str(table), "output": str(folder / "run"), "device": "cpu"})
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the table and its images, that a test may change."""
    return shutil.copytree(folder / "data", tmp_path / "data") / "cases.csv"


@pytest.fixture(scope="module")
def run(folder):
    return TrainedRun(folder / "run")


def images(studies) -> set[str]:
    return {Path(study["image"]).name for study in studies}


def blank_line(table):
    table.write_text(table.read_text() + "\n")


def windows_line_ends(table):
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))


def byte_order_mark(table):
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())


def all_cells_quoted(table):
    with table.open() as file:
        rows = list(csv.reader(file))
    with table.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def other_order(table):
    write(table, read(table)[::-1])


def labels_joined_on(table):
    write(table, [{**row, "finding": "Edema"} for row in read(table)], (*NAMES, "finding"))


def reports_corrected(table):
    write(table, [{**row, "report": row["report"].upper()} for row in read(table)])


def patients_left_out(table):
    write(table, read(table), NAMES[:2])


def patients_named_anew(table):
    write(table, [{**row, "patient_id": f"anonymous {i}"} for i, row in enumerate(read(table))])


def absolute_paths(table):
    write(table, [{**row, "image": str(table.parent / row["image"])} for row in read(table)])


def paths_in_another_spelling(table):
    write(table, [{**row, "image": f"./{row['image']}"} for row in read(table)])


@pytest.mark.parametrize(
    "change",
    [
        blank_line, windows_line_ends, byte_order_mark, all_cells_quoted, other_order, labels_joined_on, reports_corrected,
        patients_left_out, patients_named_anew, absolute_paths, paths_in_another_spelling,
    ],
)  # fmt: skip
def test_a_changed_table_has_the_same_splits(folder, run, copy, change):
    before = {split: images(run.studies(split=split).studies) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in before.items()} == run.environment["studies"]
    changed = folder / "data" / f"{change.__name__}.csv"  # beside the images
    try:
        shutil.copy(copy, changed)
        change(changed)
        assert {split: images(run.studies(changed, split).studies) for split in before} == before
    finally:
        changed.unlink()
    if change is not absolute_paths and change is not paths_in_another_spelling:
        change(copy)  # in another folder, with its images
        assert {split: images(run.studies(copy, split).studies) for split in before} == before


def test_rows_taken_out_and_added_leave_the_others_in_their_splits(run, copy):
    test, training = images(run.studies().studies), images(run.studies(split="train").studies)
    rows = [row for row in read(copy) if row["image"] not in sorted(training)[:11]]
    patient = next(row["patient_id"] for row in rows if row["image"] in training)
    for name, owner in (("new.png", "p99"), ("again.png", patient)):
        draw(copy.parent / name, 99)
        rows.append({"image": name, "report": TEXTS[0], "patient_id": owner})
    write(copy, rows)
    assert images(run.studies(copy).studies) == test | {"new.png"}
    assert "again.png" in images(run.studies(copy, "train").studies), "a new image of a patient of the training"


def test_the_training_studies_alone_are_refused(run, copy):
    training = images(run.studies(split="train").studies)
    write(copy, [row for row in read(copy) if row["image"] in training])
    with pytest.raises(
        ValueError, match=rf"cases\.csv has {len(training)} studies and none in the split test: .* were in train\. "
    ):
        run.studies(copy)
    assert images(run.studies(copy, "all").studies) == training


def test_a_table_of_other_studies_is_taken_whole(run, tmp_path):
    rows = []
    for i in range(5):
        draw(tmp_path / f"other{i}.png", 100 + i)
        rows.append({"image": f"other{i}.png", "report": TEXTS[i % 3], "patient_id": f"q{i}"})
    table = write(tmp_path / "cases.csv", rows)
    assert len(run.studies(table)) == 5
    assert run.training_overlap(run.studies(table).studies) is None


def test_equal_ids_of_other_images_are_asked_about(run, tmp_path):
    rows = []
    for i in range(5):
        draw(tmp_path / f"other{i}.png", 100 + i)
        rows.append({"image": f"other{i}.png", "report": TEXTS[i % 3], "patient_id": f"p{i}"})
    table = write(tmp_path / "cases.csv", rows)
    with pytest.raises(ValueError, match=r"has 5 of its 5 studies in common .* by study or patient id, and no image"):
        run.studies(table)
    studies = run.studies(table, "all").studies
    assert len(studies) == 5
    assert "studies, or their patients, were in the training split" in run.training_overlap(studies)


def test_equal_files_of_other_ids_are_asked_about(run, copy):
    write(copy, [{**row, "image": f"./{row['image']}"} for row in read(copy)], NAMES[:2])
    with pytest.raises(
        ValueError, match=r"has 30 of its 30 studies in common .* by name and size, or content, of the image, and no id"
    ):
        run.studies(copy)


def test_an_explicit_split_is_kept_and_its_overlap_said(run, copy):
    training = images(run.studies(split="train").studies)
    moved = sorted(training)[:3]
    write(
        copy,
        [{**row, "split": "test" if row["image"] in moved else "train"} for row in read(copy)],
        (*NAMES, "split"),
    )
    studies = run.studies(copy).studies
    assert images(studies) == set(moved)
    assert run.training_overlap(studies).startswith("3 of the 3 studies, or their patients, were in the training split")


def test_validation_studies_that_became_test_studies_are_said(run, copy):
    validation = images(run.studies(split="val").studies)
    training = images(run.studies(split="train").studies)
    rows = [
        {**row, "split": "train" if row["image"] in training else "test" if row["image"] in validation else "val"}
        for row in read(copy)
    ]
    write(copy, rows, (*NAMES, "split"))
    number = len(validation)
    assert run.cautions(run.studies(copy).studies) == {
        "Weights chosen on these studies": f"{number} of the {number} test studies, or their patients, were in the validation "
        "split of this run, by which its weights were chosen."
    }
    assert run.cautions(run.studies(split="val").studies) == {}


def test_figures_are_those_of_before_after_a_blank_line(run, copy, tmp_path):
    blank_line(copy)
    files = []
    for data, name in ((None, "before"), (copy, "after")):
        manifest = run.studies(data)
        evaluate_run(run, manifest, run.loader(manifest), tmp_path / name, data=data, protocols=["retrieval"])
        files.append((tmp_path / name / "evaluation.json").read_text())
    assert files[0] == files[1]
    assert json.loads(files[0])["retrieval"]


def test_the_report_begins_with_the_overlap(medvl, folder, tmp_path):
    arguments = ["evaluate", folder / "run", "--output", tmp_path, "--protocol", "retrieval"]
    code, out, err = medvl(*arguments, "--split", "all")
    assert code == 0, err
    assert out.splitlines()[0].startswith("21 of the 30 studies, or their patients, were in the training split")
    page = (tmp_path / "report.html").read_text()
    assert page.index("21 of the 30 studies") < page.index("Evaluated on")
    code, out, err = medvl(*arguments)
    assert code == 0, err
    assert "training split" not in out
    assert "Trained on these studies" not in (tmp_path / "report.html").read_text()


def test_the_record_names_nobody_and_is_needed(folder, tmp_path):
    text = (folder / "run" / "splits.json").read_text()
    assert not any(f'"p{i}"' in text or f"{i}.png" in text for i in range(30))
    copied = shutil.copytree(folder / "run", tmp_path / "run")
    (copied / "splits.json").write_text("{")
    with pytest.raises(ValueError, match=r"splits\.json is damaged: "):
        TrainedRun(copied).studies(folder / "data" / "cases.csv")
    (copied / "splits.json").write_text(text)
    key = (copied / "splits.key").read_text()
    (copied / "splits.key").write_text(key[1:])
    with pytest.raises(ValueError, match=r"splits\.key is damaged: it holds no 64 hexadecimal digits\.$"):
        TrainedRun(copied).studies(folder / "data" / "cases.csv")
    (copied / "splits.key").unlink()
    with pytest.raises(ValueError, match=r"holds no splits\.key, which says which studies the run was trained on"):
        TrainedRun(copied).studies(folder / "data" / "cases.csv")
    run = TrainedRun(copied)
    overlap = run.training_overlap(run.studies(folder / "data" / "cases.csv", split="all").studies)
    assert overlap.endswith(
        "holds no splits.key, so that it is not known whether the model was trained on these studies."
    )
    (copied / "splits.json").unlink()
    with pytest.raises(ValueError, match=r"holds no splits\.json, which says which studies the run was trained on"):
        TrainedRun(copied).studies(folder / "data" / "cases.csv")


def test_ids_cannot_be_found_by_trying_without_the_key(folder):
    record = json.loads((folder / "run" / "splits.json").read_text())
    found = {value for keys in record.values() for values in keys.values() for value in values}
    tried = [
        f"{key}:{text}".encode()
        for key in ("patient", "study")
        for i in range(100)
        for text in (f"p{i}", f"{i}", f"s{i}")
    ]
    digests = {hashlib.blake2b(text, digest_size=8).hexdigest() for text in tried}
    assert not found & (digests | {f"{int(value, 16) >> 1:016x}" for value in digests})
    key = bytes.fromhex((folder / "run" / "splits.key").read_text())
    assert len(found & {hashlib.blake2b(text, key=key, digest_size=8).hexdigest() for text in tried}) >= 30
    assert (folder / "run" / "splits.key").stat().st_mode & 0o077 == 0
    assert SplitRecord.from_studies([]).key != SplitRecord.from_studies([]).key


def test_sources_that_changed_keep_the_splits_of_the_training(copy, tmp_path):
    labels = [{**row, "finding": ("Cardiomegaly", "Edema", "Fracture")[i % 3]} for i, row in enumerate(read(copy))]
    table = write(copy.parent / "labels.csv", labels, ("image", "patient_id", "finding"))
    sources = [f"image-label={table}", f"image-text={copy}"]
    settings = {**TINY, "sources": sources, "columns": {"label_column": "finding"}, "num_texts": 4, "device": "cpu"}
    run = TrainedRun(train("medclip", {**settings, "output": str(tmp_path / "run")}))
    before = {split: images(run.studies(split=split).studies) for split in ("train", "val", "test")}
    gone = sorted(before["train"])[:6]
    write(table, [row for row in labels if row["image"] not in gone], ("image", "patient_id", "finding"))
    assert images(run.studies().studies) == before["test"]
    assert images(run.studies(table).studies) <= before["test"], "one of its tables alone, by --data"


def test_copies_of_training_images_under_other_names_are_said(run, copy, tmp_path):
    training = sorted(images(run.studies(split="train").studies))
    rows = []
    for i, name in enumerate(training[:4]):
        shutil.copy(copy.parent / name, tmp_path / f"copy{i}.png")
        rows.append({"image": f"copy{i}.png", "report": TEXTS[i % 3], "patient_id": f"z{i}"})
    table = write(tmp_path / "other.csv", rows)
    with pytest.raises(ValueError, match=r"has 4 of its 4 studies in common .* or content, of the image, and no id"):
        run.studies(table)
    studies = run.studies(table, "all").studies
    assert run.training_overlap(studies).startswith("4 of the 4 studies, or their patients, were in the training split")


def test_a_few_copies_among_other_images_are_counted(run, copy, tmp_path):
    name = sorted(images(run.studies(split="train").studies))[0]
    shutil.copy(copy.parent / name, tmp_path / "new0.png")
    for i in range(1, 30):
        draw(tmp_path / f"new{i}.png", 200 + i)
    rows = [{"image": f"new{i}.png", "report": TEXTS[i % 3], "patient_id": f"z{i}"} for i in range(30)]
    studies = run.studies(write(tmp_path / "other.csv", rows)).studies
    assert len(studies) == 30
    assert run.training_overlap(studies).startswith("1 of the 30 studies")


def test_patients_that_the_run_did_not_know_are_said(run, copy):
    rows = [{**row, "PatientID": f"q{number // 2}"} for number, row in enumerate(read(copy))]
    write(copy, rows, ("image", "report", "PatientID"))
    (tested, trained) = (run.studies(copy, split=split).studies for split in ("test", "train"))
    both = {study["patient_id"] for study in tested} & {study["patient_id"] for study in trained}
    number = sum(study["patient_id"] in both for study in tested)
    assert number > 0
    said = f"{number} of the {len(tested)} studies, or their patients, were in the training split of this run"
    assert run.cautions(tested)["Trained on these studies"].startswith(said)


def test_new_patients_were_not_in_training(run, copy):
    """Also where the rule of the training puts them into the training split."""
    rows = read(copy)
    for number in range(12):
        draw(copy.parent / f"new{number}.png", 300 + number)
        rows.append({"image": f"new{number}.png", "report": TEXTS[0], "patient_id": f"new{number}"})
    studies = run.studies(write(copy, rows), "all").studies
    known = [study for study in studies if run.split_record.split_of(study) == "train"]
    assert run.training_overlap(studies).startswith(f"{len(known)} of the 42 studies")
    assert run.training_overlap([study for study in studies if "new" in study["patient_id"]]) is None


def test_another_spelling_of_a_patients_id_is_the_same_patient(run, tmp_path):
    """Where the run does not have the id itself: ids without zeros or in capitals come from spreadsheets."""
    training = sorted(images(run.studies(split="train").studies))[:3]
    rows = []
    for number, name in enumerate(training):
        draw(tmp_path / f"new{number}.png", 200 + number)
        rows.append({"image": f"new{number}.png", "report": TEXTS[0], "patient_id": f"P00{name.removesuffix('.png')}"})
    table = write(tmp_path / "cases.csv", rows)
    with pytest.raises(ValueError, match=r"has 3 of its 3 studies in common .* by study or patient id, and no image"):
        run.studies(table)
    said = run.training_overlap(run.studies(table, "all").studies)
    assert said.startswith("3 of the 3 studies, or their patients, were in the training split")


def test_an_id_that_the_run_has_is_no_spelling_of_another():
    studies = [
        {"study_id": "a", "patient_id": "7", "split": "train"},
        {"study_id": "b", "patient_id": "007", "split": "test"},
    ]
    record = SplitRecord.from_studies(studies)
    assert [record.split_of(study) for study in studies] == ["train", "test"]
    assert record.count_in(studies, "train") == 1
    assert record.count_in([{"study_id": "c", "patient_id": "0007"}], "train") == 1


def test_images_that_were_replaced_are_said(medvl, folder, tmp_path):
    """Other images under the same names are not those that the table had."""
    data = shutil.copytree(folder / "data", tmp_path / "data")
    train("convirt", {**TINY, "data": str(data / "cases.csv"), "output": str(tmp_path / "run"), "device": "cpu"})
    run = TrainedRun(tmp_path / "run")
    studies = run.studies().studies
    assert run.cautions(studies) == {}
    for number, study in enumerate(studies[:2]):
        draw(Path(study["image"]), 300 + number)
    said = f"2 of the {len(studies)} studies have an image whose file has changed since the training: "
    assert run.cautions(studies)["Images changed since training"].startswith(said)
    code, out, err = medvl("evaluate", tmp_path / "run", "--protocol", "retrieval")
    assert code == 0, err
    assert out.startswith(said)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert [text.startswith(said) for text in evaluation["evaluated_on"]["warnings"]] == [True]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.index(said) < page.index("Evaluated on")


HEADERS = {
    "hdr": (b"header", "img"),
    "mhd": (b"DimSize = 4 4 2\nElementDataFile = {}.raw\n", "raw"),
    "nhdr": (b"NRRD0004\ndata file: {}.raw\n", "raw"),
}


def table_of_headers(folder: Path, kind: str, person: str, voxels: Sequence[int], names: str = "{}") -> Path:
    """A table of images whose headers are beside their voxels, all of one shape."""
    header, suffix = HEADERS[kind]
    rows = []
    for number, value in enumerate(voxels):
        own = folder / f"{person}{number}"
        own.mkdir(parents=True)
        name = names.format(number)
        (own / f"{name}.{kind}").write_bytes(header.replace(b"{}", name.encode()))
        (own / f"{name}.{suffix}").write_bytes(bytes([value]) * 32)
        rows.append({"image": f"{person}{number}/{name}.{kind}", "report": TEXTS[0], "patient_id": f"{person}{number}"})
    return write(folder / "cases.csv", rows)


@pytest.mark.parametrize("names", ["{}", "scan"])
@pytest.mark.parametrize("kind", HEADERS)
class TestImagesOfHeaderAndVoxels:
    @pytest.fixture
    def trained(self, tmp_path, kind, names):
        """The studies of a training, and its record as read from its folder."""
        table = table_of_headers(tmp_path / "trained", kind, "p", range(10), names)
        manifest = read_manifest(table).assign_splits()
        SplitRecord.from_studies(manifest.studies).save(tmp_path)
        return manifest.studies, SplitRecord.load(tmp_path)

    def test_a_table_of_other_people_is_taken_whole(self, tmp_path, kind, names, trained):
        other = read_manifest(table_of_headers(tmp_path / "other", kind, "q", range(100, 110), names))
        assert trained[1].assign_splits(other, 0) is None
        assert trained[1].count_in(other.studies, "train") == 0

    def test_copies_are_recognized(self, tmp_path, kind, names, trained):
        copies = read_manifest(table_of_headers(tmp_path / "copies", kind, "q", range(10), names))
        with pytest.raises(
            ValueError, match=r"has 10 of its 10 studies in common .* or content, of the image, and no id"
        ):
            trained[1].assign_splits(copies, 0)
        assert trained[1].count_in(copies.studies, "train") == sum(s["split"] == "train" for s in trained[0])

    def test_new_voxels_under_an_old_header_are_said(self, kind, trained):
        studies, record = trained
        assert record.count_changed(studies) == 0
        Path(studies[3]["image"]).with_suffix(f".{HEADERS[kind][1]}").write_bytes(bytes([77]) * 32)
        assert record.count_changed(studies) == 1

    def test_a_packed_image_is_known_by_the_name_of_its_header(self, trained):
        studies, record = trained
        image = Path(studies[0]["image"])
        packed = {"study_id": "a", "image": f"/x.tar::0+9-{'0' * 16}::{image.stat().st_size}:{image.name}"}
        assert TarMember.parse(packed["image"]) is not None
        assert record.knows_image(packed)
        record = SplitRecord.from_studies([{**packed, "split": "train"}])
        assert record.knows_image({"study_id": "b", "image": str(image)})
        assert record.knows_image(packed)


def test_either_file_of_a_pair_is_the_image_of_the_training(tmp_path):
    studies = read_manifest(table_of_headers(tmp_path, "hdr", "p", range(3))).assign_splits().studies
    for given, asked in ((".hdr", ".img"), (".img", ".hdr")):
        own = [{**study, "image": str(Path(study["image"]).with_suffix(given))} for study in studies]
        record = SplitRecord.from_studies(own)
        for study in studies:
            new = {"study_id": "new", "image": str(Path(study["image"]).with_suffix(asked))}
            assert record.split_of(new) == study["split"]
            assert record.count_changed([new]) == 0


@pytest.mark.parametrize(("old", "new"), [
    ('["', '["zz'), ('["', '[1, "'), ("[]", "3"), ("[]", "-1"), ("[]", "{}"), ('"train"', '"trained"'), ("}\n", ""), ("", ""),
])  # fmt: skip
def test_a_record_of_another_kind_is_damaged(tmp_path, old, new):
    """Without SHA256SUMS, which would be what differs."""
    studies = [{"study_id": name, "split": split} for name, split in (("a", "train"), ("b", "val"))]
    SplitRecord.from_studies(studies).save(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    assert [SplitRecord.load(tmp_path).split_of(study) for study in studies] == ["train", "val"]
    text = (tmp_path / "splits.json").read_text()
    (tmp_path / "splits.json").write_text(text.replace(old, new, 1) if old else "")
    with pytest.raises(ValueError, match=r"splits\.json is damaged: [^\n]+\.$"):
        SplitRecord.load(tmp_path)
