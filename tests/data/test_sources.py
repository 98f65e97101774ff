"""Sources of every kind become one list: labels by name, ids apart, texts labeled once."""

from __future__ import annotations

import re
import tarfile
import time
import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

import medvl.data.text_labels as text_labels
from medvl.data import UnifiedDataset, label_texts, load_sources
from medvl.data.manifest_checks import differing_states
from medvl.text import load_vocabulary
from medvl.utils.errors import StudyError

XML = """<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">{text}</AbstractText></Abstract></Article></MedlineCitation></eCitation>"""


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def states(study, key, names):
    found = dict(zip(names, study[key].tolist(), strict=True))
    return {name: state for name, state in found.items() if state == state}


class TestLabels:
    def test_other_column_orders_go_by_name(self, folder):
        one = write(folder / "one.csv", "image,Edema,Fracture,split", "a.png,1,0,train")
        two = write(folder / "two.csv", "image,fracture,EDEMA,Oddity,split", "b.png,0,1,-1,test")
        manifest = load_sources(
            [f"image-label={one}", f"image-label={two}"],
            columns={"label_column": None},
        )
        assert [states(s, "label", manifest.names) for s in manifest.studies] == [
            {"Edema": 1, "Fracture": 0},
            {"Edema": 1, "Fracture": 0},
        ]
        named = load_sources([f"image-label={two}"], columns={"label_column": ["Oddity", "EDEMA"]})
        assert states(named.studies[0], "label", named.names) == {"EDEMA": 1, "Oddity": -1}

    def test_texts_get_the_vocabulary_s_and_images_their_report_s(self, folder):
        table = write(
            folder / "cases.csv",
            "image,report,finding",
            "a.png,No edema.,Oddity",
            "b.png,Large pneumothorax.,",
            ",Cardiomegaly.,",
        )
        manifest = load_sources(data=table, columns={"label_column": "finding"})
        assert manifest.names[0] == "No Finding"
        assert manifest.names[-1] == "Oddity"
        assert [study["kind"] for study in manifest.studies] == ["image-text", "image-text", "text-label"]
        assert [study["source"] for study in manifest.studies] == ["cases:image-text"] * 2 + ["cases:text-label"]
        first, second, third = manifest.studies
        assert states(first, "label", manifest.names) == {"Oddity": 1, "Edema": 0}
        assert states(first, "text_label", manifest.names) == {"Edema": 0, "No Finding": 1}
        assert states(second, "label", manifest.names) == {"Pneumothorax": 1}
        assert states(third, "text_label", manifest.names) == {"Cardiomegaly": 1}

    def test_given_labels_of_texts_stay(self, folder):
        table = write(folder / "t.csv", "report,Edema,Fracture", '"No edema. Heart is normal.",1,', "Fine.,,0")
        manifest = load_sources([f"text-label={table}"], text_unit="sentence")
        assert states(manifest.studies[0], "text_label", manifest.names) == {"Edema": 1}
        assert manifest.studies[0]["text"] == "No edema. Heart is normal."

    def test_sentences_without_a_finding_are_counted(self, folder):
        table = write(folder / "t.csv", "report", '"Comparison with May. No edema. Stable."', '"Thank you."')
        manifest = load_sources([f"text-label={table}"], text_unit="sentence", require_findings=True)
        assert [study["sentences"] for study in manifest.studies] == [["No edema."]]
        assert manifest.unlabeled == 3
        assert "3 texts that mention no finding dropped." in manifest.summary()

    def test_nothing_in_common_is_said(self, folder, caplog):
        one = write(folder / "one.csv", "image,finding", "a.png,Oddity")
        two = write(folder / "two.csv", "report", "No edema.")
        load_sources([f"image-label={one}", f"text-label={two}"], columns={"label_column": "finding"})
        assert "Images and texts have no finding in common: the images have Oddity, the texts No Finding, Edema." in (
            caplog.text
        )

    def test_numbers_without_names_cannot_be_mixed(self, folder):
        one = write(folder / "one.csv", "image,label", "a.png,1;0")
        with pytest.raises(
            ValueError, match=r"^The labels of one have no names; give label_names, or one label column a"
        ):
            load_sources([f"image-label={one}"], columns={"label_column": "label"})


class TestSources:
    def test_equal_ids_of_two_sources_stay_apart(self, folder):
        tables = [
            write(folder / name, "image,study_id,patient,Edema,Fracture", "a.png,s1,p1,1,0")
            for name in ("one.csv", "two.csv")
        ]
        manifest = load_sources([f"image-label={table}" for table in tables])
        assert [(s["study_id"], s["patient_id"]) for s in manifest.studies] == [
            ("one/s1", "one/p1"),
            ("two/s1", "two/p1"),
        ]
        assert [s["study_id"] for s in load_sources(f"image-label={tables[0]}").studies] == ["s1"]
        again = load_sources([f"image-label={tables[0]}"] * 2)
        assert [s["study_id"] for s in again.studies] == ["one/s1", "one-2/s1"]

    @pytest.mark.parametrize("packed", [True, False])
    def test_openi_as_archive_and_folder(self, folder, packed):
        inner = folder / "ecgen-radiology"
        inner.mkdir()
        for number, text in enumerate(("No edema.", "", "Cardiomegaly.")):
            (inner / f"{number}.xml").write_text(XML.format(number=number, text=text))
        place = inner
        if packed:
            place = folder / "reports.tgz"
            with tarfile.open(place, "w:gz") as archive:
                archive.add(inner, "ecgen-radiology")
        manifest = load_sources([f"text-label=openi:{place}"])
        assert [study["text"] for study in manifest.studies] == ["No edema.", "Cardiomegaly."]
        assert "1 study without a report dropped." in manifest.summary()

    def test_an_archive_writes_nothing(self, folder):
        place = folder / "evil.tgz"
        (folder / "inner.xml").write_text(XML.format(number=1, text="No edema."))
        with tarfile.open(place, "w:gz") as archive:
            archive.add(folder / "inner.xml", "../../escaped.xml")
        (folder / "inner.xml").unlink()
        before = sorted(folder.parent.rglob("*"))
        assert len(load_sources([f"text-label=openi:{place}"])) == 1
        assert sorted(folder.parent.rglob("*")) == before

    def test_chexpert_takes_its_own_splits_and_skips_a_wrong_label(self, folder):
        header = "Path,Sex,Age,Frontal/Lateral," + ",".join(
            reversed(load_sources([f"text-label={write(folder / 't.csv', 'report', 'No edema.')}"]).names)
        )
        path = "CheXpert/{}/patient{}/study1/view1_frontal.jpg,Male,50,Frontal"
        blanks = "," * 12
        write(
            folder / "train.csv",
            header,
            path.format("train", 1) + f",1{blanks},",
            path.format("train", 2) + f",7{blanks},",
        )
        write(folder / "valid.csv", header, path.format("valid", 3) + f",0{blanks},1")
        with pytest.raises(StudyError, match=r"^study 'patient2/study1', Support Devices: expected 1 .*, got 7$"):
            load_sources([f"image-label=chexpert,check_files=false:{folder}"])
        manifest = load_sources([f"image-label=chexpert,check_files=false:{folder}"], on_error="skip")
        assert [study["split"] for study in manifest.studies] == ["train", "val"]
        assert [error.study_id for error in manifest.skipped] == ["patient2/study1"]
        assert states(manifest.studies[1], "label", manifest.names) == {"No Finding": 1, "Support Devices": 0}
        assert len(manifest.fingerprint()) == 64, "images that are not there are found out when they are loaded"
        assert len(manifest.fingerprint()) == 64, "images that are not looked for are found out when they are loaded"

    def test_splits_never_cut_a_patient(self, folder):
        table = write(folder / "t.csv", "report,patient", *[f"No edema {i}.,p{i // 4}" for i in range(80)])
        manifest = load_sources([f"text-label={table}"], seed=3)
        splits = {}
        for study in manifest.studies:
            splits.setdefault(study["patient_id"], set()).add(study["split"])
        assert all(len(found) == 1 for found in splits.values())
        assert all(len(manifest.subset(name)) for name in ("train", "val", "test"))

    def test_bad_rows_are_named_or_skipped(self, folder):
        table = write(folder / "c.csv", "image,finding", "a.png,Edema", "gone.png,Edema", "b.png,Fracture")
        texts = write(folder / "t.csv", "study_id,report", "s1,No edema.", "s2,  ", "s3,Edema.")
        sources = [f"image-label={table}", f"text-label={texts}"]
        with pytest.raises(StudyError, match=r"gone\.png does not exist"):
            load_sources(sources, columns={"label_column": "finding"})
        manifest = load_sources(sources, columns={"label_column": "finding"}, on_error="skip")
        assert len(manifest) == 4
        assert [error.study_id for error in manifest.skipped] == ["row 2", "s2"]
        assert manifest.counts["skipped"] == 2

    @pytest.mark.parametrize(
        ("sources", "message"),
        [
            (
                ["pictures=x.csv"],
                r"^source must be KIND=LOCATION with KIND one of image-text, image-label, text-label, got 'pictures=x\.csv'\.$",
            ),
            (["image-text"], r"got 'image-text'\.$"),
            ([], r"^sources or data must name at least one source, got neither\.$"),
            (["text-label=openi:nowhere.tgz"], r"there is no file or folder nowhere\.tgz"),
            (["image-label=TABLE"], r"^None of the 1 studies of t\.csv has an image and a label"),
        ],
    )
    def test_clear_errors(self, folder, sources, message):
        table = write(folder / "t.csv", "image,report", "a.png,No edema.")
        with pytest.raises((ValueError, OSError), match=message):
            load_sources([source.replace("TABLE", str(table)) for source in sources])

    def test_a_column_that_no_table_has(self, folder):
        table = write(folder / "t.csv", "report", "No edema.")
        with pytest.raises(ValueError, match=r"^label_column: there is no column 'findng' in t\.csv\.$"):
            load_sources([f"text-label={table}"], columns={"label_column": "findng"})

    def test_a_public_data_set_has_columns_of_its_own(self, folder):
        (folder / "1.xml").write_text(XML.format(number=1, text="No edema."))
        message = (
            r"^label_column: there is no column 'y' in any source \(public data sets have columns of their own\)\.$"
        )
        with pytest.raises(ValueError, match=message):
            load_sources(f"text-label=openi:{folder}", columns={"label_column": "y"})

    def test_a_table_of_any_kind_needs_not_both_columns(self, folder):
        texts = write(folder / "t.csv", "report", "No edema.")
        assert [study["kind"] for study in load_sources(data=texts).studies] == ["text-label"]
        images = write(folder / "i.csv", "image,Edema,Fracture", "a.png,1,", "b.png,,")
        manifest = load_sources(data=images)
        assert [(study["kind"], study["source"]) for study in manifest.studies] == [("image-label", "i")]
        assert "1 study without a report or label dropped." in manifest.summary()

    def test_images_alone_are_of_no_kind(self, folder):
        table = write(folder / "i.csv", "image,Edema,Fracture", "a.png,,")
        with pytest.raises(ValueError, match=r"^None of the 1 studies of i\.csv has a report or a label\.$"):
            load_sources(data=table)

    def test_synthetic_data_give_way_to_sources(self, folder):
        table = write(folder / "t.csv", "report", "No edema.")
        assert load_sources(f"text-label={table}", data="synthetic").name == "t.csv"
        (folder / "run").mkdir()
        manifest = load_sources(data="synthetic", folder=folder / "run", synthetic_length=6, synthetic_size=32)
        assert len(manifest) == 6

    def test_two_label_columns_of_one_name(self, folder):
        table = write(folder / "t.csv", "image,edema,Edema", "a.png,1,0")
        with pytest.raises(ValueError, match=r"^label_column: t\.csv has the columns 'edema' and 'Edema', whose names"):
            load_sources(f"image-label={table}", columns={"label_column": ["edema", "Edema"]})

    def test_options(self, folder):
        with pytest.raises(ValueError, match=r"^text_unit must be one of 'report', 'sentence', got 'word'\.$"):
            load_sources(data="t.csv", text_unit="word")
        with pytest.raises(ValueError, match=r"^on_error must be one of 'raise', 'skip', got 'warn'\.$"):
            load_sources(data="t.csv", on_error="warn")

    def test_the_fingerprint_sees_the_labels_of_texts(self, folder):
        first = load_sources([f"text-label={write(folder / 't.csv', 'report,Edema,Fracture', 'Fine.,1,')}"])
        second = load_sources([f"text-label={write(folder / 't.csv', 'report,Edema,Fracture', 'Fine.,0,')}"])
        assert first.fingerprint() != second.fingerprint()


def test_texts_to_label_are_texts():
    with pytest.raises(TypeError, match=r"^texts must be a sequence of str, got one str\.$"):
        label_texts("No edema.")
    with pytest.raises(TypeError, match="each of texts must be a string, got NoneType"):
        label_texts(["No edema.", None])
    with pytest.raises(ValueError, match=r"^vocabulary must be a name or path where a cache is given, got a loaded V"):
        label_texts(["No edema."], load_vocabulary("chexpert14"), cache="labels.npz")


class TestCache:
    def test_each_text_once(self, tmp_path, monkeypatch):
        calls = []
        original = text_labels.report_states

        def counted(text, vocabulary):
            calls.append(text)
            return original(text, vocabulary)

        monkeypatch.setattr(text_labels, "report_states", counted)
        cache = tmp_path / "labels.npz"
        first = label_texts(["No edema.", "Edema.", "No edema."], cache=cache)
        second = label_texts(["Edema.", "Fracture.", "No edema."], cache=cache)
        assert calls == ["No edema.", "Edema.", "Fracture."]
        np.testing.assert_array_equal(second[[0, 2]], first[[1, 0]])
        assert b"edema" not in cache.read_bytes().lower()

    def test_holds_each_text_once_beside_a_packed_cache(self, tmp_path):
        label_texts(["No edema.", "Edema."], cache=tmp_path / "packed.npz")
        for number, text in enumerate(("Fracture.", "No fracture.", "Edema."), start=3):
            text_labels.read_texts([text], cache=tmp_path / "own.npz", packed=[tmp_path / "packed.npz"])
            assert len(np.load(tmp_path / "own.npz")["keys"]) == min(number, 4)
        read = text_labels.read_texts(["No edema.", "Fracture.", "Edema."], cache=tmp_path / "own.npz").states
        np.testing.assert_array_equal(read, label_texts(["No edema.", "Fracture.", "Edema."]))

    def test_begins_anew_where_broken_or_of_another_vocabulary(self, tmp_path):
        cache = tmp_path / "labels.npz"
        cache.write_bytes(b"not an archive")
        first = label_texts(["No edema."], cache=cache)
        other = label_texts(["No edema."], "chest_ct", cache=cache)
        assert first.shape[1] != other.shape[1]
        np.testing.assert_array_equal(label_texts(["No edema."], cache=cache), first)
        assert label_texts([]).shape == (0, 14)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_bad_row_of_one_of_several_tables_names_the_table(tmp_path, on_error):
    for name, state in (("a", 1), ("b", 7)):
        (tmp_path / f"{name}.csv").write_text(f"report,Edema,Fracture\nMild edema.,1,0\nEdema.,{state},0\n")
    sources = [f"text-label={tmp_path / name}.csv" for name in "ab"]
    sentence = r"^study 'row 2', Edema: b\.csv, row 2 \(line 3\): expected 1 .*, got 7$"
    if on_error == "raise":
        with pytest.raises(StudyError, match=sentence):
            load_sources(sources)
    else:
        (error,) = load_sources(sources, on_error="skip").skipped
        assert re.match(sentence, str(error))


def test_images_of_which_two_sources_say_otherwise_are_counted(folder, caplog):
    (folder / "l.png").hardlink_to(folder / "a.png")
    one = write(folder / "one.csv", "study_id,image,Edema,Fracture", "s1,a.png,1,", "s2,b.png,0,1")
    two = write(folder / "two.csv", "study_id,image,fracture,EDEMA", "t1,l.png,1,0", "t2,./b.png,,0")
    sources = [f"image-label={one}", f"image-label={two}"]
    manifest = load_sources(sources)
    (said,) = (record.getMessage() for record in caplog.records if "differently" in record.getMessage())
    assert said == (
        "The sources state findings of 1 image differently, as 'Edema': 1 of one/s1 and 0 of two/t1; each label is used."
    )
    assert [states(study, "label", manifest.names) for study in manifest.studies] == [
        {"Edema": 1},
        {"Edema": 0, "Fracture": 1},
        {"Edema": 0, "Fracture": 1},
        {"Edema": 0},
    ]
    caplog.clear()
    write(folder / "two.csv", "study_id,image,fracture,EDEMA", "t1,l.png,,1", "t2,b.png,1,")
    load_sources(sources)
    assert not [record for record in caplog.records if "differently" in record.getMessage()]


def test_images_that_are_stated_differently_come_in_the_order_of_their_studies():
    states = np.array([[1, -2], [0, 1], [0, 0], [0, 0], [-2, 1], [1, -2]], dtype=np.int8)
    found = [(own.tolist(), *rest) for own, *rest in differing_states(np.array([9, 3, 3, 9, 3, 5]), states)]
    assert found == [([0, 3], 0, 0, 3), ([1, 2, 4], 1, 1, 2)]


def test_many_images_that_are_stated_differently_are_found_in_time_that_grows_with_their_number():
    number = 30000  # 10 s where each image was looked for among all studies
    images = np.tile(np.random.default_rng(0).permutation(number), 2)
    states = np.repeat(np.array([[1] * 14, [0] * 14], dtype=np.int8), number, axis=0)
    start = time.process_time()
    assert sum(1 for _ in differing_states(images, states)) == number
    assert time.process_time() - start < 3


def test_a_study_of_sources_takes_few_bytes(tmp_path):
    """4 KB a study as dictionaries; bounds are twice what was measured."""
    rows = 8000
    for name, kind in (("a", "x"), ("b", "y")):
        lines = [f"s{i},p{i // 3},Mild edema of {kind} {i}. No effusion is seen in {i}." for i in range(rows // 2)]
        (tmp_path / f"{name}.csv").write_text("study_id,patient_id,report\n" + "\n".join(lines) + "\n")
    sources = [f"text-label={tmp_path / name}.csv" for name in "ab"]
    texts = patch.object(text_labels, "read_text", lambda text, vocabulary: np.ones(len(vocabulary.names) + 1, np.int8))
    with texts:
        load_sources(sources, text_unit="sentence")  # what is loaded once
        tracemalloc.start()
        manifest = load_sources(sources, text_unit="sentence")
        held, peak = tracemalloc.get_traced_memory()
        dataset = UnifiedDataset(manifest.studies, texts_per_study=2)
        sampler = dataset.sampler(16)
        next(iter(sampler))
        whole = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert len(manifest) == rows
    assert held / rows < 800
    assert peak / rows < 1200
    assert (whole - held) / rows < 200
