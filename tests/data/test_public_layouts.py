"""Each public data set, on a small folder in its published layout: what is read, and what is refused."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import public_layouts
import pytest
import torch

import medvl.data
from medvl.data import load_sources, public_datasets, read_manifest
from medvl.data.public.registry import parse_public_location
from medvl.data.splits import SPLITS
from medvl.transforms import DrawRegionsd, LoadStudyImage
from medvl.utils.errors import StudyError

#: Data set: number of its studies in the small folder, of its images, and of its splits.
SIZES = {
    "chexlocalize": (12, 12, 2),
    "chexpert": (12, 24, 2),
    "chexpert-plus": (12, 12, 2),
    "ct-rate": (24, 48, 2),
    "merlin": (9, 9, 3),
    "mimic-cxr": (12, 24, 3),
    "ms-cxr": (12, 12, 2),
    "nih": (12, 12, 2),
    "openi": (12, 24, 0),
    "padchest": (12, 24, 0),
    "pmc-oa": (12, 12, 0),
    "roco": (24, 24, 3),
    "rocov2": (24, 24, 3),
    "rsna": (24, 24, 0),
    "siim": (24, 24, 0),
    "vindr-cxr": (24, 24, 2),
}


#: Data set with views: number of its frontal images.
FRONTAL = {"chexpert": 12, "mimic-cxr": 12, "nih": 12, "openi": 12, "padchest": 12, "rsna": 24}


@pytest.fixture
def folder(tmp_path, request):
    """The folder of the data set that the test's parameter names."""
    public_layouts.WRITERS[request.param](tmp_path)
    return tmp_path


def dataset(name, folder, **options):
    return public_datasets()[name](folder, **options)


def test_every_data_set_has_a_layout_here_and_says_what_it_is():
    assert set(public_datasets()) == set(public_layouts.WRITERS) == set(SIZES)
    for dataset_class in public_datasets().values():
        assert all((dataset_class.title, dataset_class.layout, dataset_class.license, dataset_class.url))
        assert "License:" in dataset_class.__doc__
        assert "Layout:" in dataset_class.__doc__
        assert getattr(medvl.data, dataset_class.__name__) is dataset_class


@pytest.mark.parametrize(("name", "folder"), [(name, name) for name in SIZES], indirect=["folder"])
def test_one_line_reads_a_data_set(name, folder):
    manifest = read_manifest(f"{name}:{folder}")
    studies, images, splits = SIZES[name]
    assert manifest.counts == {**manifest.counts, "rows": studies, "skipped": 0, "image": studies}
    assert len(manifest) == images
    assert len({study.get("split") for study in manifest.studies} - {None}) == splits
    assert all(study.get("split", "train") in SPLITS for study in manifest.studies)
    assert len({study["image"] for study in manifest.studies}) == images
    spatial_dims = 3 if manifest.studies[0]["image"].endswith(".nii.gz") else 2
    assert LoadStudyImage(spatial_dims=spatial_dims)(manifest.studies[0]["image"]).ndim == spatial_dims + 1
    kinds = {"report": "image-text", "label": "image-label"}
    for key, kind in kinds.items():
        if manifest.counts[key]:
            assert manifest.counts[key] == len({s["row"] for s in manifest.studies if key in s})
            assert len(load_sources(f"{kind}={name}:{folder}")) == sum(key in study for study in manifest.studies)
    assert all(len(study["label"]) == len(manifest.names) for study in manifest.studies if "label" in study)
    patients = {}
    for study in manifest.studies:
        if "patient_id" in study and "split" in study and name not in ("ms-cxr", "nih"):  # split by image as published
            assert patients.setdefault(study["patient_id"], study["split"]) == study["split"]


@pytest.mark.parametrize("name", list(SIZES))
def test_another_folder_is_refused_in_one_sentence(name, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError) as caught:
        dataset(name, tmp_path)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    if name != "openi":
        assert public_datasets()[name].layout in text
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file or folder .*nowhere\.$"):
        dataset(name, tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "folder"), [(name, name) for name in SIZES if name != "openi"], indirect=["folder"])
def test_an_image_that_is_missing_is_an_error_skipped_or_not_looked_for(name, folder):
    images = sorted(
        path for path in folder.rglob("*") if path.name.endswith((".png", ".jpg", ".dcm", ".dicom", ".nii.gz"))
    )
    images[0].unlink()
    with pytest.raises(StudyError, match=r"^study '.*', image: there is no (file|image) .*"):
        dataset(name, folder)
    skipping = dataset(name, folder, on_error="skip")
    assert [error.key for error in skipping.skipped] == ["image"]
    assert sum(len(study["image"]) for study in skipping) == SIZES[name][1] - 1
    assert len(dataset(name, folder, check_files=False)) == SIZES[name][0]


@pytest.mark.parametrize(
    ("name", "folder", "frontal"),
    [(name, name, number) for name, number in FRONTAL.items()],
    indirect=["folder"],
)
def test_views_are_an_option(name, folder, frontal):
    assert len(read_manifest(f"{name},views=frontal:{folder}")) == frontal
    if SIZES[name][1] > SIZES[name][0]:
        lateral = dataset(name, folder, views="lateral")
        assert [len(study["image"]) for study in lateral] == [1] * SIZES[name][0]


@pytest.mark.parametrize("folder", ["ct-rate"], indirect=True)
def test_no_split_cuts_a_patient_of_ct_rate(folder):
    for manifest in (
        load_sources([f"image-text=ct-rate:{folder}"]),
        read_manifest(f"ct-rate:{folder}").assign_splits(),
    ):
        by_patient = {}
        for study in manifest.studies:
            by_patient.setdefault(study["patient_id"], set()).add(study["split"])
        assert set(map(len, by_patient.values())) == {1}
        assert len(by_patient) == 16
    study = next(study for study in dataset("ct-rate", folder) if study["study_id"] == "train_1_b")
    assert study["report"] == "FINDINGS: Lungs are clear. No effusion."  # the impression is "Not given."
    assert [path.rpartition("/")[2] for path in study["image"]] == ["train_1_b_1.nii.gz", "train_1_b_2.nii.gz"]


def test_ct_rate_volumes_of_the_first_release_are_scaled_by_their_metadata(tmp_path, caplog):
    public_layouts.ct_rate(tmp_path, number=2)
    paths = sorted(tmp_path.glob("*/*/*/*.nii.gz"))
    for path in paths:  # whole numbers, as floating point
        values = np.rint(nibabel.load(path).get_fdata()) + 1024
        nibabel.Nifti1Image(values, np.diag([-1.0, 1.0, 1.0, 1.0])).to_filename(path)
    names = [path.name for path in paths]
    for split, table in (("train", "train"), ("valid", "validation")):
        rows = [
            {"VolumeName": name, "Manufacturer": "A", "RescaleIntercept": "-1024", "RescaleSlope": "1",
             "XYSpacing": "[0.75, 0.5]", "ZSpacing": "1.5"} for name in names if name.startswith(split)
        ]  # fmt: skip
        public_layouts.write_table(tmp_path / "metadata" / f"{table}_metadata.csv", rows)
    studies = dataset("ct-rate", tmp_path)
    assert f"{len(names)} volumes in {tmp_path} are of the first release" in caplog.text
    assert studies.fix_headers() == len(names)
    assert studies.fix_headers() == 0
    caplog.clear()
    fixed = dataset("ct-rate", tmp_path)
    assert not caplog.text
    for before, after in zip(studies[0]["image"], fixed[0]["image"], strict=True):
        assert after == before.replace("/train/", "/train_fixed/")
        raw, image = nibabel.load(before), nibabel.load(after)
        assert np.array_equal(image.get_fdata(), raw.get_fdata() - 1024)
        assert image.get_data_dtype() == np.int16
        assert np.allclose(image.header.get_zooms(), (0.75, 0.5, 1.5))
        assert np.allclose(np.sign(image.affine[:3, :3]), np.sign(raw.affine[:3, :3]))
    text = (tmp_path / "metadata" / "train_metadata.csv").read_text()
    (tmp_path / "metadata" / "train_metadata.csv").write_text(text.replace("1.5", "thick", 1))
    with pytest.raises(StudyError, match=r"metadata: expected numbers of scale and spacing"):
        studies.fix_headers(tmp_path / "again")
    public_layouts.ct_rate(tmp_path / "other", number=1)
    other = dataset("ct-rate", tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"holds no metadata/train_metadata\.csv or metadata/validation"):
        other.fix_headers()


def test_ct_rate_as_downloaded_from_hugging_face_with_corrected_volumes(tmp_path):
    public_layouts.ct_rate(tmp_path / "dataset", number=2)
    (tmp_path / "dataset" / "valid").rename(tmp_path / "dataset" / "valid_fixed")
    manifest = read_manifest(f"ct-rate:{tmp_path}")
    assert manifest.counts["image"] == 6
    assert {"valid_fixed" in study["image"] for study in manifest.studies if study["split"] == "val"} == {True}
    (tmp_path / "dataset" / "radiology_text_reports" / "train_reports.csv").write_text(
        "VolumeName,Findings_EN,Impressions_EN\nscan1.nii.gz,Clear.,Normal.\n"
    )
    with pytest.raises(StudyError, match=r"^study 'scan1', VolumeName: expected a name as train_1_a_1$"):
        read_manifest(f"ct-rate:{tmp_path}")


def test_mimic_cxr_as_dicom_without_the_tables_of_the_jpg_version(tmp_path):
    public_layouts.mimic_cxr(tmp_path, number=3, suffix=".dcm", tables=False)
    study = dataset("mimic-cxr", tmp_path)[0]
    assert {"split", "label"}.isdisjoint(study)
    assert study["report"].startswith("FINAL REPORT")
    assert [path.rpartition(".")[2] for path in study["image"]] == ["dcm", "dcm"]


def test_mimic_cxr_reports_beside_the_images(tmp_path):
    public_layouts.mimic_cxr(tmp_path / "jpg", number=2)
    for report in (tmp_path / "jpg").rglob("*.txt"):
        target = tmp_path / "reports" / report.relative_to(tmp_path / "jpg")
        target.parent.mkdir(parents=True)
        report.rename(target)
    assert read_manifest(f"mimic-cxr:{tmp_path / 'jpg'}").counts["report"] == 0
    location = f"mimic-cxr,reports={tmp_path / 'reports'},labeler=negbio:{tmp_path / 'jpg'}"
    manifest = read_manifest(location)
    assert (manifest.counts["report"], manifest.counts["label"]) == (2, 0)
    assert str(parse_public_location(location).absolute()) == location


@pytest.mark.parametrize("folder", ["nih"], indirect=True)
def test_chest_xray14(folder):
    first, *others = dataset("nih", folder)
    names = public_datasets()["nih"].names
    assert [names[k] for k in np.flatnonzero(others[0]["label"])] == ["Cardiomegaly", "Emphysema"]
    assert [study["split"] for study in (first, *others)] == ["train"] * 6 + ["test"] * 6
    assert first["regions"] == {"Infiltration": [{"bbox": [256.0, 512.0, 128.0, 64.0], "size": [1024, 1024]}]}
    table = folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Cardiomegaly,", "Big heart,", 1))
    with pytest.raises(
        StudyError, match=r"^study '00000001_000', Finding Labels: expected findings of ChestX-ray14, got a text$"
    ):
        dataset("nih", folder)


@pytest.mark.parametrize("folder", ["vindr-cxr"], indirect=True)
def test_vindr_states_are_the_votes_of_three_readers(folder):
    studies = dataset("vindr-cxr", folder)
    assert studies.names == ("Cardiomegaly", "Nodule/Mass", "Other diseases", "No finding")
    assert [study["label"][0] for study in studies[:4]] == [0, -1, 1, 1]  # by 0, 1, 2 and 3 of 3
    assert [len(study["regions"].get("Cardiomegaly", ())) for study in studies[:4]] == [0, 0, 2, 3]
    assert [study["label"][0] for study in dataset("vindr-cxr", folder, votes=1)[:4]] == [0, 1, 1, 1]
    assert [study["label"][0] for study in dataset("vindr-cxr", folder, split="test")[:2]] == [0, 1]


def test_vindr_in_the_form_of_the_kaggle_competition(tmp_path):
    public_layouts.vindr_kaggle(tmp_path)
    studies = dataset("vindr-cxr", tmp_path)
    assert (studies.names, len(studies), {study["split"] for study in studies}) == (
        ("Cardiomegaly", "No finding"),
        12,
        {"train"},
    )
    assert [study["label"].tolist() for study in studies[:4]] == [[0, 1], [-1, 1], [1, -1], [1, 0]]
    assert [len(study["regions"].get("Cardiomegaly", ())) for study in studies[:4]] == [0, 0, 2, 3]
    assert studies[3]["regions"]["Cardiomegaly"][0] == {"bbox": [8.0, 4.0, 16.0, 16.0]}
    manifest = read_manifest(f"vindr-cxr,votes=1:{tmp_path}")
    assert [study["label"][0] for study in manifest.studies[:4]] == [0, 1, 1, 1]
    text = (tmp_path / "train.csv").read_text().replace(",14,", ",no,", 1)
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(StudyError, match=r"class_id: expected a number, got a text$"):
        dataset("vindr-cxr", tmp_path)


@pytest.mark.parametrize("folder", ["padchest"], indirect=True)
def test_padchest_labels_are_lists(folder):
    studies = dataset("padchest", folder)
    assert studies.names == ("cardiomegaly", "normal", "pleural effusion", "pneumonia")
    assert [study["label"].tolist() for study in studies[:4]] == [
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    assert studies[0]["views"] == ["PA", "L"]
    assert studies[0]["patient_id"] == studies[1]["patient_id"] != studies[2]["patient_id"]


@pytest.mark.parametrize("folder", ["openi"], indirect=True)
def test_the_two_tables_of_openi(folder):
    studies = dataset("openi", folder)
    assert studies[1]["report"] == "INDICATION: Cough\nIMPRESSION: Case 2."
    assert studies[1]["mesh"] == ["Cardiomegaly/mild", "Effusion"]
    assert [study["study_id"] for study in studies[8:11]] == ["CXR9", "CXR10", "CXR11"]


@pytest.mark.parametrize("folder", ["merlin"], indirect=True)
def test_minus_one_of_merlin_is_not_labeled(folder):
    studies = dataset("merlin", folder)
    assert studies.names == ("hepatomegaly", "ascites")
    assert studies[1]["label"][0] == 1
    assert np.isnan(studies[1]["label"][1])
    assert "label" not in studies[5]


def test_chexpert_plus_labels_of_a_section(tmp_path):
    public_layouts.chexpert_plus(tmp_path)
    edema = public_datasets()["chexpert-plus"].names.index("Edema")
    states = [study["label"][edema] for study in dataset("chexpert-plus", tmp_path)[:4]]
    assert states[:3] == [1, 0, -1]
    assert np.isnan(states[3])
    with pytest.raises(
        FileNotFoundError,
        match=r"holds no chexbert_labels/findings_fixed\.json or findings_fixed\.json; CheXpert Plus is read",
    ):
        dataset("chexpert-plus", tmp_path, labels="findings")
    (tmp_path / "chexbert_labels" / "impression_fixed.json").write_text('{"path": 1}\n')
    with pytest.raises(ValueError, match=r"^impression_fixed\.json, line 1: expected an object with path_to_image\.$"):
        dataset("chexpert-plus", tmp_path)


def test_the_two_forms_of_ms_cxr(tmp_path):
    public_layouts.ms_cxr(tmp_path / "csv")
    public_layouts.ms_cxr(tmp_path / "json", form="json")
    by_table, by_json = dataset("ms-cxr", tmp_path / "csv"), dataset("ms-cxr", tmp_path / "json")
    assert [study["regions"] for study in by_table] == [study["regions"] for study in by_json]
    assert [study["phrase"] for study in by_table] == [study["phrase"] for study in by_json]
    assert {study.get("split") for study in by_table} == {"val", "test"}
    (tmp_path / "json" / "MS_CXR_Local_Alignment_v1.0.0.json").write_text(json.dumps({"images": []}))
    with pytest.raises(
        ValueError, match=r"^MS_CXR_Local_Alignment_v1\.0\.0\.json must hold images, categories and annot"
    ):
        dataset("ms-cxr", tmp_path / "json")


def test_the_images_of_ms_cxr_elsewhere(tmp_path):
    public_layouts.ms_cxr(tmp_path, number=2)
    (tmp_path / "notes").mkdir()
    next(tmp_path.glob("*.csv")).rename(tmp_path / "notes" / "MS_CXR_Local_Alignment_v1.0.0.csv")
    for images in (tmp_path, tmp_path / "files"):  # what holds files, and files itself
        assert len(read_manifest(f"ms-cxr,images={images}:{tmp_path / 'notes'}")) == 2
    with pytest.raises(FileNotFoundError, match=r"images: there is no folder .*nowhere\."):
        read_manifest(f"ms-cxr,images={tmp_path / 'nowhere'}:{tmp_path / 'notes'}")


def drawn(name, folder, row, finding, **options):
    study = dataset(name, folder, **options)[row]
    image = LoadStudyImage()(study["image"][0])
    return DrawRegionsd(names=[finding])({**study, "image": image})["mask"][0].int()


@pytest.mark.parametrize("folder", ["rsna"], indirect=True)
def test_boxes_are_scaled_to_the_image(folder):
    mask = drawn("rsna", folder, 3, "Pneumonia")  # two boxes of 1024 x 1024 pixels on an image of 32 x 32
    expected = torch.zeros(32, 32, dtype=torch.int32)
    expected[16:20, 8:16] = 1
    expected[16:18, 20:24] = 1
    assert mask.equal(expected)
    assert not drawn("rsna", folder, 1, "Pneumonia").any()


@pytest.mark.parametrize("folder", ["siim"], indirect=True)
def test_relative_run_lengths_go_down_the_columns(folder):
    study = dataset("siim", folder)[0]
    mask = DrawRegionsd()({**study, "image": torch.zeros(1, 1024, 1024)})["mask"][0]
    expected = torch.zeros(1024, 1024, dtype=torch.bool)
    expected[128:640, 256] = True  # 262272 = 256 * 1024 + 128
    expected[128:640, 512] = True
    assert mask.equal(expected)
    assert [study["label"].item() for study in dataset("siim", folder)[:3]] == [1, 0, 1]


@pytest.mark.parametrize("form", ["segmentations", "annotations"])
def test_masks_and_polygons_of_chexlocalize(tmp_path, form):
    public_layouts.chexlocalize(tmp_path, number=2, form=form)
    mask = drawn("chexlocalize", tmp_path, 0, "Lung Opacity")
    expected = torch.zeros(32, 32, dtype=torch.int32)
    if form == "segmentations":
        expected[:16, :2] = 1
        assert mask.equal(expected)
        assert set(dataset("chexlocalize", tmp_path)[0]["regions"]) == {"Lung Opacity"}  # that of Edema is empty
    else:
        assert mask[:7, :7].all()
        assert not mask[9:].any()
        assert not mask[:, 9:].any()
    assert [study["split"] for study in dataset("chexlocalize", tmp_path)] == ["val", "val", "test", "test"]
