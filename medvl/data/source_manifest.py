"""Several sources as one manifest: labels in one order, every text labeled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import normalize_name
from medvl.data.column_selection import ColumnSelection
from medvl.data.label_columns import match_names
from medvl.data.leaks import file_identity, image_paths, warn_of_copies
from medvl.data.manifest import Manifest
from medvl.data.manifest_checks import differing_states, of_shared_images
from medvl.data.shards import PackedLocation
from medvl.data.source_splits import split_sources
from medvl.data.source_texts import TEXT_UNITS, add_texts
from medvl.data.sources import IMAGE_LABEL, KINDS, Source, assign_kinds, kind_codes, parse_source, read_source
from medvl.data.studies import SYNTHETIC, column_options, prepare_synthetic, table_path
from medvl.data.study_columns import NOT_MENTIONED, CodedColumn, Column, PrefixedColumn, states_as_int8
from medvl.data.study_list import StudyList, has_key, hash_column
from medvl.text import finding_names
from medvl.transforms.text import section_names
from medvl.utils.checks import check_option, error_message
from medvl.utils.errors import StudyError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceManifest(Manifest):
    """The studies of several sources, as one :class:`Manifest`.

    Each study has its ``kind`` and the name of its ``source`` (with the kind, if a table has several). All labels are in
    the order of ``names``. If there are several sources, ``study_id`` and ``patient_id`` begin with the source's name, so
    that equal ids of different sources do not collide.

    Args:
        parts: name of each source to its manifest, in the order given.
        unlabeled: number of texts that were dropped because they mention no finding.
        text_unit: what is one text, "report" or "sentence".
        sections: the sections that make up a report's text.
    """

    parts: dict[str, Manifest] = field(default_factory=dict, repr=False)
    unlabeled: int = 0
    text_unit: str = "report"
    sections: tuple[str, ...] = ("findings", "impression")

    def summary(self) -> str:
        """How many rows of each source were read, skipped and dropped, in plain sentences."""
        text = " ".join(part.summary() for part in self.parts.values())
        if self.unlabeled:
            text += f" {self.unlabeled} texts that mention no finding dropped."
        return text


def load_sources(
    sources: str | Sequence[str] = (),
    data: str | Path | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    on_leak: str = "error",
    seed: int = 0,
    text_unit: str = "report",
    sections: Sequence[str] = ("findings", "impression"),
    vocabulary: str | Path = "chexpert14",
    label_cache: str | Path | None = None,
    require_findings: bool = False,
    folder: str | Path = ".",
    synthetic_length: int = 2000,
    synthetic_size: int = 128,
    spatial_dims: int = 2,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> SourceManifest:
    """Read sources, split them by patient, label the texts without a label, and bring all labels into one order.

    A source is written ``KIND=LOCATION``. KIND is ``image-text``, ``image-label`` or ``text-label``. LOCATION is a table (see
    :func:`~medvl.data.read_manifest`), a public data set in its original layout (``NAME:PATH`` with a NAME such as
    ``openi`` or ``chexpert`` and PATH a folder or archive), or "synthetic", the built-in data set. ``data`` is a table
    whose rows may be of any kind, each of the kind that its cells allow; "synthetic" as ``data``, the recipes' default, is
    ignored if there are sources.

    A patient or an image that several sources have is in one split of all of them: that of the sources with splits, else
    that of the source named first. Patients are the same if their ids are equal. If the sources' own splits differ, or if two
    splits have images of the same content, a warning counts the patients and images. Another counts the images of which two
    sources state a finding differently.

    An image of the kind ``image-text`` is labeled from its report where its own label does not mention a finding.

    Args:
        sources: one or more ``KIND=LOCATION``.
        data: a table with studies of any kind.
        columns: arguments of :func:`~medvl.data.read_manifest` that name columns or say where images are, applied to every
            table that has the columns.
        on_error: ``"raise"`` or ``"skip"`` bad rows, as in :func:`~medvl.data.read_manifest`.
        on_leak: ``"error"`` or ``"keep"`` patients and images in two splits, as in :func:`~medvl.data.read_manifest`.
        seed: of the splits of sources without a split column, and of the synthetic data set.
        text_unit: what is one text: ``"report"``, or ``"sentence"`` for each sentence of a report, with its own label.
        sections: the sections that make up a report's text; the whole report if it has none of them.
        vocabulary: findings that texts are labeled with.
        label_cache: file that caches the labels of texts, see :func:`label_texts`.
        require_findings: whether to drop texts that mention no finding.
        folder: where the synthetic data set is saved, see :func:`load_studies`.
        synthetic_length: number of synthetic studies.
        synthetic_size: side of the synthetic images in pixels.
        spatial_dims: 2 for synthetic radiographs, 3 for synthetic CT.
        progress: wraps the iteration over the synthetic studies as they are saved, as ``tqdm`` does.

    Returns:
        The manifest. Studies with a report have ``text`` (or the list ``sentences``) and ``text_label``, (K,) or (S, K).

    Raises:
        OSError: If a source cannot be read.
        ValueError: If a source is not ``KIND=LOCATION`` or has no study of its kind, a named column is in no table,
            ``columns`` has an unknown argument, labels have no names, or one of ``sections`` is no name of a section.

    Example:
        >>> load_sources(["image-label=cases.csv", "text-label=openi:reports.tgz"])  # doctest: +SKIP
    """
    check_option(on_error, "on_error", ("raise", "skip"))
    check_option(on_leak, "on_leak", ("error", "keep"))
    check_option(text_unit, "text_unit", TEXT_UNITS)
    sections = section_names(sections)
    parsed = [parse_source(source) for source in ([sources] if isinstance(sources, str) else sources)]
    if data is not None and not (parsed and str(data) == SYNTHETIC):
        parsed.insert(0, Source(None, str(data)))
    if not parsed:
        raise ValueError(error_message("sources or data", "name at least one source", "neither"))
    locations = [source.location for source in parsed]
    prepare_synthetic(locations, folder, synthetic_length, synthetic_size, seed, spatial_dims, progress)
    selection = ColumnSelection(column_options(columns))
    tables = [Source(source.kind, str(table_path(source.location, folder))) for source in parsed]
    read = [_read_named(table, selection, on_error, on_leak, len(tables) > 1) for table in tables]
    selection.check_all_found()  # before a study is missed because a column is misspelled
    splits = split_sources(read, seed)
    parts: dict[str, Manifest] = {}
    for source, manifest in zip(parsed, splits, strict=True):
        parts[_unique_name(source.location, parts)] = assign_kinds(manifest, source.kind)
    names = _merged_names(parts, finding_names(vocabulary))
    studies, labels = _merged_studies(parts, names)
    _warn_of_contradictions(studies, labels, names)
    title = " + ".join(part.name for part in parts.values())
    if on_leak == "error":
        warn_of_copies(studies, title)
    packed = [place.text_labels() for location in locations if (place := PackedLocation.parse(location)) is not None]
    caches = [path for path in packed if path is not None]
    studies, unlabeled = add_texts(
        studies, labels, names, text_unit, sections, vocabulary, label_cache, caches, require_findings
    )
    _warn_if_disjoint(studies, names)
    counts = Counter[str]()
    for part in parts.values():
        counts.update(part.counts)
    return SourceManifest(
        name=title,
        studies=studies,
        names=names,
        counts=dict(counts),
        skipped=[error for part in parts.values() for error in part.skipped],
        parts=parts,
        unlabeled=unlabeled,
        text_unit=text_unit,
        sections=sections,
    )


def _read_named(
    source: Source, columns: ColumnSelection, on_error: str, on_leak: str, is_one_of_several: bool
) -> Manifest:
    """Read one source; of several, errors name it, since rows alone do not tell where they are."""
    if not is_one_of_several:
        return read_source(source, columns, on_error, on_leak)
    name = Path(source.location).name

    def named(error: StudyError) -> StudyError:
        return StudyError(error.study_id, error.key, f"{name}, {error.reason}")

    try:
        manifest = read_source(source, columns, on_error, on_leak)
    except StudyError as error:
        raise named(error) from error
    return replace(manifest, skipped=[named(error) for error in manifest.skipped])


def _unique_name(location: str, taken: Mapping[str, Any]) -> str:
    name = Path(location.partition(":")[2] or location).stem
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _merged_names(parts: Mapping[str, Manifest], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Every finding once, those of the vocabulary first if any text is labeled with it."""
    has_texts = any((kind_codes(part.studies) != IMAGE_LABEL).any() for part in parts.values())
    names = {normalize_name(name): name for name in vocabulary} if has_texts else {}
    for source, part in parts.items():
        if not part.names and has_key(part.studies, "label").any():
            raise ValueError(f"The labels of {source} have no names; give label_names, or one label column a finding.")
        for name in part.names:
            names.setdefault(normalize_name(name), name)
    return tuple(names.values())


def _merged_studies(parts: Mapping[str, Manifest], names: Sequence[str]) -> tuple[StudyList, NDArray[np.int8]]:
    """The studies of all sources with their ``source`` and unique ids, and their labels in the order of ``names``, (N, K)."""
    lists, labels = [], []
    for source, part in parts.items():
        columns = match_names(part.names, names)
        if len(set(columns)) < len(columns):
            raise ValueError(f"{part.name} has two label columns of one name: {', '.join(part.names)}.")
        studies = StudyList.of(part.studies)
        codes = kind_codes(studies)
        several = len(np.unique(codes)) > 1
        values = [f"{source}:{kind}" if several else source for kind in KINDS]
        new: dict[str, Column] = {"source": CodedColumn(values, codes)}
        if len(parts) > 1:
            ids = [key for key in ("study_id", "patient_id") if studies.has(key).any()]
            new |= {key: PrefixedColumn(studies.column_of(key), f"{source}/") for key in ids}
        states = np.full((len(studies), len(names)), NOT_MENTIONED, dtype=np.int8)
        own = studies.column_of("label")
        for row in np.flatnonzero(studies.has("label")).tolist():
            states[row, columns] = states_as_int8(own[row])
        lists.append(studies.with_columns(new))
        labels.append(states)
    return StudyList.concatenate(lists), np.concatenate(labels)


def _warn_of_contradictions(studies: StudyList, labels: NDArray[np.int8], names: Sequence[str]) -> None:
    """Warn of the images of which two sources state a finding differently; which of them is right is not known."""
    labeled = studies.has("label") & studies.has("image")
    if len({studies.text("source", place) for place in np.flatnonzero(labeled).tolist()}) < 2:
        return  # files need not be looked for
    images = hash_column(studies, lambda study: tuple(map(file_identity, image_paths(study))))
    places = of_shared_images(images, labeled)
    found = list(differing_states(images[places], labels[places])) if len(places) else []
    if found:
        _, finding, *two = found[0]
        said = [f"{labels[places[i], finding]} of {studies.text('study_id', int(places[i]))}" for i in two]
        logger.warning(
            "The sources state findings of %d image%s differently, as '%s': %s; each label is used.",
            len(found),
            "" if len(found) == 1 else "s",
            names[finding],
            " and ".join(said),
        )


def _warn_if_disjoint(studies: StudyList, names: Sequence[str]) -> None:
    """Warn if no finding is known of both images and texts: training would run and learn nothing from their labels."""
    known = {"label": np.zeros(len(names), bool), "text_label": np.zeros(len(names), bool)}
    for key, seen in known.items():
        column = studies.column_of(key)
        for row in np.flatnonzero(studies.has(key)).tolist():
            if seen.all():
                break
            seen |= ~np.isnan(np.atleast_2d(column[row])).all(0)
    images, texts = known["label"], known["text_label"]
    if images.any() and texts.any() and not (images & texts).any():
        logger.warning(
            "Images and texts have no finding in common: the images have %s, the texts %s.",
            ", ".join(np.array(names)[images]),
            ", ".join(np.array(names)[texts]),
        )
