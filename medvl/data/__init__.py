"""Tables of studies, the synthetic chest X-ray set, datasets and loaders."""

from __future__ import annotations

from medvl.data.chexpert import CheXpert
from medvl.data.collate import collate_studies, study_key
from medvl.data.dataset import StudyDataset
from medvl.data.loader import StudyLoader
from medvl.data.manifest import Manifest, read_manifest
from medvl.data.mimic_cxr import MIMIC_CXR
from medvl.data.openi import OpenIReports
from medvl.data.splits import split_by_patient
from medvl.data.studies import load_studies, table_path
from medvl.data.synthetic import SyntheticChestXRay

__all__ = [
    "MIMIC_CXR",
    "CheXpert",
    "Manifest",
    "OpenIReports",
    "StudyDataset",
    "StudyLoader",
    "SyntheticChestXRay",
    "collate_studies",
    "load_studies",
    "read_manifest",
    "split_by_patient",
    "study_key",
    "table_path",
]
