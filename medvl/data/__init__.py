"""Tables of studies, the synthetic chest X-ray set, datasets and loaders."""

from __future__ import annotations

from medvl.data.manifest import Manifest, read_manifest
from medvl.data.splits import split_by_patient

__all__ = [
    "Manifest",
    "read_manifest",
    "split_by_patient",
]
