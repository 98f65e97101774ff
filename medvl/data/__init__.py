"""Tables and sources of studies, packed studies, synthetic data sets, datasets, samplers and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvl.utils.extras import require_extra
from medvl.utils.lazy import lazy_exports

require_extra("medvl.data", "monai")

if TYPE_CHECKING:
    from medvl.data.class_prompts import prompt_studies as prompt_studies
    from medvl.data.collate import collate_studies as collate_studies
    from medvl.data.corpus import TextCorpus as TextCorpus
    from medvl.data.corpus import text_corpus as text_corpus
    from medvl.data.dataset import StudyDataset as StudyDataset
    from medvl.data.leaks import SharedItem as SharedItem
    from medvl.data.leaks import find_shared_items as find_shared_items
    from medvl.data.loader import StudyLoader as StudyLoader
    from medvl.data.loader import unified_loader as unified_loader
    from medvl.data.manifest import Manifest as Manifest
    from medvl.data.manifest_reader import read_manifest as read_manifest
    from medvl.data.public.captions import PMCOA as PMCOA
    from medvl.data.public.captions import ROCO as ROCO
    from medvl.data.public.captions import ROCOv2 as ROCOv2
    from medvl.data.public.chexlocalize import CheXlocalize as CheXlocalize
    from medvl.data.public.chexpert import CheXpert as CheXpert
    from medvl.data.public.chexpert_plus import CheXpertPlus as CheXpertPlus
    from medvl.data.public.ct_rate import CTRATE as CTRATE
    from medvl.data.public.merlin import Merlin as Merlin
    from medvl.data.public.mimic_cxr import MIMIC_CXR as MIMIC_CXR
    from medvl.data.public.ms_cxr import MSCXR as MSCXR
    from medvl.data.public.nih_chest_xray14 import NIHChestXray14 as NIHChestXray14
    from medvl.data.public.openi import OpenIReports as OpenIReports
    from medvl.data.public.padchest import PadChest as PadChest
    from medvl.data.public.registry import public_datasets as public_datasets
    from medvl.data.public.rsna_pneumonia import RSNAPneumonia as RSNAPneumonia
    from medvl.data.public.siim_pneumothorax import SIIMPneumothorax as SIIMPneumothorax
    from medvl.data.public.vindr_cxr import VinDrCXR as VinDrCXR
    from medvl.data.samplers import DecoupledBatchSampler as DecoupledBatchSampler
    from medvl.data.samplers import DistributedBatchSampler as DistributedBatchSampler
    from medvl.data.samplers import MixedBatchSampler as MixedBatchSampler
    from medvl.data.shard_verification import verify_packed as verify_packed
    from medvl.data.shards import PackedLocation as PackedLocation
    from medvl.data.source_manifest import SourceManifest as SourceManifest
    from medvl.data.source_manifest import load_sources as load_sources
    from medvl.data.sources import Source as Source
    from medvl.data.sources import parse_source as parse_source
    from medvl.data.splits import split_by_patient as split_by_patient
    from medvl.data.studies import load_studies as load_studies
    from medvl.data.studies import table_path as table_path
    from medvl.data.synthetic import SyntheticChestXRay as SyntheticChestXRay
    from medvl.data.synthetic.chest_ct import SyntheticChestCT as SyntheticChestCT
    from medvl.data.text_labels import label_texts as label_texts
    from medvl.data.unified import UnifiedDataset as UnifiedDataset

_MODULES = {
    "CTRATE": "public.ct_rate",
    "CheXlocalize": "public.chexlocalize",
    "CheXpert": "public.chexpert",
    "CheXpertPlus": "public.chexpert_plus",
    "DecoupledBatchSampler": "samplers",
    "DistributedBatchSampler": "samplers",
    "MIMIC_CXR": "public.mimic_cxr",
    "MSCXR": "public.ms_cxr",
    "Manifest": "manifest",
    "Merlin": "public.merlin",
    "MixedBatchSampler": "samplers",
    "NIHChestXray14": "public.nih_chest_xray14",
    "OpenIReports": "public.openi",
    "PMCOA": "public.captions",
    "PackedLocation": "shards",
    "PadChest": "public.padchest",
    "ROCO": "public.captions",
    "ROCOv2": "public.captions",
    "RSNAPneumonia": "public.rsna_pneumonia",
    "SIIMPneumothorax": "public.siim_pneumothorax",
    "SharedItem": "leaks",
    "Source": "sources",
    "SourceManifest": "source_manifest",
    "StudyDataset": "dataset",
    "StudyLoader": "loader",
    "SyntheticChestCT": "synthetic.chest_ct",
    "SyntheticChestXRay": "synthetic",
    "TextCorpus": "corpus",
    "UnifiedDataset": "unified",
    "VinDrCXR": "public.vindr_cxr",
    "collate_studies": "collate",
    "find_shared_items": "leaks",
    "label_texts": "text_labels",
    "load_sources": "source_manifest",
    "load_studies": "studies",
    "parse_source": "sources",
    "prompt_studies": "class_prompts",
    "public_datasets": "public.registry",
    "read_manifest": "manifest_reader",
    "split_by_patient": "splits",
    "table_path": "studies",
    "text_corpus": "corpus",
    "unified_loader": "loader",
    "verify_packed": "shard_verification",
}
__all__ = sorted(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
