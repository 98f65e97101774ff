"""One source of studies: images with reports, images with labels or labeled texts, from a table or a public data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.data.column_selection import ColumnSelection, missing_columns
from medvl.data.locations import parse_location
from medvl.data.manifest import Manifest
from medvl.data.manifest_reader import read_manifest
from medvl.data.study_columns import CodedColumn
from medvl.data.study_list import StudyList, text_column
from medvl.utils.checks import error_message

#: The keys that a study of each kind must have.
KINDS = {"image-text": ("image", "report"), "image-label": ("image", "label"), "text-label": ("report",)}
#: The keys that a study of each kind must not have.
_UNUSED_KEYS = {"image-text": (), "image-label": ("report",), "text-label": ("image",)}


IMAGE_TEXT, IMAGE_LABEL, TEXT_LABEL = range(len(KINDS))


class Source(NamedTuple):
    """Where studies come from.

    Args:
        kind: ``image-text``, ``image-label`` or ``text-label``; None for a table whose rows may be of any kind.
        location: a table, ``NAME:PATH`` of a public data set
            (:func:`~medvl.data.public.registry.parse_public_location`), ``shards:FOLDER`` of packed studies, or
            "synthetic".
    """

    kind: str | None
    location: str


def parse_source(source: str) -> Source:
    """Parse ``KIND=LOCATION``.

    Raises:
        ValueError: If ``source`` is not of that form.

    Example:
        >>> parse_source("text-label=openi:reports.tgz")
        Source(kind='text-label', location='openi:reports.tgz')
    """
    kind, sign, location = source.partition("=")
    if not sign or not location.strip() or kind.strip() not in KINDS:
        expected = f"be KIND=LOCATION with KIND one of {', '.join(KINDS)}"
        raise ValueError(error_message("source", expected, repr(source)))
    return Source(kind.strip(), location.strip())


def read_source(source: Source, columns: ColumnSelection, on_error: str, on_leak: str = "error") -> Manifest:
    """Read one source.

    Args:
        source: where the studies come from.
        columns: the named columns.
        on_error: ``"raise"`` or ``"skip"`` bad rows.
        on_leak: ``"error"`` or ``"keep"`` patients and images in two splits of a table.

    Raises:
        OSError: If the source cannot be read.
        ValueError: If the name before a colon is not that of a public data set.
    """
    location = parse_location(source.location)
    if location is not None:
        return location.read(on_error)
    options, table = columns.for_table(source.location)
    if source.kind == "text-label":
        options = {key: value for key, value in options.items() if not key.startswith("image_")} | {
            "image_column": None
        }
    elif source.kind == "image-label":
        options["report_column"] = None
    else:  # a table of any kind need not have both columns
        options |= missing_columns(options, table) if source.kind is None else {}
    return read_manifest(source.location, on_error=on_error, on_leak=on_leak, **options)


def kind_codes(studies: Sequence[Mapping[str, Any]]) -> NDArray[np.int8]:
    """The number of each study's kind in ``KINDS``."""
    codes = {kind: number for number, kind in enumerate(KINDS)}
    return np.fromiter((codes[kind] for kind in text_column(studies, "kind")), dtype=np.int8, count=len(studies))


def assign_kinds(manifest: Manifest, kind: str | None) -> Manifest:
    """Give each study its ``kind``: the given one, or if None the first whose keys it has.

    Raises:
        ValueError: If no study has the keys of its kind.
    """
    if kind is not None:
        kept = manifest.drop_missing(*KINDS[kind])
        studies = StudyList.of(kept.studies)
        of_kind = CodedColumn([kind], np.zeros(len(studies), dtype=np.int8))
        return replace(kept, studies=studies.with_columns({"kind": of_kind}, without=_UNUSED_KEYS[kind]))
    studies = StudyList.of(manifest.studies)
    matching = np.full(len(studies), len(KINDS))  # an image alone matches none
    for number, keys in reversed(list(enumerate(KINDS.values()))):
        matching[np.logical_and.reduce([studies.has(key) for key in keys])] = number
    kept_rows = matching < len(KINDS)
    if not kept_rows.any():
        raise ValueError(f"None of the {len(manifest)} studies of {manifest.name} has a report or a label.")
    dropped = Counter(manifest.dropped)
    dropped.update({"report or label": int((~kept_rows).sum())} if not kept_rows.all() else {})
    kinds = CodedColumn(list(KINDS), matching[kept_rows])
    return replace(manifest, studies=studies.select(kept_rows).with_columns({"kind": kinds}), dropped=dict(dropped))
