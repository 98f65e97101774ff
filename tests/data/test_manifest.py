"""Tables become datalists: every row is used, counted or named in an error."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medvl.data import load_studies, read_manifest, split_by_patient
from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.utils.errors import StudyError


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder, text, name="cases.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_paths_are_absolute_and_relative_to_the_table(folder, monkeypatch):
    monkeypatch.chdir("/")
    manifest = read_manifest(write(folder, "image,report\na.png,Clear.\n./b.png,\n"))
    assert [study["image"] for study in manifest.studies] == [str(folder / "a.png"), str(folder / "b.png")]
    assert "report" not in manifest.studies[1]
    assert [study["row"] for study in manifest.studies] == [1, 2]


def test_drop_missing_without_a_common_study(folder):
    manifest = read_manifest(write(folder, "image,report\na.png,\n,Clear.\n"))
    with pytest.raises(ValueError, match=r"^None of the 2 studies of cases\.csv has an image and a report\.$"):
        manifest.drop_missing("image", "report")


def test_drop_missing_where_every_row_was_skipped(folder):
    manifest = read_manifest(write(folder, "image,report\nx.png,Clear.\ny.png,Clear.\n"), on_error="skip")
    with pytest.raises(
        ValueError, match=r"^Every row of cases\.csv was skipped for an error, the first: study 'row 1', image: .*\.$"
    ):
        manifest.drop_missing("image", "report")


def test_the_manifest_of_a_split(folder):
    manifest = read_manifest(write(folder, "image,report,split\na.png,Clear.,train\nb.png,Clear.,val\n"))
    assert [study["row"] for study in manifest.subset("val").studies] == [2]
    assert len(manifest.subset("all")) == 2
    with pytest.raises(ValueError, match=r"^split must be one of 'train', 'val', 'test', 'all', got 'tests'\.$"):
        manifest.subset("tests")
    with pytest.raises(ValueError, match=r"^cases\.csv has 2 studies and none in the split test\.$"):
        manifest.subset("test")
    assert manifest.subset("test", allow_empty=True).studies == []


@pytest.mark.parametrize(("splits", "number"), [(("val", "test", "test"), 0), (("train", "val", "test"), 1)])
def test_a_run_needs_two_studies_to_train_on(folder, splits, number):
    rows = "".join(f"{name}.png,Clear.,{split}\n" for name, split in zip("abc", splits, strict=True))
    table = write(folder, "image,report,split\n" + rows)
    message = rf"^The training split of cases\.csv must have at least 2 studies, got {number} of 3\.$"
    with pytest.raises(ValueError, match=message):
        load_studies(table, folder)


def test_quotes_inside_a_text_are_kept(folder):
    manifest = read_manifest(write(folder, 'image,report\na.png,the "tree in bud" sign\nb.png,"a ""halo"""\n'))
    assert [study["report"] for study in manifest.studies] == ['the "tree in bud" sign', 'a "halo"']


def test_windows_separators(folder):
    (folder / "images").mkdir()
    shutil.copy(folder / "a.png", folder / "images")
    manifest = read_manifest(write(folder, "image,report\nimages\\a.png,Clear.\n"))
    assert manifest.studies[0]["image"] == str(folder / "images" / "a.png")


@pytest.mark.parametrize("blank", ["", "   ", "nan", "NaN", '" \n "'])
def test_blank_reports_are_no_reports_and_are_counted(folder, blank):
    manifest = read_manifest(write(folder, f"image,report\na.png,Clear.\nb.png,{blank}\n"))
    assert manifest.counts == {"rows": 2, "skipped": 0, "image": 2, "report": 1, "label": 0}
    assert manifest.summary() == (
        "cases.csv: 2 rows: 2 with an image, 0 without; 1 with a report, 1 without; 0 with a label, 2 without."
    )
    needed = manifest.drop_missing("image", "report")
    assert (len(needed), needed.dropped) == (1, {"report": 1})
    assert needed.summary().endswith(" 1 study without a report dropped.")
    with pytest.raises(
        ValueError,
        match=r"^None of the 2 studies of cases\.csv has a report and a label; no row has a label, so check which column",
    ):
        manifest.drop_missing("report", "label")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("latin-1", "cp1252"), ("cp1252", "cp1252")],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(folder, encoding, said, newline):
    text = newline.join(["image,report", 'a.png,"Schädel,', 'kein ""Erguss"""', "b.png,naïf", ""])
    manifest = read_manifest(write(folder, text, encoding=encoding))
    assert [study["report"] for study in manifest.studies] == [f'Schädel,{newline}kein "Erguss"', "naïf"]
    assert manifest.encoding == said
    assert (f"not UTF-8 and was read as {said}" in manifest.summary()) == (said != "utf-8")


def test_bytes_of_no_windows_letter_are_latin_1(folder):
    path = folder / "cases.csv"
    path.write_bytes(b"image,report\na.png,na\xefve \x81\n")
    manifest = read_manifest(path)
    assert (manifest.encoding, manifest.studies[0]["report"]) == ("latin-1", "na\xefve \x81")


@pytest.mark.parametrize(("separator", "name"), [(",", "c.csv"), (";", "c.csv"), ("\t", "c.csv"), ("\t", "c.tsv")])
def test_separators(folder, separator, name):
    text = f"image{separator}report\na.png{separator}Lungs: clear\n"
    assert read_manifest(write(folder, text, name)).studies[0]["report"] == "Lungs: clear"


def test_json_lines(folder):
    rows = [
        {"image": ["a.png", "b.png"], "report": "Two\nviews.", "study_id": 7, "finding": [1, 0, None]},
        {"image": None, "report": "Text only.", "finding": [-1, 1, 0]},
        {"image": "c.png", "patient_id": "p", "finding": None},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    manifest = read_manifest(write(folder, text, "cases.jsonl"), label_column="finding", label_names=["x", "y", "z"])
    assert manifest.counts == {"rows": 3, "skipped": 0, "image": 2, "report": 2, "label": 2}
    assert [study["study_id"] for study in manifest.studies] == ["7", "7", "row 2", "c.png"]
    assert [study.get("image", "")[-5:] for study in manifest.studies] == ["a.png", "b.png", "", "c.png"]
    np.testing.assert_array_equal(manifest.studies[0]["label"], np.float32([1, 0, np.nan]))
    assert manifest.studies[0]["label"].dtype == np.float32
    assert manifest.names == ("x", "y", "z")
    assert manifest.studies[3]["patient_id"] == "p"


def test_json_is_a_list_or_a_datalist_of_monai(folder):
    rows = [{"image": "a.png", "report": "One.", "patient": 7}, {"image": ["b.png", "c.png"], "report": "Two."}]
    studies = read_manifest(write(folder, json.dumps(rows, indent=2), "cases.json")).studies
    assert [study["report"] for study in studies] == ["One.", "Two.", "Two."]
    assert "split" not in studies[0]
    datalist = {"name": "cases", "training": rows[:1], "validation": [{**rows[1], "split": "test"}], "test": ["c.png"]}
    path = write(folder, json.dumps(datalist), "datalist.json")
    with pytest.raises(StudyError, match="study 'row 3', report: row 3: it is not a JSON object"):
        read_manifest(path)
    manifest = read_manifest(path, on_error="skip")
    assert [study["split"] for study in manifest.studies] == ["train", "test", "test"]
    assert manifest.counts["skipped"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image": "a.png",}]', r"path: cases\.json is not valid JSON \("),
        ('{"name": "x"}', r"path: cases\.json holds no list of objects"),
        ("[1, 2]", r"path: cases\.json holds no list of objects"),
    ],
)
def test_bad_json(folder, text, message):
    with pytest.raises(ValueError, match=message):
        read_manifest(write(folder, text, "cases.json"))


def test_views_of_a_study_share_its_id(folder):
    manifest = read_manifest(write(folder, "study_id,image,report\ns,a.png,One.\ns,b.png,One.\nt,c.png,Two.\n"))
    assert [study["study_id"] for study in manifest.studies] == ["s", "s", "t"]
    manifest = read_manifest(write(folder, "image,report\na.png,One.\na.png,Two.\n"))
    assert [study["study_id"] for study in manifest.studies] == ["a.png", "a.png"]


def test_ids_that_several_patients_have_stay_apart(folder):
    rows = "patient,study,image,report\np,1,a.png,One.\nq,1,b.png,Two.\np,2,c.png,Three.\n"
    studies = read_manifest(write(folder, rows)).studies
    assert [study["study_id"] for study in studies] == ["p/1", "q/1", "2"]


def test_a_study_belongs_to_one_patient(folder):
    rows = "patient,study,image,report\n,1,a.png,One.\np,1,b.png,One.\n,2,c.png,Two.\n"
    studies = read_manifest(write(folder, rows)).studies
    assert [study.get("patient_id") for study in studies] == ["p", "p", None]
    rows = "patient,study,image,report,split\n,1,a.png,One.,train\np,1,b.png,One.,test\n"
    with pytest.raises(StudyError, match="the patient is in train and in test"):
        read_manifest(write(folder, rows))


# Labels


def test_chexpert_columns_are_found_in_their_order(folder):
    manifest = read_manifest(write(folder, "image,Pleural Effusion,Edema,No Finding\na.png,1.0,-1.0,\nb.png,,0,1\n"))
    assert manifest.names == ("No Finding", "Edema", "Pleural Effusion")
    np.testing.assert_array_equal(
        [study["label"] for study in manifest.studies], np.float32([[np.nan, -1, 1], [1, 0, np.nan]])
    )
    one = read_manifest(write(folder, "image,report,Edema\na.png,Clear.,1\n"))
    assert one.names == ()
    assert "label" not in one.studies[0]
    assert len(set(CHEXPERT_FINDINGS)) == 14


def test_columns_by_name(folder):
    path = write(folder, "image,tb,mass\na.png,1,0\nb.png,,\n")
    manifest = read_manifest(path, label_column=["mass", "tb"])
    assert manifest.names == ("mass", "tb")
    np.testing.assert_array_equal(manifest.studies[0]["label"], np.float32([0, 1]))
    assert "label" not in manifest.studies[1]
    assert read_manifest(path, label_column=["mass", "tb"], label_names=["Mass", "TB"]).names == ("Mass", "TB")
    assert read_manifest(path, label_column=["tb"]).names == read_manifest(path, label_column="tb").names == ("tb",)


@pytest.mark.parametrize("columns", ["tb", ["tb", "mass"]])
def test_booleans_are_states_and_no_classes(folder, columns):
    manifest = read_manifest(
        write(folder, "image,tb,mass\na.png,True,\nb.png,False,true\nc.png,,\n"), label_column=columns
    )
    assert manifest.names == tuple([columns] if isinstance(columns, str) else columns)
    assert [study["label"][0] for study in manifest.studies[:2]] == [1, 0]
    assert "label" not in manifest.studies[2]


def test_names_of_classes_may_be_numbers(folder):
    manifest = read_manifest(
        write(folder, "image,grade\na.png,2\nb.png,0\n"), label_column="grade", label_names=["0", "1", "2"]
    )
    assert [study["label"].tolist() for study in manifest.studies] == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    "cells",
    [
        ("yes", "no"),
        ("Y", "N"),
        ("Positive", "Negative"),
        ("present", "absent", "uncertain"),
        ("90%", "7,5 %", "0%"),
        ("2020-01-02", "3.12.2021", "12/31/20"),
        ("positive",),
    ],
)
def test_answers_are_no_classes_unless_they_are_named(folder, cells):
    rows = "".join(f'one,"{cell}"\ntwo,"{cell}"\n' for cell in cells)
    table = write(folder, f"report,tb\n{rows}")
    with pytest.raises(ValueError, match=r"^label_column: 'tb' must have names of classes, or states 1, 0, -1 of one"):
        read_manifest(table, image_column=None, label_column="tb")
    assert read_manifest(table, image_column=None, label_column="tb", label_names=cells).names == cells


def test_a_decimal_comma_is_no_list(folder):
    table = write(folder, 'image,tb\na.png,"1,0"\nb.png,"0,0"\nc.png,"-1,0"\n')
    with pytest.raises(ValueError, match=r"^label_column: 'tb' must have states without a decimal comma, .* got '1,0'"):
        read_manifest(table, label_column="tb")
    lists = read_manifest(table, label_column="tb", label_names=["tb", "mass"])
    assert [study["label"].tolist() for study in lists.studies] == [[1, 0], [0, 0], [-1, 0]]


@pytest.mark.parametrize("separator", ["|", ";"])
def test_class_names(folder, separator):
    text = f"image,finding\na.png,Edema{separator}Mass\nb.png,No Finding\nc.png,\n"
    manifest = read_manifest(write(folder, text.replace(",Edema;Mass", ',"Edema;Mass"')), label_column="finding")
    assert manifest.names == ("Edema", "Mass", "No Finding")
    assert [study["label"].tolist() for study in manifest.studies[:2]] == [[1, 1, 0], [0, 0, 1]]
    assert "label" not in manifest.studies[2]


@pytest.mark.parametrize("cell", ["1;0;-1;;1", "1|0|-1||1", '"[1, 0, -1, null, 1]"', '"1,0,-1,,1"'])
def test_lists_of_numbers(folder, cell):
    manifest = read_manifest(write(folder, f"image,y\na.png,{cell}\n"), label_column="y")
    np.testing.assert_array_equal(manifest.studies[0]["label"], np.float32([1, 0, -1, np.nan, 1]))
    assert manifest.names == ()


BAD_ROWS = [
    ("image,report\nmissing.png,Clear.\n", {}, "image", r"row 1 \(line 2\): the file missing.png does not exist"),
    ("image,report\na.png,x\n ,nan\n", {}, "report", r"row 2 \(line 3\): there is neither an image nor a report"),
    ("image,report\na.png,x,y\n", {}, "report", r"row 1 \(line 2\): the row has 3 cells, expected 2 as in the header"),
    (
        'image,y\n"a.png",1;0;1\nb.png,1;0\nc.png,0;0;0\n',
        {"label_column": "y"},
        "y",
        r"row 2 \(line 3\): the label has 2 values, expected 3 as in most rows",
    ),
    (
        "image,y\na.png,1;0;1\n",
        {"label_column": "y", "label_names": ["p", "q"]},
        "y",
        r"row 1 \(line 2\): the label has 3 values, expected 2 one for each name",
    ),
    (
        "image,y\na.png,cat\nb.png,dog\n",
        {"label_column": "y", "label_names": ["cat", "cow"]},
        "y",
        r"row 2 \(line 3\): the label is not one of the 2 names cat, cow",
    ),
    (
        "image,Edema,Fracture\na.png,1,2\n",
        {},
        "Fracture",
        r"row 1 \(line 2\): expected 1 \(present\), 0 \(absent\), -1 \(uncertain\) or blank \(not mentioned\), got 2$",
    ),
    ("image,Edema,Fracture\na.png,1,123456\n", {}, "Fracture", r"row 1 \(line 2\): expected 1 .*, got a number$"),
    ("image,Edema,Fracture\na.png,1,yes\n", {}, "Fracture", r"row 1 \(line 2\): expected 1 .*, got a text$"),
    (
        "image,report,split\na.png,x,train\nb.png,y,hold-out\n",
        {},
        "split",
        r"row 2 \(line 3\): expected train, val or test, got a text$",
    ),
    *(
        (f"image,report,split\na.png,x,{name}\n", {}, "split", r"expected train, val or test, got a (text|number)$")
        for name in ("Zyxwquist", "77194038", "Dr. Vexley", "A 7", "trained by Zyx")
    ),
    (
        "image,report,split\na.png,x,\n",
        {},
        "split",
        r"row 1 \(line 2\): expected train, val or test, got an empty cell$",
    ),
    (
        "image,report,split,patient\na.png,x,train,p\nb.png,y,test,p\nc.png,z,train,q\n",
        {},
        "split",
        r"row 1: the patient is in train and in test; expected all studies of a patient in one split",
    ),
]


@pytest.mark.parametrize(("text", "options", "column", "reason"), BAD_ROWS)
def test_bad_rows_name_row_and_column_or_are_skipped(folder, text, options, column, reason):
    path = write(folder, text)
    with pytest.raises(StudyError, match=reason) as raised:
        read_manifest(path, **options)
    assert raised.value.key == column
    assert "\n" not in str(raised.value)
    manifest = read_manifest(path, **options, on_error="skip")
    assert [str(error) for error in manifest.skipped] == [str(raised.value)]
    assert manifest.counts["skipped"] == 1
    assert len(manifest) == manifest.counts["rows"] - 1
    assert "(1 skipped for an error)" in manifest.summary()


def test_bad_json_lines(folder):
    text = '{"image": "a.png", "report": "x"}\n{"image": \n[1]\n{"image": 3}\n{"image": "b.png", "report": 3}\n'
    manifest = read_manifest(write(folder, text, "c.jsonl"), on_error="skip")
    assert len(manifest) == 1
    assert [error.reason for error in manifest.skipped] == [
        "row 2 (line 2): the line is not valid JSON (Expecting value)",
        "row 3 (line 3): the line is not a JSON object; expected {...} with one key a column",
        "row 4 (line 4): expected a path, got int",
        "row 5 (line 5): expected a str, got int",
    ]


def test_no_patient_text_in_errors(folder):
    secret = "Mr Smith has a mass"
    columns = {"image_column": "text", "report_column": None}
    with pytest.raises(StudyError, match="expected the path of an image, got a text of 19 characters") as raised:
        read_manifest(write(folder, f"text,image\n{secret},a.png\n"), **columns)
    assert secret not in str(raised.value)
    for options in ({"label_column": ["text", "image"]}, {"split_column": "text"}):
        with pytest.raises(StudyError) as raised:
            read_manifest(write(folder, f"image,text\na.png,{secret} {secret}\n"), report_column=None, **options)
        assert "Smith" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        (
            "image,text\na.png,x\n",
            "c.csv",
            {},
            "report_column: c.csv has no column 'report'; its columns are image, text.",
        ),
        (
            "image,Findings\na.png,x\n",
            "c.csv",
            {"report_column": "finding"},
            "report_column: c.csv has no column 'finding' (did you mean 'Findings'?); its columns are image, Findings.",
        ),
        ("img,report\na.png,x\n", "c.csv", {}, "image_column: c.csv has no column 'image' (did you mean 'img'?)"),
        ("image,report\na.png,x\n", "c.csv", {"label_column": "y"}, "label_column: c.csv has no column 'y'"),
        ("image,report\na.png,x\n", "c.csv", {"split_column": "fold"}, "split_column: c.csv has no column 'fold'"),
        ("image,report\na.png,x\n", "c.csv", {"patient_column": "id"}, "patient_column: c.csv has no column 'id'"),
        ("image,report\na.png,x\n", "c.csv", {"study_column": "id"}, "study_column: c.csv has no column 'id'"),
        (
            "image,report\na.png,x\n",
            "c.csv",
            {"on_error": "warn"},
            "on_error must be one of 'raise', 'skip', got 'warn'.",
        ),
        (
            "image,report\na.png,x\n",
            "c.csv",
            {"image_column": None, "report_column": None},
            "image_column or report_column must name a column of c.csv, got None for both; its columns are image, report.",
        ),
        (
            "image,report\na.png,x\n",
            "c.csv",
            {"label_column": ["image", "report"], "label_names": ["p"]},
            "label_names must have 2 names, one for each label column, got 1.",
        ),
        (
            f"image,report\na.png,{'Clear lungs. ' * 9}\n",
            "c.csv",
            {"label_column": "report"},
            "label_column must name a column of class names of at most 100 characters, got 'report' with texts of up to 116",
        ),
        ("", "c.csv", {}, "path: c.csv is empty"),
        (" \n\n", "c.jsonl", {}, "path: c.jsonl is empty"),
        ("image,report\n", "c.csv", {}, "path: c.csv has a header and no rows"),
        ("image,report,image\na.png,x,b.png\n", "c.csv", {}, "path: c.csv has more than one column named 'image'"),
        (
            'image,report\na.png,"never closed\nb.png,x\n',
            "c.csv",
            {},
            "path: c.csv cannot be read as a table from row 1",
        ),
        (
            "image,report\na.png,x\n",
            "c.txt",
            {},
            "path must end in one of .csv, .tsv, .tab, .jsonl, .ndjson, .json, .parquet, .xlsx (and .gz, as .csv.gz), got",
        ),
        ("image,report\n", "c.jsonl", {}, "path: c.jsonl has no line that is a JSON object"),
    ],
)
def test_bad_tables_are_one_sentence(folder, text, name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_manifest(write(folder, text, name), **options)
    assert not isinstance(raised.value, StudyError)
    assert "\n" not in str(raised.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: there is no file .*none.csv"):
        read_manifest(tmp_path / "none.csv")


def test_a_table_without_reports_needs_labels(folder):
    path = write(folder, "image,finding\na.png,Edema\n")
    assert "report" not in read_manifest(path, label_column="finding").studies[0]
    with pytest.raises(ValueError, match=r"report_column: cases\.csv has no column 'report'"):
        read_manifest(path)
    with pytest.raises(ValueError, match=r"report_column: cases\.csv has no column 'text'"):
        read_manifest(path, label_column="finding", report_column="text")


# Splits and fingerprint


def test_split_names(folder):
    names = ["Training", "train", "valid", "VAL", "dev", "validation", "test", " testing "]
    path = write(folder, "report,fold\n" + "".join(f"r{i},{name}\n" for i, name in enumerate(names)))
    manifest = read_manifest(path, image_column=None, split_column="fold")
    assert [study["split"] for study in manifest.studies] == ["train"] * 2 + ["val"] * 4 + ["test"] * 2
    assert [study["report"] for study in manifest.subset("test").studies] == ["r6", "r7"]
    assert manifest.assign_splits() is manifest
    with pytest.raises(ValueError, match=r"^split must be one of 'train', 'val', 'test', 'all', got 'dev'\.$"):
        manifest.subset("dev")


def test_split_asks_for_splits(folder):
    manifest = read_manifest(write(folder, "image,report\na.png,x\nb.png,y\nc.png,z\n"))
    with pytest.raises(
        ValueError, match=r"cases.csv has no split column; call assign_splits\(\) to split it by patient\.$"
    ):
        manifest.subset("train")
    assert sum(len(manifest.assign_splits().subset(name)) for name in ("train", "val", "test")) == 3


@given(
    patients=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    shares=st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]),
    data=st.data(),
)
@settings(max_examples=settings.default.max_examples // 2)
def test_splits_never_cut_a_patient(patients, seed, shares, data):
    studies = [{"study_id": f"s{i}", "patient_id": f"p{patient}"} for i, patient in enumerate(patients)]
    split = split_by_patient(studies, shares, seed)
    where = {study["patient_id"]: study["split"] for study in split}
    assert all(where[study["patient_id"]] == study["split"] for study in split)
    assert all("split" not in study for study in studies)
    for name, share in zip(("train", "val", "test"), shares, strict=True):
        count = sum(value == name for value in where.values())
        assert abs(count - share * len(where)) < 2
        if len(where) >= 3:
            assert (count > 0) == (share > 0)
    shuffled = data.draw(st.permutations(studies))
    assert {study["study_id"]: study["split"] for study in split_by_patient(shuffled, shares, seed)} == {
        study["study_id"]: study["split"] for study in split
    }


def test_splits_of_studies_without_a_patient():
    studies = [{"study_id": str(i // 3)} for i in range(90)]
    split = split_by_patient(studies)
    assert len({(study["study_id"], study["split"]) for study in split}) == 30
    assert sum(study["split"] == "train" for study in split) == 63
    assert split_by_patient(studies, seed=1) != split
    with pytest.raises(
        ValueError, match=r"^fractions must be three numbers of at least 0 with sum 1, got \(0\.5, 0\.2, 0\.2\)\.$"
    ):
        split_by_patient(studies, (0.5, 0.2, 0.2))


def test_fingerprint_follows_content_and_not_the_place(folder, tmp_path_factory):
    text = "image,report,y\na.png,One.,1;0\nb.png,Two.,0;0\n"
    before = read_manifest(write(folder, text), label_column="y").fingerprint()
    elsewhere = tmp_path_factory.mktemp("moved")
    shutil.copytree(folder, elsewhere / "data")
    moved = write(elsewhere / "data", text)
    assert read_manifest(moved, label_column="y").fingerprint() == before
    (elsewhere / "absolute").mkdir()
    absolute = write(
        elsewhere / "absolute", text.replace("a.png", str(folder / "a.png")).replace("b.png", str(folder / "b.png"))
    )
    assert read_manifest(absolute, label_column="y").fingerprint() == before
    for changed in (text.replace("One", "Won"), text.replace("1;0", "1;1"), text.replace("b.png", "c.png")):
        assert read_manifest(write(folder, changed), label_column="y").fingerprint() != before
    (elsewhere / "data" / "a.png").write_bytes(b"another size")
    assert read_manifest(moved, label_column="y").fingerprint() != before


def test_a_folder_of_slices_is_an_image(folder):
    (folder / "series").mkdir()
    path = write(folder, "image,report\nseries,x\n")
    before = read_manifest(path).fingerprint()
    (folder / "series" / "1.dcm").write_bytes(b"slice")
    manifest = read_manifest(path)
    assert manifest.studies[0]["image"] == str(folder / "series")
    assert manifest.fingerprint() != before


def test_label_columns_must_differ(folder):
    path = write(folder, "image,tb\na.png,1\n")
    with pytest.raises(ValueError, match=r"^label_column must name distinct columns, got \['tb', 'tb'\]\.$"):
        read_manifest(path, label_column=["tb", "tb"])


CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["a.png", "~x/a.png", "1;0", "train", "Edema", "[1,", "[[1]]", "", "nan", "\x00"]),
    st.lists(st.one_of(st.none(), st.integers(-1, 1), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {}, optional={key: CELL for key in ("image", "report", "y", "study_id", "patient", "split")}
        ),
        min_size=1,
        max_size=6,
    ),
    suffix=st.sampled_from([".jsonl", ".csv"]),
    label=st.sampled_from([None, "y"]),
)
@settings(
    max_examples=2 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_odd_cells_are_read_or_counted(folder, rows, suffix, label):
    path = folder / f"odd{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        pandas.DataFrame(rows).to_csv(path, index=False, encoding="utf-8", errors="replace")
    try:
        manifest = read_manifest(path, label_column=label, on_error="skip")
    except ValueError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert re.search("has no column|is empty|no rows|no line|cannot be read as a table", message), message
        assert "\n" not in message
        return
    assert manifest.counts["rows"] == len({study["row"] for study in manifest.studies}) + len(manifest.skipped)
    assert re.fullmatch("[0-9a-f]{64}", manifest.fingerprint())
    for study in manifest.studies:
        assert "image" in study or study["report"].strip()
        assert study.get("label", np.zeros(len(manifest.names))).dtype in (np.float32, np.float64)
    for split in {study["split"] for study in manifest.studies if "split" in study}:
        assert split in ("train", "val", "test")


# Real tables


def test_real_cases_with_text(shared_data):
    path = shared_data / "cxr-cases" / "cases.csv"
    manifest = read_manifest(path, report_column="text", label_column="finding")
    assert manifest.counts == {"rows": 212, "skipped": 0, "image": 212, "report": 146, "label": 212}
    paired = manifest.drop_missing("image", "report").assign_splits()
    assert (len(paired), paired.dropped) == (146, {"report": 66})
    where: dict[str, set[str]] = {}
    for study in paired.studies:
        where.setdefault(study["patient_id"], set()).add(study["split"])
    assert {len(splits) for splits in where.values()} == {1}
    assert manifest.names[manifest.names.index("No Finding")] == "No Finding"


def test_real_cases_assign_splits(shared_data):
    manifest = read_manifest(shared_data / "pneumonia" / "cases.csv", label_column="finding")
    assert [len(manifest.subset(name)) for name in ("train", "val", "test")] == [3882, 524, 624]
    assert manifest.names == ("No Finding", "Pneumonia")
    assert np.stack([study["label"] for study in manifest.subset("train").studies]).sum(0).tolist() == [388, 3494]


@pytest.mark.parametrize("fractions", ["abc", 5, None, (float("nan"), 0.5, 0.5), ("a", "b", "c"), (-0.5, 0.5, 1.0)])
def test_fractions_are_three_numbers(fractions):
    with pytest.raises(ValueError, match=r"^fractions must be three numbers of at least 0 with sum 1, got "):
        split_by_patient([{"study_id": "a"}], fractions)


def test_ids_in_characters_of_other_width_stay_in_one_split():
    studies = [{"study_id": str(i), "patient_id": name} for i, name in enumerate(("p7", "ｐ７", "P07", "p8"))]
    for seed in range(8):
        splits = [study["split"] for study in split_by_patient(studies, (0.5, 0.25, 0.25), seed)]
        assert len(set(splits[:3])) == 1


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        *(
            ({name: 5}, f"{name} must be a string, got int.")
            for name in ("image_column", "split_column", "image_suffix")
        ),
        *(({name: 5}, f"{name} must be a string, got int.") for name in ("patient_column", "study_column")),
        ({"image_template": b"a"}, "image_template must be a string, got bytes (decode it first, as in "),
        *(({name: 5}, f"{name} must be a string or a list of strings, got int.") for name in ("report_column", "join")),
        *(({name: [5]}, f"each name of {name} must be a string, got int.") for name in ("label_column", "label_names")),
        ({"image_root": 5}, "image_root must be a path, got int."),
        ({"path": None}, "path must be a path, got NoneType."),
        ({"path": b"cases.csv"}, "path must be a path, got bytes."),
    ],
)
def test_an_argument_of_another_type_is_named(tmp_path, named, sentence):
    (tmp_path / "cases.csv").write_text("report\nClear.\n")
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}"):
        read_manifest(**{"path": tmp_path / "cases.csv", **named})


CONTRADICTION = (
    "rows 1 and 3 have the same image file and state the finding {} as 1 and {}; expected one state for an image, "
    "as each row lists all findings of its image"
)


@pytest.mark.parametrize(
    ("text", "columns", "finding", "other"),
    [
        ("image,report,Edema,Fracture\na.png,x,1,\nb.png,x,0,0\n./a.png,y,0,1\n", ["Edema", "Fracture"], "'Edema'", 0),
        ("image,report,Edema,Fracture\na.png,x,1,\nb.png,x,0,0\nl.png,y,-1,\n", ["Edema", "Fracture"], "'Edema'", -1),
        # a row for each finding, as boxes are listed
        ("image,report,finding\na.png,x,Edema\nb.png,x,Normal\na.png,x,Fracture\n", "finding", "'Edema'", 0),
        ("image,report,label\na.png,x,0;1\nb.png,x,1;1\na.png,y,0;0\n", "label", "number 2", 0),
        ("study_id,image,report,Edema\ns,a.png,x,1\nt,b.png,x,0\nu,a.png,y,0\n", "Edema", "'Edema'", 0),
    ],
)
def test_rows_of_an_image_that_state_a_finding_differently_are_said(folder, text, columns, finding, other):
    (folder / "l.png").hardlink_to(folder / "a.png")
    table = write(folder, text)
    reason = CONTRADICTION.format(finding, other)
    with pytest.raises(StudyError, match=re.escape(reason)) as error:
        read_manifest(table, label_column=columns)
    assert str(error.value).endswith("(2 such rows)")
    manifest = read_manifest(table, label_column=columns, on_error="skip")
    assert [study["row"] for study in manifest.studies] == [2]
    assert [one.reason for one in manifest.skipped] == [reason] * 2
    assert manifest.counts["skipped"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "image,report,Edema,Fracture\na.png,x,1,\na.png,x,1,0\na.png,,,0\n",  # a box a row, and what is not mentioned
        "study_id,image,report,Edema,Fracture\ns,a.png,x,1,0\ns,b.png,x,0,0\n",  # views of a study, each with its label
        "image,report,Edema,Fracture\n,x,1,0\n,x,0,1\n",  # texts
    ],
)
def test_rows_of_an_image_may_agree(folder, text):
    table = write(folder, text)
    assert len(read_manifest(table, label_column=["Edema", "Fracture"])) == text.count("\n") - 1
