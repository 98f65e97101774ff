"""Several sources as one list of studies, all labels in one order, every text labelled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.manifest import Manifest
from medvl.data.sources import NamedColumns, parse_source, read_source, with_kinds
from medvl.data.studies import SYNTHETIC, table_path, write_synthetic
from medvl.data.text_labels import label_texts
from medvl.text import load_vocabulary, split_sentences
from medvl.text.headers import is_header
from medvl.transforms import ExtractSections
from medvl.utils.errors import check_on_error

TEXTS = ("report", "sentence")
NO_FINDING = "no finding"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceManifest(Manifest):
    """The studies of several sources, as the :class:`Manifest` that all workflows take.

    Each study has its ``kind`` and the name of its ``source`` (with the kind, where a table holds several). All labels are
    in the order of ``names``, by name. Where there are several sources, ``study_id`` and ``patient_id`` begin with the
    source's name, so that equal ids stay apart.

    Args:
        parts: name of each source to its manifest, in the order given.
        unlabelled: texts that were left out because they speak of no finding.
    """

    parts: dict[str, Manifest] = field(default_factory=dict, repr=False)
    unlabelled: int = 0

    def summary(self) -> str:
        """What became of the rows of each source, in plain sentences."""
        text = " ".join(part.summary() for part in self.parts.values())
        if self.unlabelled:
            text += f" {self.unlabelled} texts that speak of no finding left out."
        return text


def load_sources(
    sources: str | Sequence[str] = (),
    data: str | Path | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    seed: int = 0,
    texts: str = "report",
    sections: Sequence[str] = ("findings", "impression"),
    vocabulary: str | Path = "chexpert14",
    label_cache: str | Path | None = None,
    require_findings: bool = False,
    folder: str | Path = ".",
    synthetic_length: int = 2000,
    synthetic_size: int = 128,
    spatial_dims: int = 2,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> SourceManifest:
    """Reads sources, splits each by patient, labels the texts that have no label, and puts all labels in one order.

    A source is written ``KIND=PLACE``. KIND is ``image-text``, ``image-label`` or ``text-label``. PLACE is a table (see
    :func:`~medvl.data.read_manifest`), or a public set in its own layout: ``openi:PATH`` (archive or folder),
    ``chexpert:PATH`` or ``mimic-cxr:PATH`` (folder), or "synthetic", the built-in set. ``data`` is one more table, of which
    each row makes a study of the kind that it has the cells for; "synthetic", the recipes' default, gives way to sources.

    An image of the kind image-text gets the label of its report, beside what its own label knows.

    Args:
        sources: ``KIND=PLACE`` each, or one.
        data: a table with studies of any kind.
        columns: arguments of :func:`~medvl.data.read_manifest` that name columns, for every table that has them.
        on_error: ``"raise"`` or ``"skip"`` bad rows, as :func:`~medvl.data.read_manifest` does.
        seed: of the splits of sources without splits of their own.
        texts: what is one text: a ``"report"``, or each ``"sentence"`` of it, with a label of its own.
        sections: the sections of a report that are its text; the whole where it has none of them.
        vocabulary: for the labels of texts.
        label_cache: a file for these labels, see :func:`label_texts`.
        require_findings: leave out texts that no finding is known of.
        folder: where the synthetic set is written, see :func:`load_studies`.
        synthetic_length: number of synthetic studies.
        synthetic_size: side of the synthetic images in pixels.
        spatial_dims: 2 for synthetic radiographs, 3 for synthetic CT.
        progress: wraps the iteration over the synthetic studies as they are written, as ``tqdm`` does.

    Returns:
        The studies. Those with a report have ``text`` (or the list ``sentences``) and ``text_label``: (K,), or (S, K).

    Raises:
        OSError: where a source cannot be read.
        ValueError: for a source that is not ``KIND=PLACE``, columns that no table has, labels without names, or a source
            without any study of its kind.

    Example:
        >>> load_sources(["image-label=cases.csv", "text-label=openi:reports.tgz"])  # doctest: +SKIP
    """
    check_on_error(on_error)
    if texts not in TEXTS:
        raise ValueError(f"texts must be one of {TEXTS}, received {texts!r}")
    places = [parse_source(source) for source in ([sources] if isinstance(sources, str) else sources)]
    if data is not None and not (places and str(data) == SYNTHETIC):
        places.insert(0, ("", str(data)))
    if not places:
        raise ValueError("sources or data must name something to read, received neither")
    write_synthetic(
        [place for _, place in places], folder, synthetic_length, synthetic_size, seed, spatial_dims, progress
    )
    given = NamedColumns(dict(columns or {}))
    read = [read_source(kind, str(table_path(place, folder)), given, on_error) for kind, place in places]
    given.require_all_found()  # before a study is missed for want of a column
    parts: dict[str, Manifest] = {}
    for (kind, place), manifest in zip(places, read, strict=True):
        parts[_free_name(place, parts)] = with_kinds(manifest.with_splits(seed=seed), kind)
    return _merge(parts, texts, ExtractSections(sections), vocabulary, label_cache, require_findings)


def _free_name(place: str, taken: Mapping[str, Any]) -> str:
    name = Path(place.partition(":")[2] or place).stem
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _merge(
    parts: Mapping[str, Manifest],
    texts: str,
    extract: ExtractSections,
    vocabulary: str | Path,
    label_cache: str | Path | None,
    require_findings: bool,
) -> SourceManifest:
    words = load_vocabulary(vocabulary)
    names = _all_names(parts, words.names)
    studies = []
    for source, part in parts.items():
        columns = _positions(part, names)
        mixed = len({study["kind"] for study in part.studies}) > 1
        for study in part.studies:
            merged = {**study, "source": f"{source}:{study['kind']}" if mixed else source}
            if len(parts) > 1:
                merged |= {key: f"{source}/{study[key]}" for key in ("study_id", "patient_id") if key in study}
            if "label" in study:
                merged["label"] = _reordered(study["label"], columns, len(names))
            studies.append(merged)
    _add_texts(studies, texts, extract, vocabulary, label_cache, _index_of(words.names, names), names)
    unlabelled = 0
    if require_findings:
        studies, unlabelled = _speaking(studies)
    _warn_of_nothing_in_common(studies, names)
    counts = Counter[str]()
    for part in parts.values():
        counts.update(part.counts)
    return SourceManifest(
        name=" + ".join(part.name for part in parts.values()),
        studies=studies,
        names=names,
        counts=dict(counts),
        skipped=[error for part in parts.values() for error in part.skipped],
        parts=dict(parts),
        unlabelled=unlabelled,
    )


def _normal(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _all_names(parts: Mapping[str, Manifest], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Every finding once, those of the vocabulary first where a text is labelled with it."""
    reads_texts = any(study["kind"] != "image-label" for part in parts.values() for study in part.studies)
    names = {_normal(name): name for name in vocabulary} if reads_texts else {}
    for source, part in parts.items():
        if not part.names and any("label" in study for study in part.studies):
            raise ValueError(f"the labels of {source} have no names; name them (label_names, or a column each)")
        for name in part.names:
            names.setdefault(_normal(name), name)
    return tuple(names.values())


def _index_of(own: Sequence[str], names: Sequence[str]) -> list[int]:
    place = {_normal(name): i for i, name in enumerate(names)}
    return [place.get(_normal(name), -1) for name in own]


def _positions(part: Manifest, names: Sequence[str]) -> list[int]:
    columns = _index_of(part.names, names)
    if len(set(columns)) < len(columns):
        raise ValueError(f"{part.name} has two label columns of one name: {', '.join(part.names)}")
    return columns


def _reordered(label: Any, columns: Sequence[int], width: int) -> np.ndarray:
    out = np.full((*np.shape(label)[:-1], width), np.nan, dtype=np.float32)
    out[..., list(columns)] = label
    return out


def _add_texts(
    studies: Sequence[dict[str, Any]],
    texts: str,
    extract: ExtractSections,
    vocabulary: str | Path,
    label_cache: str | Path | None,
    columns: Sequence[int],
    names: Sequence[str],
) -> None:
    """Gives studies with a report ``text`` or ``sentences`` and ``text_label``, and images without a label their report's."""
    waiting: list[tuple[dict[str, Any], slice]] = []
    flat: list[str] = []
    for study in studies:
        if study["kind"] == "image-label":
            continue
        study["text"] = extract(study["report"])
        if study["kind"] == "text-label" and "label" in study:
            study["text_label"] = study.pop("label")
            continue
        parts = [study["text"]]
        if texts == "sentence":
            study["sentences"] = _sentences(study.pop("text"))
            parts += study["sentences"]
        waiting.append((study, slice(len(flat), len(flat) + len(parts))))
        flat += parts
    labels = _reordered(label_texts(flat, vocabulary, label_cache), columns, len(names))
    normal = [_normal(name) == NO_FINDING for name in names]
    for study, place in waiting:
        whole, by_sentence = labels[place][0], labels[place][1:]
        study["text_label"] = by_sentence if "sentences" in study else whole
        if study["kind"] == "image-text":
            study["label"] = _completed(study["label"], whole, normal) if "label" in study else whole


def _completed(label: np.ndarray, reported: np.ndarray, normal: Sequence[bool]) -> np.ndarray:
    """The label, and of what it does not know what the report says; that nothing was found is not added to a label."""
    return np.where(np.isnan(label) & ~np.array(normal), reported, label)


def _sentences(text: str) -> list[str]:
    sentences = (text[start:end] for start, end in split_sentences(text))
    return [sentence for sentence in sentences if not is_header(sentence) and any(map(str.isalpha, sentence))]


def _speaking(studies: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Without the texts that no finding is known of, and how many these were."""
    kept, silent = [], 0
    for study in studies:
        if "sentences" in study:
            known = ~np.isnan(study["text_label"]).all(1)
            silent += int((~known).sum())
            sentences = [sentence for sentence, speaks in zip(study["sentences"], known, strict=True) if speaks]
            study = {**study, "sentences": sentences, "text_label": study["text_label"][known]}
        if study["kind"] == "image-label" or not np.isnan(study.get("label", study["text_label"])).all():
            kept.append(study)
        else:
            silent += "text" in study
    return kept, silent


def _warn_of_nothing_in_common(studies: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Images and texts whose findings have other names teach each other nothing, and it would not show."""
    known = {"label": np.zeros(len(names), bool), "text_label": np.zeros(len(names), bool)}
    for study in studies:
        for key, seen in known.items():
            if key in study and len(study[key]):
                seen |= ~np.isnan(np.atleast_2d(study[key])).all(0)
    images, texts = known["label"], known["text_label"]
    if images.any() and texts.any() and not (images & texts).any():
        logger.warning(
            "No finding is known of images and texts alike: the images have %s, the texts %s.",
            ", ".join(np.array(names)[images]),
            ", ".join(np.array(names)[texts]),
        )
