"""Cells as spreadsheets, pandas, NumPy and exports write them: one value in many spellings is one value."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pandas
import pytest

from medvl.data import load_sources, read_manifest, split_by_patient
from medvl.utils.csv_files import CsvWriter
from medvl.utils.errors import StudyError


def write(folder, text, name="cases.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def labeled(folder, cells, **options):
    """The classes of each cell of a column of class names, and all classes."""
    pandas.DataFrame({"report": "Text.", "finding": cells}).to_csv(folder / "cases.csv", index=False)
    manifest = read_manifest(folder / "cases.csv", image_column=None, label_column="finding", **options)
    classes = [
        [name for name, state in zip(manifest.names, study["label"], strict=True) if state == 1]
        if "label" in study
        else None
        for study in manifest.studies
    ]
    return classes, manifest.names


def patients(folder, cells):
    text = json.dumps([{"report": "Text.", "patient": cell} for cell in cells])
    studies = read_manifest(write(folder, text, "cases.json"), image_column=None).studies
    return [study.get("patient_id") for study in studies]


class TestClassNames:
    @pytest.mark.parametrize(
        "cell",
        [
            "Edema, Fracture",
            "Edema,Fracture",
            "Edema, Fracture,",
            "Edema | Fracture",
            "Edema;Fracture;",
            "Edema\nFracture",
            "Edema；Fracture",
            "Edema、Fracture",
            "['Edema', 'Fracture']",
            '["Edema", "Fracture"]',
            "['Edema' 'Fracture']",
            "['Edema'\n 'Fracture']",
            "['Edema', 'Fracture', nan]",
            "['Edema', \"Fracture\", '']",
            "('Edema', 'Fracture')",
            "{'Edema', 'Fracture'}",
            "[Edema, Fracture]",
            " ['Edema', 'Fracture'] ",
            "['Edema', 'Fracture', 'Edema']",
        ],
    )
    def test_several_names_in_a_cell_are_several_classes(self, folder, cell):
        classes, names = labeled(folder, [cell, "Fracture", "Mass"])
        assert classes == [["Edema", "Fracture"], ["Fracture"], ["Mass"]]
        assert names == ("Edema", "Fracture", "Mass")

    def test_names_of_no_vocabulary_are_known_from_the_other_cells(self, folder):
        classes, _ = labeled(folder, ["asbestosis, silicosis", "silicosis", "asbestosis, berylliosis", "berylliosis"])
        assert classes[0] == ["asbestosis", "silicosis"]
        assert classes[2] == ["asbestosis", "berylliosis"]

    def test_a_comma_that_may_belong_to_the_name_is_an_error_until_the_names_are_given(self, folder):
        cells = ["Nodule, solid", "No Finding"]
        with pytest.raises(
            StudyError, match=r"^study 'row 1', finding: row 1 \(line 2\): a name with a comma or tab may be "
        ):
            labeled(folder, cells)
        given, _ = labeled(folder, cells, label_names=["No Finding", "Nodule, solid"])
        assert given == [["Nodule, solid"], ["No Finding"]]
        assert labeled(folder, ["['Nodule, solid', 'Mass']"])[1] == ("Mass", "Nodule, solid"), "quotes leave no doubt"
        split, _ = labeled(folder, ["solid, Mass"], label_names=["Mass", "solid"])
        assert split == [["Mass", "solid"]]

    @pytest.mark.parametrize(
        "joined",
        [
            "Edema/Mass",
            "edema / Mass",
            "Edema & Mass",
            "Edema+Mass",
            "Edema and Mass",
            "Edema AND Mass",
            "Edema or Mass",
            "edema_and_Mass",
            "Edema and/or Mass",
            "Edema und Mass",
            "Edema with Mass",
            "Edema\\Mass",
            "Edema/Mass.",
        ],
    )
    def test_a_joined_name_of_classes_is_an_error_until_the_names_are_given(self, folder, joined):
        with pytest.raises(
            StudyError, match=r"row 2 .*: a name that joins other classes, as by / or 'and', may be one class or"
        ):
            labeled(folder, ["Edema", joined, "Mass"])
        assert labeled(folder, ["Edema", joined, "Mass"], label_names=["Edema", joined, "Mass"])[0][1] == [joined]
        own = joined.strip(".")
        assert labeled(folder, ["Edema", joined])[1] == ("Edema", own), "Mass is no class of its own here"

    @pytest.mark.parametrize(
        "names",
        [
            ["Opacity", "Lung", "Opacity/lung/base/left"],
            ["PET", "CT", "PET-CT"],
            ["Mild", "Moderate", "Mild-Moderate", "Moderate - Mild"],
            ["positive", "negative", "false-positive", "false", "false - negative"],
            ["Lung", "nodule", "Lung: nodule", "Lung. Nodule"],
            ["Normal", "variant", "Normal - variant"],
            ["Edema", "Mass", "Edema/Mass/Fracture"],
            ["Oedema", "Mandible", "Oedemandible", "orbit", "Edemas and"],
        ],
    )
    def test_signs_that_may_be_part_of_a_name_join_no_classes(self, folder, names):
        assert labeled(folder, names)[0] == [[name] for name in names]

    @pytest.mark.parametrize(
        "cell",
        [
            *(f"{bullet} Edema {bullet} Mass" for bullet in "\u2022\u2023\u25cf\u25aa\u25e6\uf0b7"),
            *(f"{bullet} Edema\n{bullet} Mass" for bullet in "\u2022-*\u2013\u00b7"),
            *(f"Edema{end}Mass" for end in ("\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\uff5c")),
        ],
    )
    def test_bullets_and_every_end_of_a_line_separate_names(self, folder, cell):
        path = folder / "cases.jsonl"
        cells = [cell, "Edema", "Mass"]
        path.write_text("".join(json.dumps({"report": "Text.", "finding": one}) + "\n" for one in cells))
        manifest = read_manifest(path, image_column=None, label_column="finding")
        assert manifest.names == ("Edema", "Mass")
        assert [study["label"].tolist() for study in manifest.studies] == [[1, 1], [1, 0], [0, 1]]

    def test_numbers_on_lines_of_their_own_are_states(self, folder):
        path = folder / "cases.jsonl"
        path.write_text(
            "".join(json.dumps({"report": "A.", "y": f"1{end}0{end}-1"}) + "\n" for end in ("\r\n", "\n", "\r"))
        )
        manifest = read_manifest(path, image_column=None, label_column="y", label_names=["a", "b", "c"])
        assert [study["label"].tolist() for study in manifest.studies] == [[1, 0, -1]] * 3

    @pytest.mark.parametrize("cell", ["- 1", "0\n- 1", "- 1\n- 0\n- 1"])
    def test_a_hyphen_before_a_number_is_no_mark_of_a_list(self, folder, cell):
        path = folder / "cases.jsonl"
        rows = [{"report": "A.", "y": one} for one in ("1\n0\n1", "0\n0\n1", cell)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(StudyError, match="row 3"):
            read_manifest(path, image_column=None, label_column="y", label_names=["a", "b", "c"])

    def test_a_hyphen_before_some_names_is_no_mark_of_a_list(self, folder):
        cells = ["+ Edema", "- Edema", "Edema", "+ Mass\n- Edema"]
        assert labeled(folder, cells)[0] == [["+ Edema"], ["- Edema"], ["Edema"], ["+ Mass", "- Edema"]]

    def test_a_tab_is_as_a_comma(self, folder):
        assert labeled(folder, ["Edema\tMass", "Edema", "Mass"])[0] == [["Edema", "Mass"], ["Edema"], ["Mass"]]
        with pytest.raises(StudyError, match=r"row 1 .*: a name with a comma or tab may be one class or several"):
            labeled(folder, ["solid\tnodule", "Edema"])
        names = ["solid nodule", "Edema"]
        assert labeled(folder, ["solid\tnodule", "Edema"], label_names=names)[0] == [["solid nodule"], ["Edema"]]

    def test_parts_of_several_cells_are_classes_of_joined_names_too(self, folder):
        with pytest.raises(StudyError, match=r"row 4 .*: a name that joins other classes"):
            labeled(folder, ["solid, nodule", "nodule, calcified", "solid, calcified", "solid/nodule"])

    def test_a_point_before_a_name_is_part_of_it(self, folder):
        assert labeled(folder, [".5 mm", "5 mm"])[1] == (".5 mm", "5 mm")

    def test_decimals_of_a_class_are_those_of_its_number(self, folder):
        assert labeled(folder, ["1.000", "2.000", "1.0"], label_names=["1", "2"])[0] == [["1"], ["2"], ["1"]]

    @pytest.mark.parametrize(
        "name",
        [
            "Pleural/Other",
            "Nodule/Mass",
            "bandlike_or_linear",
            "COVID-19",
            "1-2",
            "Ground-Glass Opacity",
            "Mass with Nodule-like margin",
            "Enlarged heart and vessels",
            "St. Jude valve",
            "HER2+",
            "Hepatitis E",
        ],
    )
    def test_a_name_of_signs_and_words_is_one_class(self, folder, name):
        cells = ["1", "2", "Mass", "Pleural Effusion", "No Finding", "Effusion", "Opacity", name]
        classes, names = labeled(folder, cells)
        assert classes[-1] == [name]
        assert len(names) == len(cells)

    def test_the_name_of_a_class_has_single_spaces(self, folder):
        assert labeled(folder, ["Lung  Lesion", "Lung Lesion", "Lung  Lesion"])[1] == ("Lung Lesion",)

    @pytest.mark.parametrize(
        "spelling",
        [
            "edema",
            "EDEMA",
            " Edema ",
            "Edema\u00a0",
            "\ufeffEdema",
            "Edema\u200b",
            "Edem\u200ba",
            "Edem\xada",
            "_edema_",
            "Ｅｄｅｍａ",
            "Edema|edema",
            "Edema.",
            "EDEMA;",
            "Edema :",
            "\u201cEdema\u201d",
            "Ed\u2066ema\u200e",
        ],
    )
    def test_spellings_of_one_class(self, folder, spelling):
        classes, names = labeled(folder, ["Edema", spelling, "Edema"])
        assert (classes, names) == ([["Edema"]] * 3, ("Edema",))
        assert labeled(folder, [spelling], label_names=["Edema", "Mass"])[0] == [["Edema"]]

    @pytest.mark.parametrize(
        "pair", [("Schädel", "Scha\u0308del"), ("COVID-19", "COVID\u201119"), ("a b", "a_b"), ("2", "2.0")]
    )
    def test_unicode_forms_dashes_and_numbers(self, folder, pair):
        first, second = pair
        classes, names = labeled(folder, [first, "x", second, "x", first, "x", "x"])
        assert names == tuple(sorted((first, "x")))
        assert classes[0] == classes[2] == [first]

    @pytest.mark.parametrize("pair", [("Edema", "Oedema"), ("Grade 1", "Grade 11"), ("E.Coli", "E Coli")])
    def test_what_differs_stays_apart(self, folder, pair):
        assert len(labeled(folder, [pair[0], "x", pair[1]])[1]) == 3

    @pytest.mark.parametrize(
        "cell", ["NA", "N/A", "#N/A", "nan", "None", "null", "NaT", "-", "--", "?", "[]", "['nan']"]
    )
    def test_no_name_is_no_label(self, folder, cell):
        (label, _), names = labeled(folder, [cell, "Edema"])
        assert (label, names) == (None, ("Edema",))

    def test_a_class_may_be_named_none(self, folder):
        assert labeled(folder, ["None", "Edema"], label_names=["None", "Edema"])[0] == [["None"], ["Edema"]]

    @pytest.mark.parametrize(
        ("cell", "reason"),
        [
            ("['Edema', 'Fracture", r"expected a list that ends with \], got one that does not"),
            ("{'Edema': 1, 'Fracture': 0}", "expected names or numbers, got an object"),
            ("[['Edema'], 'Mass']", "expected a list of quoted names or of numbers, got one that cannot be read"),
            ('[["Edema"], "Mass"]', "expected names or numbers, got a list in a list"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, folder, cell, reason):
        with pytest.raises(StudyError, match=rf"^study 'row 2', finding: row 2 \(line 3\): {reason}$"):
            labeled(folder, ["Mass", cell])
        assert labeled(folder, ["Mass", cell], on_error="skip")[0] == [["Mass"]]

    def test_two_columns_of_one_finding(self, folder):
        path = write(folder, "report,Edema,edema,Fracture\nText.,1,0,1\n")
        with pytest.raises(ValueError, match=r"^cases\.csv has 2 columns of the finding Edema: 'Edema', 'edema'\.$"):
            read_manifest(path, image_column=None)
        with pytest.raises(
            ValueError, match=r"^label_column: cases\.csv has the columns 'Edema' and 'edema', whose names"
        ):
            read_manifest(path, image_column=None, label_column="Edema")
        path = write(folder, "report,Edema,Fracture\nText.,1,1\n")
        for argument, options in (
            ("label_column must name distinct columns", {"label_column": ["Fracture", "Fracture"]}),
            (
                "label_names must name distinct findings",
                {"label_column": ["Edema", "Fracture"], "label_names": ["A", "a "]},
            ),
            ("label_names must name distinct classes", {"label_column": "report", "label_names": ["A", "a"]}),
        ):
            with pytest.raises(ValueError, match=rf"^{argument}, got \[.*\]\.$"):
                read_manifest(path, image_column=None, **options)

    @pytest.mark.parametrize(
        "cell", ["[1. 0. nan]", "[1 0 nan]", "[1, 0, None]", "(1, 0, nan)", "1 0 NA", "1, 0, NA", "1|0|"]
    )
    def test_numbers_in_every_list(self, folder, cell):
        pandas.DataFrame({"report": ["Text."], "y": [cell]}).to_csv(folder / "cases.csv", index=False)
        manifest = read_manifest(folder / "cases.csv", image_column=None, label_column="y")
        np.testing.assert_array_equal(manifest.studies[0]["label"], np.float32([1, 0, np.nan]))
        assert manifest.names == ()


class TestIds:
    def test_one_number_in_every_spelling_is_one_patient(self, folder):
        assert patients(folder, [7, "7", 7.0, "7.0", "7.00", " 7 ", "7\u00a0", "\ufeff7", '="7"', "7."]) == ["7"] * 10

    def test_numbers_as_spreadsheets_of_other_languages_and_medvl_write_them(self, folder):
        assert patients(folder, ["7", "'7", "7,0", "7,00", "'7.0"]) == ["7"] * 5
        assert patients(folder, ["-7a", "'-7a", "=7", "'=7", "'a'", "7,1"]) == ["-7a", "-7a", "=7", "=7", "'a'", "7,1"]

    @pytest.mark.parametrize("cell", ["1,000", "1.000", "-12,000", "999.000"])
    def test_a_number_that_is_a_thousand_or_has_decimals_is_an_error(self, folder, cell):
        whole = cell[:-4]
        reason = (
            f"study 'row 2', patient: row 2: expected an id, got {cell}, which may be {whole} or {whole}000; save the"
        )
        with pytest.raises(StudyError, match=f"^{reason} column as whole numbers$"):
            patients(folder, ["1", cell])

    def test_other_zeros_are_decimals_and_other_thousands_texts(self, folder):
        ids = ["7.000000", "7,0000", "1234.000", "0.000", "2,500", "1.000.000"]
        assert patients(folder, ids) == ["7", "7", "1234", "0", "2,500", "1.000.000"]

    def test_a_table_saved_again_by_pandas_keeps_its_patients(self, folder):
        pandas.DataFrame({"report": ["A.", "B.", "C."], "patient": [7, None, 12]}).to_csv(folder / "t.csv", index=False)
        studies = read_manifest(folder / "t.csv", image_column=None).studies
        assert [study.get("patient_id") for study in studies] == ["7", None, "12"]

    @pytest.mark.parametrize(
        "ids",
        [
            ("007", "7", "07"),
            ("007", "7.0"),
            ("p7", "P7"),
            ("7.1", "7"),
            ("1.2.0", "1.2"),
            ("7a", "7"),
            ("-7", "7"),
            ("a b", "ab"),
            (12345678901234567890, 12345678901234567891),
            ("1E5", "100000"),
        ],
    )
    def test_ids_that_differ_stay_apart(self, folder, ids):
        assert len(set(patients(folder, ids))) == len(ids)

    def test_unicode_forms_of_one_id(self, folder):
        assert len(set(patients(folder, ["Müller", "Mu\u0308ller", "Müller\u200b"]))) == 1

    @pytest.mark.parametrize(
        "spelling",
        [
            *(f"P{hyphen}1 2" for hyphen in "\u2010\u2011\u2012\u2013\u2014\u2212\uff0d\ufe63"),
            *(f"P-{unseen}1 2" for unseen in "\u200b\u200c\u200d\u200e\u202a\u2060\u2066\ufe0f\ufeff\xad"),
            *(f"P-1{space}2" for space in "\u00a0\u2009\u202f\u3000"),
        ],
    )
    def test_characters_that_look_alike_are_one_id(self, folder, spelling):
        assert patients(folder, ["P-1 2", spelling, f"{spelling}x"]) == ["P-1 2", "P-1 2", "P-1 2x"]
        rows = f"study_id,report\nP-1 2,A.\n{spelling},B.\n"
        studies = read_manifest(write(folder, rows), image_column=None).studies
        assert [study["study_id"] for study in studies] == ["P-1 2"] * 2

    def test_a_patient_in_two_spellings_is_in_one_split(self, folder):
        path = write(folder, "report,patient_id,split\nA.,P-12,train\nB.,P\u201312,test\n")
        with pytest.raises(StudyError, match=r"row 1: the patient is in train and in test"):
            read_manifest(path, image_column=None)
        studies = [
            {"study_id": str(i), "patient_id": name} for i, name in enumerate(["P-12", "P\u201312", *"abcdefgh"])
        ]
        for seed in range(8):
            split = split_by_patient(studies, seed=seed)
            assert split[0]["split"] == split[1]["split"]

    @pytest.mark.parametrize("name", ["anon", "unknown", "removed", "-", "1,000", "k.a.", "P\u20131"])
    def test_a_part_of_a_path_need_not_be_an_id(self, folder, name):
        (folder / name).mkdir()
        (folder / name / "a.png").touch()
        table = write(folder, f'report,group\nA.,"{name}"\n')
        assert read_manifest(table, image_template="{group}/a.png").studies[0]["image"] == str(folder / name / "a.png")

    def test_a_template_of_paths_has_the_characters_of_the_file(self, folder):
        (folder / "P\u201312.png").touch()
        studies = read_manifest(write(folder, "patient,report\nP\u201312,A.\n"), image_template="{patient}.png").studies
        assert studies[0]["image"] == str(folder / "P\u201312.png")
        assert studies[0]["patient_id"] == "P-12"

    @pytest.mark.parametrize(
        "cell",
        [None, "", " ", "NA", "na", "N/A", "n.a.", "#N/A", "<NA>", "nan", "NaN", "-nan", "None", "null", "NaT"],
    )
    def test_no_id_is_no_patient(self, folder, cell):
        assert patients(folder, [cell, cell, "p"]) == [None, None, "p"]

    @pytest.mark.parametrize("cell", ["#REF!", "-", "?", "___", "\u200b", "unknown", "Anonymous", '=""'])
    def test_a_placeholder_is_no_patient(self, folder, cell):
        assert patients(folder, [cell, cell, "p"]) == [None, None, "p"]

    @pytest.mark.parametrize("cell", ["1.23457E+11", "1e+16", 1e16, float("inf")])
    def test_a_rounded_id_is_an_error(self, folder, cell):
        with pytest.raises(
            StudyError, match=r"^study 'row 1', patient: row 1: expected an id, got the rounded number "
        ):
            patients(folder, [cell])

    @pytest.mark.parametrize(("cell", "kind"), [([7], "list"), ({"id": 7}, "dict"), (True, "bool")])
    def test_what_is_no_id_is_an_error(self, folder, cell, kind):
        with pytest.raises(StudyError, match=rf"^study 'row 1', patient: row 1: expected an id, got {kind}$"):
            patients(folder, [cell])

    def test_studies_are_read_the_same_way(self, folder):
        rows = "study_id,report\n7,A.\n7.0,A.\n007,B.\nNA,C.\nNA,D.\n1e+16,E.\n"
        manifest = read_manifest(write(folder, rows), image_column=None, on_error="skip")
        assert [study["study_id"] for study in manifest.studies] == ["7", "7", "007", "row 4", "row 5"]
        assert str(manifest.skipped[0]).startswith("study 'row 6', study_id: row 6 (line 7): expected an id, got the")


@pytest.mark.parametrize("header", [" report ", "report\u200b", "\u00a0report", "\ufeffreport"])
def test_a_header_has_no_invisible_characters(folder, header):
    manifest = read_manifest(write(folder, f"study,{header}\n1,Text.\n"), image_column=None)
    assert manifest.studies[0]["report"] == "Text."


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_column_is_found_in_every_unicode_form(folder, form):
    path = write(folder, unicodedata.normalize(form, "Übersicht") + "\nText.\n")
    for named in ("NFC", "NFD"):
        column = unicodedata.normalize(named, "Übersicht")
        assert read_manifest(path, image_column=None, report_column=column).studies[0]["report"] == "Text."


def test_a_class_of_two_sources_has_one_name(folder):
    one = write(folder, "report,finding\nA.,mass\nB.,edema\n", "one.csv")
    two = write(folder, "report,finding\nC.,MASS.\nD.,Edema\n", "two.csv")
    manifest = load_sources([f"text-label={one}", f"text-label={two}"], columns={"label_column": "finding"})
    assert len([name for name in manifest.names if "mass" in name.lower()]) == 1


@pytest.mark.parametrize("name", ["-1.png", "@2.png", "=3.png", "+a.png", "-x/4.png", "'-5.png"])
def test_cells_that_a_spreadsheet_would_run_are_read_as_they_were(folder, name):
    (folder / "-x").mkdir()
    (folder / name).touch()
    report = "- No edema."
    with open(folder / "cases.csv", "w", newline="", encoding="utf-8") as file:
        CsvWriter(file).write_rows([["image", "report", "+finding"], [name, report, "-Edema"]])
    assert "'-" in (folder / "cases.csv").read_text()
    manifest = read_manifest(folder / "cases.csv", label_column="+finding")
    study = manifest.studies[0]
    assert (study["image"], study["report"], manifest.names) == (str(folder / name), report, ("-Edema",))
    assert study["study_id"] == name.removeprefix("'")


class TestMissing:
    @pytest.mark.parametrize("cell", ["NA", "na", "#N/A", "n.a.", "<NA>", "NaT", "-", "?", "...", "\u200b", "#NAME?"])
    def test_no_text_is_no_report(self, folder, cell):
        (folder / "a.png").touch()
        study = read_manifest(write(folder, f"image,report\na.png,{cell}\n")).studies[0]
        assert "report" not in study

    @pytest.mark.parametrize("cell", ["NA", "#N/A", "n/a", "-", "\ufeff"])
    def test_no_path_is_no_image(self, folder, cell):
        study = read_manifest(write(folder, f"image,report\n{cell},Text.\n")).studies[0]
        assert "image" not in study

    @pytest.mark.parametrize("cell", ["NA", "#N/A", "-", ""])
    def test_no_split_is_an_error(self, folder, cell):
        with pytest.raises(StudyError, match=r"expected train, val or test, got an empty cell$"):
            read_manifest(write(folder, f"report,split\nText.,{cell}\n"), image_column=None)

    def test_no_state_is_not_mentioned(self, folder):
        path = write(folder, "report,Edema,Fracture\nText.,NA,1\nText.,#N/A,0\n")
        assert [np.isnan(study["label"][0]) for study in read_manifest(path, image_column=None).studies] == [True, True]
        for cell in ("?", "+", "-"):  # these may mean something
            with pytest.raises(StudyError, match=r"or blank \(not mentioned\), got a text$"):
                read_manifest(write(folder, f"report,Edema,Fracture\nText.,{cell},1\n"), image_column=None)

    @pytest.mark.parametrize("text", ["No.", "Nil.", "NAD", "NA changes.", "none seen", "1"])
    def test_short_texts_are_reports(self, folder, text):
        assert read_manifest(write(folder, f"report\n{text}\n"), image_column=None).studies[0]["report"] == text


@pytest.fixture
def folder(tmp_path):
    return tmp_path
