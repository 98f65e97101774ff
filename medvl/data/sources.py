"""Sources of studies: images with reports, images with labels, texts with labels, each from a table or a public set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.manifest import Manifest, read_manifest
from medvl.data.public.chexpert import CheXpert
from medvl.data.public.mimic_cxr import MIMIC_CXR
from medvl.data.public.openi import OpenIReports
from medvl.data.tables import read_table

#: What each kind of source must have.
KINDS = {"image-text": ("image", "report"), "image-label": ("image", "label"), "text-label": ("report",)}


def parse_source(text: str) -> tuple[str, str]:
    """``KIND=PLACE`` as (kind, place).

    Raises:
        ValueError: where it is not of that form.

    Example:
        >>> parse_source("text-label=openi:reports.tgz")
        ('text-label', 'openi:reports.tgz')
    """
    kind, sign, place = text.partition("=")
    if not sign or not place.strip() or kind.strip() not in KINDS:
        raise ValueError(f"source must be KIND=PLACE with KIND one of {', '.join(KINDS)}, received {text!r}")
    return kind.strip(), place.strip()


class NamedColumns:
    """Columns that were named once for all tables; each table takes those that it has."""

    def __init__(self, named: dict[str, Any]) -> None:
        self.named = {argument: names for argument, names in named.items() if names is not None}
        self.found: set[str] = set()
        self.tables: list[str] = []

    def of(self, path: str | Path) -> dict[str, Any]:
        """The named columns that this table has, as arguments of ``read_manifest``."""
        columns = read_table(path).columns
        self.tables.append(Path(path).name)
        found = {
            argument: names
            for argument, names in self.named.items()
            if argument == "label_names" or set([names] if isinstance(names, str) else names) <= set(columns)
        }
        self.found |= set(found)
        return found

    def require_all_found(self) -> None:
        """Raises ``ValueError`` for a column that no table had."""
        for argument in self.named:
            if argument not in self.found:
                tables = ", ".join(self.tables) or "any source (public sets have columns of their own)"
                raise ValueError(f"{argument}: there is no column {self.named[argument]!r} in {tables}")


def read_source(kind: str, place: str, columns: NamedColumns, on_error: str) -> Manifest:
    """Reads one source; the empty kind stands for a table of any kinds."""
    layout, sign, path = place.partition(":")
    if sign and layout in READERS:
        return READERS[layout](path, on_error)
    if sign and len(layout) > 1 and not Path(place).exists():  # one letter is a drive
        raise ValueError(f"source {place!r}: the layout before the colon must be one of {', '.join(READERS)}")
    options = columns.of(place)
    if kind == "text-label":
        options["image_column"] = None
    elif kind == "image-label":
        options["report_column"] = None
    elif not kind:  # a table of any kind need not have both
        present = read_table(place).columns
        for argument, default in (("image_column", "image"), ("report_column", "report")):
            if argument not in options and default not in present:
                options[argument] = None
    return read_manifest(place, on_error=on_error, **options)


def _read_openi(path: str, on_error: str) -> Manifest:
    reports = OpenIReports(path, images=path if Path(path).is_dir() else None, on_error=on_error)
    return _manifest_of(f"openi:{Path(path).name}", reports, (), reports.skipped)


def _read_chexpert(path: str, on_error: str) -> Manifest:
    splits = {"train": "train", "val": "valid", "test": "test"}
    return _manifest_of_splits("chexpert", path, on_error, CheXpert, splits)


def _read_mimic_cxr(path: str, on_error: str) -> Manifest:
    splits = {"train": "train", "val": "validate", "test": "test"}
    return _manifest_of_splits("mimic-cxr", path, on_error, MIMIC_CXR, splits)


READERS: dict[str, Callable[[str, str], Manifest]] = {
    "openi": _read_openi,
    "chexpert": _read_chexpert,
    "mimic-cxr": _read_mimic_cxr,
}


def _manifest_of_splits(name: str, path: str, on_error: str, reader: Any, splits: Mapping[str, str]) -> Manifest:
    studies, skipped = [], []
    for split, own in splits.items():
        if reader is CheXpert and not (Path(path) / f"{own}.csv").is_file():
            continue
        read = reader(path, split=own, on_error=on_error)
        studies += [{**study, "split": split} for study in read]
        skipped += read.skipped
    if not studies:
        raise FileNotFoundError(f"{name}: there is no study in {path}")
    return _manifest_of(f"{name}:{Path(path).name}", studies, reader.names, skipped)


def _manifest_of(
    name: str, read: Sequence[Mapping[str, Any]], names: Sequence[str], skipped: Sequence[Any]
) -> Manifest:
    """A reader's studies as a manifest: one dictionary a view, and no key without content."""
    studies = []
    for row, study in enumerate(read, start=1):
        kept = {key: study[key] for key in ("study_id", "patient_id", "split", "report", "label") if key in study}
        if not str(kept.get("report", "")).strip():
            kept.pop("report", None)
        if "label" in kept and np.isnan(kept["label"]).all():
            del kept["label"]
        views = study.get("image") or []
        studies += [{**kept, "row": row, "image": view} for view in views] or [{**kept, "row": row}]
    counts = {"rows": len(read) + len(skipped), "skipped": len(skipped)}
    counts |= {key: len({s["row"] for s in studies if key in s}) for key in ("image", "report", "label")}
    return Manifest(name, studies, tuple(names), counts, list(skipped))


def with_kinds(manifest: Manifest, kind: str) -> Manifest:
    """Studies of one kind, or where none is asked for each of the kind that its keys make it."""
    if kind:
        kept = manifest.require(*KINDS[kind])
        unused = {"image-text": (), "image-label": ("report",), "text-label": ("image",)}[kind]
        studies = [{k: v for k, v in study.items() if k not in unused} | {"kind": kind} for study in kept.studies]
        return replace(kept, studies=studies)
    studies = []
    left_out = Counter(manifest.left_out)
    for study in manifest.studies:
        fitting = next((name for name, keys in KINDS.items() if all(key in study for key in keys)), None)
        if fitting is None:  # an image alone
            left_out["report or label"] += 1
        else:
            studies.append({**study, "kind": fitting})
    if not studies:
        raise ValueError(f"none of the {len(manifest.studies)} studies of {manifest.name} has a report or a label")
    return replace(manifest, studies=studies, left_out=dict(left_out))
