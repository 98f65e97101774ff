"""Tables and sources of studies, synthetic data sets, datasets, samplers and loaders."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.data", "monai")

from medvl.data.collate import collate_studies
from medvl.data.corpus import text_corpus
from medvl.data.dataset import StudyDataset
from medvl.data.leaks import SharedItem, find_shared_items
from medvl.data.loader import StudyLoader, unified_loader
from medvl.data.manifest import Manifest
from medvl.data.manifest_reader import read_manifest
from medvl.data.public.chexpert import CheXpert
from medvl.data.public.mimic_cxr import MIMIC_CXR
from medvl.data.public.openi import OpenIReports
from medvl.data.samplers import DecoupledBatchSampler, MixedBatchSampler
from medvl.data.source_manifest import SourceManifest, load_sources
from medvl.data.sources import Source, parse_source
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
    "SharedItem",
    "Source",
    "SourceManifest",
    "StudyDataset",
    "StudyLoader",
    "SyntheticChestCT",
    "SyntheticChestXRay",
    "UnifiedDataset",
    "collate_studies",
    "find_shared_items",
    "label_texts",
    "load_sources",
    "load_studies",
    "parse_source",
    "read_manifest",
    "split_by_patient",
    "table_path",
    "text_corpus",
    "unified_loader",
]
