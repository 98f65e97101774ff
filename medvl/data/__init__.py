"""Tables and sources of studies, the synthetic chest X-ray set, datasets, samplers and loaders."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.data", "monai")

from medvl.data.collate import collate_studies, study_key
from medvl.data.corpus import text_corpus
from medvl.data.dataset import StudyDataset
from medvl.data.load_sources import SourceManifest, load_sources
from medvl.data.loader import StudyLoader, unified_loader
from medvl.data.manifest import Manifest, read_manifest
from medvl.data.public.chexpert import CheXpert
from medvl.data.public.mimic_cxr import MIMIC_CXR
from medvl.data.public.openi import OpenIReports
from medvl.data.samplers import DecoupledBatchSampler, MixedBatchSampler
from medvl.data.sources import parse_source
from medvl.data.splits import split_by_patient
from medvl.data.studies import load_studies, table_path
from medvl.data.synthetic import SyntheticChestXRay
from medvl.data.synthetic.chest_ct import SyntheticChestCT
from medvl.data.text_labels import label_texts
from medvl.data.unified import UnifiedDataset

__all__ = [
    "MIMIC_CXR",
    "CheXpert",
    "DecoupledBatchSampler",
    "Manifest",
    "MixedBatchSampler",
    "OpenIReports",
    "SourceManifest",
    "StudyDataset",
    "StudyLoader",
    "SyntheticChestCT",
    "SyntheticChestXRay",
    "UnifiedDataset",
    "collate_studies",
    "label_texts",
    "load_sources",
    "load_studies",
    "parse_source",
    "read_manifest",
    "split_by_patient",
    "study_key",
    "table_path",
    "text_corpus",
    "unified_loader",
]
