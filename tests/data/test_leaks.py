"""A patient or an image, however its file is named, is in one split, or is counted."""

from __future__ import annotations

import itertools
import logging
import os
import tracemalloc
import unicodedata

import numpy as np
import pytest
from PIL import Image

from medvl.data import find_shared_items, leaks, load_sources, load_studies, read_manifest, split_by_patient
from medvl.data.patient_names import patient_from_name
from medvl.data.source_splits import split_sources
from medvl.utils.errors import StudyError


def save(path, value=0):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """Images of different content, and other names of "images/a.png"."""
    for number, name in enumerate("abcdefgh"):
        save(tmp_path / "images" / f"{name}.png", number)
    save(tmp_path / "images" / unicodedata.normalize("NFC", "é.png"), 99)
    for name in ("x.hdr", "x.img", "Y.HDR", "Y.IMG", "z.hdr.gz", "z.img.gz"):
        save(tmp_path / "pairs" / "image.png").rename(tmp_path / "pairs" / name)
    (tmp_path / "w.img").symlink_to(tmp_path / "pairs" / "x.img")
    (tmp_path / "w.hdr").symlink_to(tmp_path / "pairs" / "x.hdr")
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"slice")
    (tmp_path / "link.png").symlink_to(tmp_path / "images" / "a.png")
    (tmp_path / "chain.png").symlink_to(tmp_path / "link.png")
    os.link(tmp_path / "images" / "a.png", tmp_path / "hard.png")
    (tmp_path / "other").symlink_to(tmp_path / "images", target_is_directory=True)
    return tmp_path


OTHER_NAMES = [
    ("images/a.png", "images/a.png"),
    ("images/a.png", "./images/a.png"),
    ("images/a.png", "images//a.png"),
    ("images/a.png", "images/../images/a.png"),
    ("images/a.png", " images/a.png "),
    ("images/a.png", "images/a.png\u200b"),
    ("images/a.png", "images\\a.png"),
    ("images/a.png", "ABSOLUTE/images/a.png"),
    ("images/a.png", "link.png"),
    ("images/a.png", "chain.png"),
    ("images/a.png", "hard.png"),
    ("images/a.png", "other/a.png"),
    ("link.png", "hard.png"),
    ("series", "series/"),
    ("series", "./series/."),
    ("images/é.png", unicodedata.normalize("NFD", "images/é.png")),
    ("pairs/x.hdr", "pairs/x.img"),
    ("pairs/x.img", "pairs/x.hdr"),
    ("pairs/Y.IMG", "pairs/Y.HDR"),
    ("pairs/z.hdr.gz", "pairs/z.img.gz"),
    ("pairs/x.img", "w.hdr"),
]


class TestOneFileOfManyNames:
    @pytest.mark.parametrize(("first", "second"), OTHER_NAMES)
    def test_in_two_splits_is_an_error(self, folder, first, second):
        second = second.replace("ABSOLUTE", str(folder))
        table = write(
            folder / "cases.csv",
            "image,report,split,study",
            f"{first},Clear.,train,s1",
            f"{second},Clear.,test,s2",
            "images/b.png,Clear.,train,s3",
        )
        message = r"^study 's1', split: row 1: the image file is in train and in test; expected an image in one split$"
        with pytest.raises(StudyError, match=message):
            read_manifest(table)
        manifest = read_manifest(table, on_error="skip")
        assert [study["row"] for study in manifest.studies] == [2, 3], "the test split keeps it"
        assert manifest.counts["skipped"] == 1

    @pytest.mark.parametrize(("first", "second"), OTHER_NAMES)
    def test_is_one_study_and_in_one_split(self, folder, first, second):
        second = second.replace("ABSOLUTE", str(folder))
        names = [first, *(f"images/{name}.png" for name in "bcdefgh"), second]
        table = write(folder / "cases.csv", "image,report", *(f"{name},Clear." for name in names))
        studies = read_manifest(table).studies
        assert studies[0]["study_id"] == studies[-1]["study_id"] == first
        table = write(
            folder / "cases.csv", "image,report,patient", *(f"{name},Clear.,p{i}" for i, name in enumerate(names))
        )
        for seed in range(8):
            split = read_manifest(table).assign_splits(seed=seed).studies
            assert split[0]["split"] == split[-1]["split"]

    def test_errors_are_counted(self, folder):
        rows = [f"images/{name}.png,Clear.,{split},p{name}" for name in "abc" for split in ("train", "val")]
        table = write(folder / "cases.csv", "image,report,split,patient", *rows)
        with pytest.raises(StudyError, match=r"in train and in val; expected .* \(3 such rows\)$"):
            read_manifest(table)
        assert [study["split"] for study in read_manifest(table, on_error="skip").studies] == ["val"] * 3
        assert len(read_manifest(table, on_leak="keep")) == 6
        with pytest.raises(ValueError, match=r"^on_leak must be one of 'error', 'keep', got 'warn'\.$"):
            read_manifest(table, on_leak="warn")

    def test_patients_without_shared_images_are_split_as_before(self):
        studies = [{"study_id": str(i), "patient_id": str(i // 2), "image": f"nowhere/{i}.png"} for i in range(40)]
        bare = [{key: study[key] for key in ("study_id", "patient_id")} for study in studies]
        assert [s["split"] for s in split_by_patient(studies)] == [s["split"] for s in split_by_patient(bare)]

    def test_groups_join_through_images_and_patients(self):
        images = [["x.png"], ["x.png", "y.png"], ["z.png"], ["y.png"], np.zeros((2, 2)), None]
        studies = [{"study_id": str(i), "image": image} for i, image in enumerate(images)]
        studies[2]["patient_id"] = studies[3]["patient_id"] = "p"
        for seed in range(10):
            splits = [study["split"] for study in split_by_patient(studies, (0.4, 0.3, 0.3), seed)]
            assert len(set(splits[:4])) == 1
            assert len(set(splits)) == 3


class TestSpellingsOfAPatient:
    """``7`` and ``007`` may be one patient whose zeros a spreadsheet took; they are two people who are kept together."""

    @pytest.mark.parametrize(
        ("one", "other"), [("7", "007"), ("P7", "p7"), ("P-012", "p-12"), ("Ä1", "ä01"), ("1234", "1'234"), ("７", "7")]
    )
    def test_are_in_one_split_and_counted(self, tmp_path, caplog, one, other):
        rows = [f"Clear.,{patient}" for patient in (one, *(f"q{number}" for number in range(9)), other)]
        table = write(tmp_path / "cases.csv", "report,patient", *rows)
        with caplog.at_level(logging.WARNING):
            manifest = read_manifest(table, image_column=None)
        assert (
            f"cases.csv: 2 ids of patients differ from another only in case, zeros before the number, signs "
            f"between thousands or the width of characters, as {one!r} and" in (caplog.text)
        )
        assert manifest.studies[0]["patient_id"] == one
        assert manifest.studies[-1]["patient_id"] == other
        for seed in range(8):
            split = manifest.assign_splits(seed=seed).studies
            assert split[0]["split"] == split[-1]["split"]

    @pytest.mark.parametrize(("one", "other"), [("7", "70"), ("07a", "7a"), ("P10", "P1"), ("0", "O"), ("7-1", "7-2")])
    def test_other_ids_are_apart(self, tmp_path, caplog, one, other):
        rows = [f"Clear.,{patient}" for patient in (one, *(f"q{number}" for number in range(9)), other)]
        manifest = read_manifest(write(tmp_path / "cases.csv", "report,patient", *rows), image_column=None)
        assert not caplog.records
        splits = [manifest.assign_splits(seed=seed).studies for seed in range(20)]
        assert any(split[0]["split"] != split[-1]["split"] for split in splits)

    def test_are_in_one_split_of_two_sources(self, tmp_path):
        first = write(tmp_path / "a.csv", "report,patient", *(f"Clear.,{number:03d}" for number in range(1, 60)))
        second = write(tmp_path / "b.csv", "report,patient", *(f"Clear.,{number}" for number in range(1, 60)))
        sources = [read_manifest(table, image_column=None) for table in (first, second)]
        one, other = split_sources(sources)
        assert [study["split"] for study in one.studies] == [study["split"] for study in other.studies]


class TestCopies:
    def test_are_counted_in_a_warning(self, folder, caplog):
        for name, other in zip("abc", "xyz", strict=True):
            (folder / f"{other}.png").write_bytes((folder / "images" / f"{name}.png").read_bytes())
        rows = [f"images/{name}.png,Clear.,train" for name in "abcde"] + [f"{name}.png,Clear.,test" for name in "xyz"]
        table = write(folder / "cases.csv", "image,report,split", *rows)
        said = (
            "cases.csv: 3 images have copies of the same content in two splits, the first in study 'images/a.png' (train) "
            "and in study 'x.png' (test); medvl audit lists them."
        )
        load_studies(table, folder)
        assert said in caplog.messages
        caplog.clear()
        load_sources(data=table)
        assert said in caplog.messages
        caplog.clear()
        write(table, "image,report,split", *(row.replace("test", "train") for row in rows))
        load_studies(table, folder)
        assert not [message for message in caplog.messages if "copies" in message], "duplicates are no leak"

    def test_one_process_looks_for_them(self, folder, caplog, monkeypatch):
        (folder / "x.png").write_bytes((folder / "images" / "a.png").read_bytes())
        rows = ["images/a.png,Clear.,train", "images/b.png,Clear.,train", "x.png,Clear.,test"]
        table = write(folder / "cases.csv", "image,report,split", *rows)
        monkeypatch.setattr("medvl.utils.distributed.get_rank", lambda: 1)
        load_studies(table, folder)
        assert caplog.messages == []

    def test_a_folder_of_slices_is_compared_by_its_files(self, folder):
        for name, content in (("one", "slice"), ("two", "slice"), ("three", "sliced"), ("four", "other")):
            (folder / name).mkdir()
            for number in range(3):
                file = folder / name / (f"{number}.dcm" if name != "two" else f"IM{2 - number}")
                file.write_text(f"{content} {number}")
        paths = {name: str(folder / name) for name in ("one", "two", "three", "four")}
        assert leaks.equal_files(paths) == [["one", "two"]]

    def test_only_files_of_one_size_and_equal_samples_are_read_whole(self, folder, monkeypatch):
        read = {"sample": [], "content": []}
        sample, whole = leaks._sample_of_file, leaks.file_sha256
        monkeypatch.setattr(leaks, "_sample_of_file", lambda path: read["sample"].append(path) or sample(path))
        monkeypatch.setattr(leaks, "file_sha256", lambda path: read["content"].append(path) or whole(path))
        big = bytearray(100_000)
        contents = {"size": bytes(7), "start": b"x" + big[1:], "one": bytes(big), "copy": bytes(big), "empty": b""}
        big[20_000] = 1  # between the samples
        contents["between"] = bytes(big)
        paths = {}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            paths[name] = str(folder / name)
        paths |= {"missing": str(folder / "none"), "zero": "a\0b"}
        assert leaks.equal_files(paths) == [["one", "copy"]]
        assert [{os.path.basename(path) for path in read[step]} for step in ("sample", "content")] == [
            {"start", "one", "copy", "between"},
            {"one", "copy", "between"},
        ]
        assert leaks.equal_files(paths, lambda group: False) == []
        assert len(read["sample"]) == 4, "no size of interest, no file is opened"

    def test_shared_items(self, folder):
        (folder / "copy.png").write_bytes((folder / "images" / "b.png").read_bytes())
        where = {"a": "train", "b": "train", "c": "test"}
        studies = [
            {"study_id": str(i), "image": str(folder / name), "split": split}
            for i, (name, split) in enumerate(
                [("images/a.png", "train"), ("hard.png", "train"), ("images/b.png", "train"), ("copy.png", "test")]
            )
        ]
        studies += [{"study_id": name, "patient_id": "p", "split": split} for name, split in where.items()]
        studies += [
            {"study_id": "s", "source": "x", "split": "train"},
            {"study_id": "s", "source": "y", "split": "val"},
        ]
        found = [(item.kind, item.rows, item.splits, item.is_leak) for item in find_shared_items(studies)]
        assert found == [
            ("content", (2, 3), ("test", "train"), True),
            ("patient", (4, 5, 6), ("test", "train"), True),
            ("image", (0, 1), ("train",), False),
        ]
        assert [item.kind for item in find_shared_items(studies, compare_content=False)] == ["patient", "image"]


META_IMAGE = b"NDims = 3\nDimSize = 4 4 2\nElementDataFile = "
NRRD = b"NRRD0004\ndimension: 3\nsizes: 4 4 2\n"
DETACHED = {
    "a.hdr": ("a.hdr", b"header", ["a.img"]),
    "a.img": ("a.hdr", b"header", ["a.img"]),
    "a.IMG": ("a.HDR", b"header", ["a.IMG"]),
    "a.img.gz": ("a.hdr.gz", b"header", ["a.img.gz"]),
    "a.mhd": ("a.mhd", META_IMAGE + b"a.raw\n", ["a.raw"]),
    "A.MHD": ("A.MHD", META_IMAGE + b"a.zraw\n", ["a.zraw"]),
    "list.mhd": ("list.mhd", META_IMAGE + b"LIST\n1.raw\n2.raw\n", ["1.raw", "2.raw"]),
    "numbered.mhd": ("numbered.mhd", META_IMAGE + b"%02d.raw 5 6 1\n", ["05.raw", "06.raw"]),
    "a.nhdr": ("a.nhdr", NRRD + b"data file: a.raw\n", ["a.raw"]),
    "list.nhdr": ("list.nhdr", NRRD + b"data file: LIST\n1.raw\n2.raw\n", ["1.raw", "2.raw"]),
}
"""An image by the name in a table: the name and content of its header, and the files with its voxels."""


def write_detached(folder, name, value):
    """The path of an image whose last voxels are ``value``."""
    header, content, data = DETACHED[name]
    folder.mkdir(exist_ok=True, parents=True)
    (folder / header).write_bytes(content)
    for file in data:
        (folder / file).write_bytes(bytes([value if file == data[-1] else 0]) * 16)
    return str(folder / name)


@pytest.mark.parametrize("name", DETACHED)
class TestHeadersAndVoxelsInFilesOfTheirOwn:
    """The headers of a data set are equal; what differs is the voxels."""

    def test_the_content_is_that_of_all_files(self, tmp_path, name):
        paths = {key: write_detached(tmp_path / key, name, value) for key, value in (("a", 1), ("b", 200), ("c", 1))}
        assert leaks.equal_files(paths) == [["a", "c"]]
        keys = {key: leaks.content_key(path) for key, path in paths.items()}
        assert keys["a"] == keys["c"] != keys["b"]
        studies = [
            {"study_id": key, "image": path, "split": "test" if key == "c" else "train"} for key, path in paths.items()
        ]
        assert [(item.kind, item.rows) for item in leaks.find_copies_across_splits(studies)] == [("content", (0, 2))]
        assert leaks.find_copies_across_splits(studies[1:]) == []

    @pytest.mark.parametrize("left", ["nothing", "an empty file", "a pipe"])
    def test_without_its_voxels_it_is_no_copy(self, tmp_path, name, left):
        paths = {key: write_detached(tmp_path / key, name, 1) for key in "ab"}
        for path in paths.values():
            data = os.path.join(os.path.dirname(path), DETACHED[name][2][-1])
            os.remove(data)
            if left == "an empty file":
                open(data, "wb").close()
            elif left == "a pipe":
                os.mkfifo(data)
        assert leaks.equal_files(paths) == []
        assert [leaks.content_key(path) for path in paths.values()] == [None, None]
        studies = [{"study_id": key, "image": path, "split": key} for key, path in paths.items()]
        assert leaks.find_shared_items(studies) == leaks.find_copies_across_splits(studies) == []

    def test_a_header_that_two_images_share_by_a_link_is_not_their_identity(self, tmp_path, name):
        """As data sets are stored whose equal files are kept once."""
        one, other = (write_detached(tmp_path / key, name, value) for key, value in (("one", 1), ("other", 2)))
        header = DETACHED[name][0]
        os.remove(tmp_path / "other" / header)
        os.link(tmp_path / "one" / header, tmp_path / "other" / header)
        table = write(tmp_path / "cases.csv", "image,report,split", f"{one},Clear.,train", f"{other},Clear.,test")
        assert len(read_manifest(table).studies) == 2
        studies = [{"study_id": path, "image": path, "split": path} for path in (one, other)]
        assert leaks.find_shared_items(studies) == []


def test_both_names_of_a_pair_are_listed(tmp_path):
    one = write_detached(tmp_path, "a.hdr", 1)
    studies = [
        {"study_id": str(row), "image": path, "split": split}
        for row, (path, split) in enumerate([(one, "train"), (one.replace(".hdr", ".img"), "test")])
    ]
    found = [(item.kind, item.rows, item.splits) for item in find_shared_items(studies)]
    assert found == [("image", (0, 1), ("test", "train"))]


class TestPatients:
    @pytest.mark.parametrize(("patients", "said"), [("ppp", "val or test"), ("ppq", "val"), ("pqr", ""), ("pq", "")])
    def test_too_few_patients_for_the_splits_are_said(self, tmp_path, caplog, patients, said):
        table = write(tmp_path / "cases.csv", "report,patient", *(f"Clear.,{patient}" for patient in patients))
        read_manifest(table, image_column=None).assign_splits()
        number = "2 patients" if "q" in patients else "1 patient"
        message = (
            f"No study is in the split {said}: there are 3 studies of {number}; a patient, or a study without one, is in one "
            "split."
        )
        assert caplog.messages == ([message] if said else [])

    def test_a_table_without_patients_is_split_by_study_and_says_so(self, folder, caplog):
        rows = [f"images/{name}.png,Clear.,{'p' if name in 'ab' else 'NA'}" for name in "abcdefgh"]
        table = write(folder / "cases.csv", "image,report,person", *rows)
        read_manifest(table).assign_splits()
        said = (
            "cases.csv: {} split by study, so that a patient may be in two splits; "
            "if it has patients, name their column."
        )
        assert caplog.messages == [said.format("8 studies without a patient are")]
        caplog.clear()
        read_manifest(table, patient_column="person").assign_splits()
        assert caplog.messages == [said.format("6 studies without a patient are")]
        caplog.clear()
        write(table, "image,report,patient", *(row.replace("NA", f"q{number}") for number, row in enumerate(rows)))
        read_manifest(table).assign_splits()
        assert caplog.messages == []

    @pytest.mark.parametrize("column", ["image", "study"])
    def test_scans_and_reconstructions_of_ct_rate_belong_to_a_patient(self, tmp_path, column):
        names = [f"train_{p}_{scan}_{r}" for p, scan, r in itertools.product(range(1, 12), "ab", (1, 2))]
        names += ["valid_2_a_1", "valid_2_b_1"]
        for number, name in enumerate(names):
            (tmp_path / f"{name}.nii.gz").write_bytes(bytes([number]))
        rows = [f"{name}.nii.gz,{name}.nii.gz,Clear." for name in names]
        table = write(tmp_path / "cases.csv", f"{column},other,report", *rows)
        options = {} if column == "image" else {"image_column": None}
        split = read_manifest(table, **options).assign_splits().studies
        assert len({study["patient_id"] for study in split}) == 12
        assert len({(study["patient_id"], study["split"]) for study in split}) == 12
        rows = [row + (",test" if "_b_" in row else ",train") for row in rows]
        write(table, f"{column},other,report,split", *rows)
        with pytest.raises(
            StudyError, match=r"the patient \(by the file name, as in CT-RATE\) is in train and in test; "
        ):
            read_manifest(table, **options)

    @pytest.mark.parametrize(
        ("names", "patient"),
        [
            (("train_2_a_1", "train_2_b_1.nii.gz", "dataset/train/train_2/train_2_a/train_2_a_2.nii.gz"), "train_2"),
            (("00000013_005.png", "images_001/00000013_026.png"), "00000013"),
            (("train/patient00001/study1/view1_frontal.jpg", "patient00001/study2"), "patient00001"),
            (("files/p10/p10000032/s50414267/x.dcm", "p10\\p10000032\\s53189527.txt"), "p10000032"),
            (("sub-01/ses-1/anat/sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz"), "sub-01"),
            (("site/sub-01/a.png",), "site/sub-01"),
        ],
    )
    def test_names_of_public_data_sets(self, names, patient):
        assert {patient_from_name(name)[0] for name in names} == {patient}

    @pytest.mark.parametrize(
        "name", ["a.png", "train_2_a.png", "train_2.png", "20240101_001.png", "cxr_0001.jpg", "row 1", "pretrain_2_a_1"]
    )
    def test_other_names_hold_no_patient(self, name):
        assert patient_from_name(name) is None

    def test_blank_patients_are_those_of_the_names(self, tmp_path):
        names = [f"train_{number}_{scan}_1" for number in range(1, 12) for scan in "ab"]
        rows = [f"{name},Clear.,{'' if number else 'train_1'}" for number, name in enumerate(names)]
        table = write(tmp_path / "cases.csv", "study,report,patient", *rows)
        split = read_manifest(table, image_column=None).assign_splits().studies
        assert [study["patient_id"] for study in split] == [name[:-4] for name in names]
        assert len({(study["patient_id"], study["split"]) for study in split}) == 11
        rows = [f"{row},{'test' if '_b_' in row else 'train'}" for row in rows]
        write(table, "study,report,patient,split", *rows)
        with pytest.raises(
            StudyError, match=r"the patient \(of some rows by the file name, as in CT-RATE\) is in train and"
        ):
            read_manifest(table, image_column=None)

    def test_a_blank_patient_is_that_of_the_other_studies_of_its_name(self, tmp_path):
        rows = [
            "train_2_a_1,Clear.,p7",
            "train_2_b_1,Clear.,",
            "train_3_a_1,Clear.,",
            "s,Clear.,",
            "train_3_b_1,Clear.,NA",
        ]
        table = write(tmp_path / "cases.csv", "study,report,patient", *rows)
        studies = read_manifest(table, image_column=None).studies
        assert [study.get("patient_id") for study in studies] == ["p7", "p7", "train_3", None, "train_3"]

    def test_a_column_of_patients_counts_more_than_names(self, tmp_path):
        rows = ["train_2_a_1,Clear.,train,p", "train_2_b_1,Clear.,test,q"]
        table = write(tmp_path / "cases.csv", "study,report,split,patient", *rows)
        assert [study["patient_id"] for study in read_manifest(table, image_column=None).studies] == ["p", "q"]


class TestSources:
    def tables(self, folder, first="", second=""):
        """Two tables of the same forty patients."""
        one = [f"Clear {i}.,p{i}{first.format(i)}" for i in range(40)]
        two = [f"Wet {i}.,p{i}.0{second.format(i)}".replace("p", "") for i in reversed(range(40))]
        one = [row.replace(",p", ",") for row in one]
        header = "report,patient"
        return (
            write(folder / "one.csv", header + ",split" * bool(first), *one),
            write(folder / "two.csv", header + ",split" * bool(second), *two),
        )

    def splits(self, one, two):
        manifest = load_sources([f"text-label={one}", f"text-label={two}"])
        return [
            {study["patient_id"].split("/")[1]: study["split"] for study in manifest.studies if study["source"] == name}
            for name in ("one", "two")
        ]

    def test_patients_of_two_sources_are_in_one_split(self, folder, caplog):
        one, two = self.tables(folder)
        write(two, *two.read_text().splitlines()[:-15])  # fewer patients, whose own split would be another
        first, second = self.splits(one, two)
        assert first == {
            study["patient_id"]: study["split"]
            for study in read_manifest(one, image_column=None).assign_splits().studies
        }
        assert second == {patient: first[patient] for patient in second}
        assert caplog.messages == []

    @pytest.mark.parametrize("swap", [False, True])
    def test_a_source_with_splits_decides(self, folder, swap):
        tables = self.tables(folder, second=",test")
        first, second = self.splits(*(tables[::-1] if swap else tables))
        assert set(first.values()) == set(second.values()) == {"test"}

    def test_splits_that_differ_are_kept_and_counted(self, folder, caplog):
        one, two = self.tables(folder, ",train", ",test")
        first, second = self.splits(one, two)
        assert (set(first.values()), set(second.values())) == ({"train"}, {"test"})
        said = "40 patients in two splits, because the sources' own splits differ; medvl audit lists them."
        assert said in caplog.messages

    def test_images_of_two_sources(self, folder, caplog):
        names = "abcdefgh"
        one = write(folder / "one.csv", "image,Edema,Mass,patient", *(f"images/{n}.png,1,,{n}" for n in names))
        two = write(folder / "two.csv", "image,report,patient", *(f"other/{n}.png,Clear.,x{n}" for n in names[2:]))
        for seed in range(5):
            manifest = load_sources(
                [f"image-label={one}", f"image-text={two}"], seed=seed, columns={"label_column": ["Edema", "Mass"]}
            )
            where = {}
            for study in manifest.studies:
                where.setdefault(os.path.basename(study["image"]), set()).add(study["split"])
            assert {len(splits) for splits in where.values()} == {1}
        write(one, "image,Edema,Mass,split", *(f"images/{n}.png,1,,train" for n in names))
        write(two, "image,report,split", *(f"hard.png,Clear.,{split}" for split in ("test", "test")))
        load_sources([f"image-label={one}", f"image-text={two}"], columns={"label_column": ["Edema", "Mass"]})
        assert (
            "1 image in two splits, because the sources' own splits differ; medvl audit lists them." in caplog.messages
        )

    def test_studies_of_one_id_are_of_different_sources(self, folder, caplog):
        one = write(folder / "one.csv", "study,report,split", *(f"{i},Clear.,train" for i in range(9)))
        two = write(folder / "two.csv", "study,report,split", *(f"{i},Clear.,test" for i in range(9)))
        load_sources([f"text-label={one}", f"text-label={two}"])
        assert caplog.messages == []


@pytest.fixture(autouse=True)
def warnings_only(caplog):
    caplog.set_level(logging.WARNING, logger="medvl")


def test_a_search_for_copies_holds_no_object_for_each_file(tmp_path):
    def studies(count):
        for number in range(count):
            (tmp_path / str(number)).write_bytes(b"x" * (number + 1))
        return [
            {"study_id": str(n), "image": str(tmp_path / str(n)), "split": ("train", "val")[n % 2]}
            for n in range(count)
        ]

    own = studies(4000)
    leaks.find_copies_across_splits(own[:10])  # what is imported then
    tracemalloc.start()
    try:
        assert leaks.find_copies_across_splits(own) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * len(own)  # bytes; with a path and a list of rows for each file 2,000
