"""Tables of studies, the synthetic chest X-ray set, datasets and loaders."""

from __future__ import annotations

from medvl.data.collate import collate_studies, study_key
from medvl.data.dataset import StudyDataset
from medvl.data.loader import StudyLoader
from medvl.data.manifest import Manifest, read_manifest
from medvl.data.splits import split_by_patient

__all__ = [
    "Manifest",
    "StudyDataset",
    "StudyLoader",
    "collate_studies",
    "read_manifest",
    "split_by_patient",
    "study_key",
]
