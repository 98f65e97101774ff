"""Patients in the file names of public data sets whose tables have no column of patients."""

from __future__ import annotations

import re

#: Data set, and its names: the group ``patient`` is what all images of a patient share.
_CONVENTIONS = {
    # dataset/train/train_2/train_2_a/train_2_a_1.nii.gz: patient, scan, reconstruction
    "CT-RATE": re.compile(r"(?:.*/)?(?P<patient>(?:train|valid)_\d+)_[a-z]+_\d+(?:\.\w+)*"),
    # 00000013_005.png: patient, follow-up; the collection has 30,805 patients, so a date is none
    "ChestX-ray14": re.compile(r"(?:.*/)?(?P<patient>000[0-3]\d{4})_\d{3}(?:\.\w+)?"),
    "CheXpert": re.compile(r"(?:.*/)?(?P<patient>patient\d{5})/study\d+(?:/.*)?"),
    "MIMIC-CXR": re.compile(r"(?:.*/)?p\d\d/(?P<patient>p\d{8})/s\d{8}(?:[/.].*)?"),
    # Numbers of subjects are those of one folder.
    "BIDS": re.compile(r"(?P<patient>(?:.*?/)??sub-[A-Za-z0-9]+)[/_].*"),
}


def patient_from_name(name: str) -> tuple[str, str] | None:
    """The patient in a path or a study's id, and the data set whose convention it follows; None if it follows none.

    Example:
        >>> patient_from_name("train_2_a_1.nii.gz"), patient_from_name("scans/7.png")
        (('train_2', 'CT-RATE'), None)
    """
    for convention, pattern in _CONVENTIONS.items():
        if found := pattern.fullmatch(name.replace("\\", "/")):
            return found["patient"], convention
    return None
