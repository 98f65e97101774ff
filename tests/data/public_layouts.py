"""Small folders in the layouts in which the public data sets are published, with noise as images."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medvl.data.label_columns import CHEXPERT_FINDINGS

SIDE = 32
REPORTS = (
    "The heart is enlarged. No edema.",
    "Lungs are clear. No effusion.",
    "Pulmonary edema. No fracture.",
    "Effusion.",
)


def write_table(path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str] = ()) -> None:
    """A CSV file, gzipped where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns or list(dict.fromkeys(key for row in rows for key in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    content = file.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_image(path: Path, seed: int, width: int = SIDE) -> None:
    """A picture, a DICOM file or a NIfTI volume of noise, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, width), dtype=np.uint8)
    if path.name.endswith(".nii.gz"):
        volume = np.random.default_rng(seed).normal(-600, 300, (12, 12, 6)).astype(np.float32)
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(path)
    elif path.suffix in (".dcm", ".dicom"):
        write_dicom(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def chexpert(folder: Path, number: int = 12, labels: Iterable[dict[str, str]] | None = None) -> None:
    """Two views of each study; the last fourth of the studies is the validation set."""
    rows: dict[str, list[dict[str, object]]] = {"train": [], "valid": []}
    given = list(labels) if labels is not None else [{CHEXPERT_FINDINGS[2 + i % 4]: "1.0"} for i in range(number)]
    for i, states in enumerate(given):
        split = "valid" if 4 * i >= 3 * len(given) and labels is None else "train"
        for view in ("frontal", "lateral") if labels is None else ("frontal",):
            name = f"CheXpert-v1.0-small/{split}/patient{i + 1:05}/study1/view1_{view}.jpg"
            write_image(folder.joinpath(*name.split("/")[1:]), 2 * i + (view == "lateral"))
            row = {"Path": name, "Sex": "Female", "Age": "60", "Frontal/Lateral": view.title(), "AP/PA": "AP"}
            rows[split].append({**row, **dict.fromkeys(CHEXPERT_FINDINGS, ""), **states})
    for split, found in rows.items():
        if found:
            write_table(folder / f"{split}.csv", found)


def chexpert_plus(folder: Path, number: int = 12) -> None:
    rows, labels = [], []
    for i in range(number):
        split = "valid" if 4 * i >= 3 * number else "train"
        name = f"{split}/patient{i + 1:05}/study1/view1_frontal.jpg"
        write_image((folder / "PNG" / name).with_suffix(".png"), i)
        rows.append(
            {
                "path_to_image": name,
                "path_to_dcm": name.replace(".jpg", ".dcm"),
                "frontal_lateral": "Frontal",
                "ap_pa": "AP",
                "deid_patient_id": f"patient{i + 1:05}",
                "patient_report_date_order": 1,
                "report": f"NARRATIVE:\nChest.\nIMPRESSION:\n{REPORTS[i % 4]}",
                "section_impression": REPORTS[i % 4],
                "split": split,
            }
        )
        states = dict.fromkeys(CHEXPERT_FINDINGS) | {"Edema": (1.0, 0.0, -1.0, None)[i % 4]}
        labels.append(json.dumps({"path_to_image": name, **states}))
    write_table(folder / "df_chexpert_plus_240401.csv", rows)
    (folder / "chexbert_labels").mkdir()
    (folder / "chexbert_labels" / "impression_fixed.json").write_text("\n".join(labels) + "\n")


def mimic_cxr(folder: Path, number: int = 12, suffix: str = ".jpg", tables: bool = True) -> None:
    """Two views of each study of a patient; without the tables, as MIMIC-CXR has it, with the list of records alone."""
    split, metadata, labels = [], [], []
    for i in range(number):
        subject, study = f"{10000032 + 1000000 * i}", f"{50414267 + i}"
        place = folder / "files" / f"p{subject[:2]}" / f"p{subject}"
        for view in ("PA", "LATERAL"):
            dicom = f"{i:08x}-{view.lower()}"
            write_image(place / f"s{study}" / f"{dicom}{suffix}", 2 * i + (view == "PA"))
            row = {"dicom_id": dicom, "study_id": study, "subject_id": subject}
            split.append({**row, "split": ("train", "train", "validate", "test")[i % 4]})
            metadata.append({**row, "ViewPosition": view})
        (place / f"s{study}.txt").write_text(f"FINAL REPORT\n FINDINGS:\n {REPORTS[i // 4 % 4]}\n")
        labels.append(
            {
                "subject_id": subject,
                "study_id": study,
                **dict.fromkeys(CHEXPERT_FINDINGS, ""),
                "Edema": float(i // 4 % 2),
            }
        )
    if tables:
        write_table(folder / "mimic-cxr-2.0.0-split.csv.gz", split)
        write_table(folder / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
        write_table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
        write_table(folder / "mimic-cxr-2.0.0-negbio.csv.gz", [{**row, "Edema": ""} for row in labels])
    else:
        rows = [{key: row[key] for key in ("subject_id", "study_id", "dicom_id")} for row in split]
        write_table(folder / "cxr-record-list.csv.gz", rows)


def nih(folder: Path, number: int = 12) -> None:
    """The header of the boxes has commas in a name, as published; images of follow-ups are in two folders."""
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"]
    lines[0] += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    names = [f"{i // 2 + 1:08}_{i % 2:03}.png" for i in range(number)]
    findings = ("Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Pleural_Thickening")
    for i, name in enumerate(names):
        write_image(folder / f"images_{1 + i % 2:03}" / "images" / name, i)
        lines.append(
            f"{name},{findings[i % 4]},{i % 2},{i // 2 + 1},58,M,{'PA' if i % 3 else 'AP'},2682,2749,0.143,0.143,"
        )
    (folder / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(names[: number // 2]))
    (folder / "test_list.txt").write_text("\n".join(names[number // 2 :]) + "\n")
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{names[0]},Infiltrate,256,512,128,64,,,"]
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")


def padchest(folder: Path, number: int = 12) -> None:
    """Two images of each study; labels as a Python list, a blank and a nan among them."""
    rows = []
    for i in range(number):
        labels = ("['pleural effusion', ' cardiomegaly']", "['normal']", "['cardiomegaly', nan]", "['pneumonia', '']")[
            i % 4
        ]
        for view, projection in enumerate(("PA", "L")):
            name = f"{i:040}_{view}abc.png"
            write_image(folder / str(i % 2) / name, 2 * i + view)
            rows.append(
                {
                    "": len(rows),
                    "ImageID": name,
                    "ImageDir": i % 2,
                    "StudyID": f"{i:040}",
                    "PatientID": f"{i // 2}9683009",
                    "Projection": projection,
                    "ReportID": 4765777 + i,
                    "Report": " sin hallazg patolog .",
                    "MethodLabel": "Physician",
                    "Labels": labels,
                }
            )
    write_table(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", rows)


def vindr_cxr(folder: Path, number: int = 12) -> None:
    """Three readers of each training image, of whom one, two or three mark a finding; boxes in the image's own pixels."""
    findings = ("Cardiomegaly", "Nodule/Mass", "Other diseases", "No finding")
    labels, boxes, tested = [], [], []
    for i in range(number):
        image = f"{i:032x}"
        write_image(folder / "train" / f"{image}.dicom", i, width=40)
        for reader in range(3):
            marked = i % 4 > reader
            row = {"image_id": image, "rad_id": f"R{reader + 8}"}
            labels.append(
                {**row, **dict.fromkeys(findings, 0), "Cardiomegaly": int(marked), "No finding": int(not marked)}
            )
            corners = {"x_min": 8, "y_min": 4, "x_max": 24, "y_max": 20} if marked else {}
            boxes.append({**row, "class_name": "Cardiomegaly" if marked else "No finding", **corners})
        test = f"{1000 + i:032x}"
        write_image(folder / "test" / f"{test}.dicom", 100 + i)
        tested.append({"image_id": test, **dict.fromkeys(findings, 0), "Cardiomegaly": i % 2, "No finding": 1 - i % 2})
    columns = ("image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max")
    write_table(folder / "annotations" / "image_labels_train.csv", labels)
    write_table(folder / "annotations" / "annotations_train.csv", boxes, columns)
    tested = [
        {key if key != "Other diseases" else "Other disease": cell for key, cell in row.items()} for row in tested
    ]
    write_table(folder / "annotations" / "image_labels_test.csv", tested)


def vindr_kaggle(folder: Path, number: int = 12) -> None:
    """The same marks of three readers, as the table of the Kaggle competition writes them."""
    rows: list[dict[str, object]] = []
    for i in range(number):
        image = f"{i:032x}"
        write_image(folder / "train" / f"{image}.dicom", i, width=40)
        for reader in range(3):
            name, number_of = ("Cardiomegaly", 3) if i % 4 > reader else ("No finding", 14)
            corners = {"x_min": 8, "y_min": 4, "x_max": 24, "y_max": 20} if number_of == 3 else {}
            rows.append(
                {"image_id": image, "class_name": name, "class_id": number_of, "rad_id": f"R{reader + 8}", **corners}
            )
    columns = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
    write_table(folder / "train.csv", rows, columns)
    write_table(folder / "sample_submission.csv", [{"image_id": "f" * 32, "PredictionString": "14 1 0 0 1 1"}])


def rsna(folder: Path, number: int = 24) -> None:
    """A box or two where there is pneumonia, in pixels of 1024 x 1024; every third image shows it."""
    rows, classes = [], []
    for i in range(number):
        patient = f"{i:08x}-3906-4c2f-b5b4-8aa1280f6181"
        write_image(folder / "stage_2_train_images" / f"{patient}.dcm", i)
        boxes = [
            {"x": 256, "y": 512, "width": 256, "height": 128},
            {"x": 640.0, "y": 512.0, "width": 128.0, "height": 64.0},
        ]
        given = boxes[: 1 + i % 2] if i % 3 == 0 else [{}]
        rows += [{"patientId": patient, **box, "Target": int(bool(box))} for box in given]
        classes += [{"patientId": patient, "class": "Lung Opacity" if i % 3 == 0 else "Normal"}] * len(given)
    write_table(folder / "stage_2_train_labels.csv", rows, ("patientId", "x", "y", "width", "height", "Target"))
    write_table(folder / "stage_2_detailed_class_info.csv", classes)


def siim(folder: Path, number: int = 24) -> None:
    """A run of 512 pixels down column 256 from row 128; every fourth image has two such masks, every second none."""
    rows = []
    for i in range(number):
        image = f"1.2.276.0.7230010.3.1.4.8323329.{i}"
        write_image(folder / "dicom-images-train" / f"{image}.1" / f"{image}.2" / f"{image}.dcm", i)
        masks = ("262272 512", "524416 512")[: 1 + (i % 4 == 0)] if i % 2 == 0 else ("-1",)
        rows += [{"ImageId": image, " EncodedPixels": f" {mask}"} for mask in masks]
    write_table(folder / "train-rle.csv", rows)


MS_CXR_FINDINGS = ("Pneumonia", "Edema")


def ms_cxr(folder: Path, number: int = 12, form: str = "csv") -> None:
    """Phrases of two findings, with one or two boxes."""
    rows = []
    for i in range(number):
        subject, study, dicom = f"{10000032 + i}", f"{50414267 + i}", f"{i:08x}-abcd"
        path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        write_image(folder / path, i, width=2 * SIDE)
        row = {"category_name": MS_CXR_FINDINGS[i % 2], "label_text": REPORTS[i % 3], "path": path}
        size = {"image_width": 2000, "image_height": 1000, "dicom_id": dicom, "split": "test" if i % 2 else "val"}
        rows += [{**row, "x": 500 * (1 + box), "y": 250, "w": 500, "h": 500, **size} for box in range(1 + (i % 3 == 0))]
    if form == "csv":
        write_table(folder / "MS_CXR_Local_Alignment_v1.1.0.csv", rows)
        return
    paths = list(dict.fromkeys(row["path"] for row in rows))
    content = {
        "images": [{"id": i, "path": path, "width": 2000, "height": 1000} for i, path in enumerate(paths)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(MS_CXR_FINDINGS)],
        "annotations": [
            {
                "id": i,
                "image_id": paths.index(row["path"]),
                "category_id": MS_CXR_FINDINGS.index(row["category_name"]),
                "bbox": [row[name] for name in "xywh"],
                "label_text": row["label_text"],
                "width": 2000,
                "height": 1000,
            }
            for i, row in enumerate(rows)
        ],
    }
    (folder / "MS_CXR_Local_Alignment_v1.0.0.json").write_text(json.dumps(content))


def compress_run_lengths(lengths: Sequence[int]) -> str:
    """COCO's text of run lengths, written from its specification, in groups of five bits."""
    text = ""
    for number, length in enumerate(lengths):
        value = length - lengths[number - 2] if number > 2 else length
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + (group | (32 if more else 0)))
    return text


def chexlocalize(folder: Path, number: int = 6, form: str = "segmentations") -> None:
    """Masks (the upper halves of the first two columns) or polygons of both splits."""
    for split in ("val", "test"):
        content: dict[str, dict[str, object]] = {}
        rows = []
        for i in range(number):
            place = f"patient{64541 + i + (100 if split == 'test' else 0)}/study1/view1_frontal"
            write_image(folder / "CheXpert" / split / f"{place}.jpg", i)
            rows.append(
                {
                    "Path": f"{'valid' if split == 'val' else split}/{place}.jpg",
                    **dict.fromkeys(CHEXPERT_FINDINGS, "0.0"),
                }
            )
            rows[-1]["Lung Opacity"] = "1.0"
            if form == "segmentations":
                lengths = [0, SIDE // 2, SIDE // 2, SIDE // 2, SIDE * SIDE - 3 * SIDE // 2]
                mask = {"size": [SIDE, SIDE], "counts": compress_run_lengths(lengths)}
                empty = {"size": [SIDE, SIDE], "counts": compress_run_lengths([SIDE * SIDE])}
                content[place.replace("/", "_")] = {"Airspace Opacity": mask, "Edema": empty}
            else:
                square = [[0.0, 0.0], [15.0, 0.0], [15.0, 15.0], [0.0, 15.0]]
                content[place.replace("/", "_")] = {"img_size": [2 * SIDE, 2 * SIDE], "Airspace Opacity": [square]}
        write_table(folder / "CheXpert" / f"{split}_labels.csv", rows)
        (folder / "CheXlocalize").mkdir(exist_ok=True)
        (folder / "CheXlocalize" / f"gt_{form}_{split}.json").write_text(json.dumps(content))


def openi_tables(folder: Path, number: int = 12) -> None:
    reports, projections = [], []
    for i in range(1, number + 1):
        findings = "" if i == 2 else REPORTS[i % 4]
        reports.append(
            {"uid": i, "MeSH": "Cardiomegaly/mild;Effusion", "Problems": "Cardiomegaly", "image": "Xray", "indication": "Cough",
             "comparison": "", "findings": findings, "impression": f"Case {i}."}
        )  # fmt: skip
        for view, projection in enumerate(("Frontal", "Lateral")):
            name = f"{i}_IM-{i:04}-{view + 1}001.dcm.png"
            projections.append({"uid": i, "filename": name, "projection": projection})
            write_image(folder / "images" / "images_normalized" / name, 2 * i + view)
    write_table(folder / "indiana_reports.csv", reports)
    write_table(folder / "indiana_projections.csv", projections)


def roco(folder: Path, number: int = 8) -> None:
    for start, split in enumerate(("train", "validation", "test")):
        place = folder / "data" / split / "radiology"
        (place / "images").mkdir(parents=True)
        captions, links = [], []
        for i in range(start * number, (start + 1) * number):
            name = f"ROCO_{i + 2:05}"
            captions.append(f"{name}\t {REPORTS[i % 4]}")
            archive = f"ftp://example.org/pub/{i:02}/PMC40837{i:02}.tar.gz"
            links.append(f"{name}\twget -r {archive} -O PMC40837{i:02}.tar.gz\tAMHSR-4-14-g{i:03}.jpg")
            write_image(place / "images" / f"PMC40837{i:02}_AMHSR-4-14-g{i:03}.jpg", i)
        (place / "captions.txt").write_text("\n".join(captions) + "\n")
        (place / "dlinks.txt").write_text("\n".join(links) + "\n")


def rocov2(folder: Path, number: int = 8) -> None:
    for split in ("train", "valid", "test"):
        names = [f"ROCOv2_2023_{split}_{i + 1:06}" for i in range(number)]
        write_table(
            folder / f"{split}_captions.csv", [{"ID": name, "Caption": REPORTS[i % 4]} for i, name in enumerate(names)]
        )
        for i, name in enumerate(names):
            write_image(folder / f"{split}_images" / f"{name}.jpg", i)


def pmc_oa(folder: Path, number: int = 12) -> None:
    lines = []
    for i in range(number):
        name = f"PMC{212319 + i // 2}_Fig{i % 2}_{i}.jpg"
        lines.append(
            json.dumps({"image": name, "caption": REPORTS[i % 4], "alignment_type": "other", "alignment_score": 1.0})
        )
        write_image(folder / "caption_T060_filtered_top4_sep_v0_subfigures" / name, i)
    (folder / "pmc_oa.jsonl").write_text("\n".join(lines) + "\n")


CT_RATE_FINDINGS = ("Medical material", "Cardiomegaly", "Pleural effusion")


def ct_rate(folder: Path, number: int = 8, findings: Sequence[str] = CT_RATE_FINDINGS) -> None:
    """A second scan of every second patient, and a second reconstruction of every scan."""
    for split, reports_name in (("train", "train"), ("valid", "validation")):
        reports, labels = [], []
        for i in range(1, number + 1):
            for scan in "ab"[: 1 + i % 2]:
                for reconstruction in (1, 2):
                    name = f"{split}_{i}_{scan}_{reconstruction}.nii.gz"
                    write_image(folder / split / f"{split}_{i}" / f"{split}_{i}_{scan}" / name, 10 * i + reconstruction)
                    texts = {"Findings_EN": REPORTS[i % 4], "Impressions_EN": "Not given." if i == 1 else f"Case {i}."}
                    reports.append({"VolumeName": name, "ClinicalInformation_EN": "", "Technique_EN": "CT", **texts})
                    labels.append({"VolumeName": name, **{finding: (i + k) % 2 for k, finding in enumerate(findings)}})
        write_table(folder / "radiology_text_reports" / f"{reports_name}_reports.csv", reports)
        write_table(folder / "multi_abnormality_labels" / f"{split}_predicted_labels.csv", labels)


def merlin(folder: Path, number: int = 9) -> None:
    folder.mkdir(exist_ok=True)
    ids = [f"AC{i:07x}" for i in range(number)]
    rows = [
        {
            "study id": name,
            "Findings": f"{REPORTS[i % 4]} IMPRESSION: Case {i}.",
            "Split": ("train", "val", "test")[i % 3],
            "Few Shot": "",
        }
        for i, name in enumerate(ids)
    ]
    pandas.DataFrame(rows).to_excel(folder / "reports_final.xlsx", index=False)
    write_table(
        folder / "zero_shot_findings_disease_cls.csv",
        [{"study id": name, "hepatomegaly": i % 2, "ascites": -1} for i, name in enumerate(ids[: number // 2])],
    )
    for i, name in enumerate(ids):
        write_image(folder / "merlin_data" / f"{name}.nii.gz", i)


WRITERS: dict[str, Callable[..., None]] = {
    "chexlocalize": chexlocalize,
    "chexpert": chexpert,
    "chexpert-plus": chexpert_plus,
    "ct-rate": ct_rate,
    "merlin": merlin,
    "mimic-cxr": mimic_cxr,
    "ms-cxr": ms_cxr,
    "nih": nih,
    "openi": openi_tables,
    "padchest": padchest,
    "pmc-oa": pmc_oa,
    "roco": roco,
    "rocov2": rocov2,
    "rsna": rsna,
    "siim": siim,
    "vindr-cxr": vindr_cxr,
}
"""The function that writes each data set's folder, by its name."""
