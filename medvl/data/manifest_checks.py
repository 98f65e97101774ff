"""What the studies of a table have in common: images by several paths, patients of a study, leaks, labels of one image."""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.patient_names import patient_from_name
from medvl.data.splits import SPLITS, group_key, patient_spelling
from medvl.data.study_columns import NOT_MENTIONED, states_as_int8
from medvl.data.study_list import StudyList, hash_column
from medvl.utils.errors import StudyError

logger = logging.getLogger(__name__)


class StudyCollector:
    """Collects the studies of a table's rows.

    Args:
        width: the number of findings in a label.
        folder: what most image paths begin with.

    Attributes:
        images: for each study a hash of its image file's identity; 0 for a study without an image.
    """

    def __init__(self, width: int, folder: str) -> None:
        self.studies = StudyList(width, {"image": folder.rstrip(os.sep) + os.sep})
        self._images, self._named = array("q"), bytearray()

    @property
    def images(self) -> NDArray[np.int64]:
        """A hash of each study's image file; 0 where it has none."""
        return np.asarray(self._images, dtype=np.int64)

    def add(self, study: dict[str, Any], views: Sequence[tuple[str, Hashable]], name: str) -> None:
        """Add a row.

        Args:
            study: its keys but for the image.
            views: the path and the identity of each image.
            name: how the row names its image, where that stands for the id of a study that has none.
        """
        for path, identity in views:
            self.studies.append({**study, "image": path})
            self._images.append(hash(identity) or 1)
            self._named.append(bool(name))
        if not views:
            self.studies.append(study)
            self._images.append(0)
            self._named.append(False)

    def resolved(self, folder: Path) -> tuple[StudyList, str]:
        """The studies with one id for one image and one patient each.

        Returns:
            The studies; and by the file names of which data set patients were found, as an error says it, or ``""``.
        """
        studies = resolve_patients(self._one_name_each())
        has_patient = studies.has("patient_id")
        if has_patient.all():
            return studies, ""
        studies, convention = _patients_from_names(studies, folder)
        if not convention:
            return studies, ""
        which = "of some rows by the file name" if has_patient.any() else "by the file name"
        return resolve_patients(studies), f"{which}, as in {convention}"

    def _one_name_each(self) -> StudyList:
        """Rows without ids that name one image by several paths get the first of its names."""
        named = np.frombuffer(self._named, dtype=bool)
        if not named.any():
            return self.studies
        places = np.flatnonzero(named)
        # A row of several views has the name of its first one.
        rows = self.studies.rows()[places]
        _, start, row_of = np.unique(rows, return_index=True, return_inverse=True)
        identities = self.images[places][start]
        _, first, identity_of = np.unique(identities, return_index=True, return_inverse=True)
        source = places[start][first][identity_of][row_of]
        if (rows == self.studies.rows()[source]).all():
            return self.studies
        wanted = np.arange(len(self.studies))
        wanted[places] = source
        return self.studies.replace("study_id", (self.studies.text("study_id", place) for place in wanted.tolist()))


def resolve_patients(studies: StudyList) -> StudyList:
    """Give each study one patient. A blank patient is filled from the study's other rows. Where several patients have
    studies of the same id (ids numbered per patient), the patient's id is put before it to keep the studies apart."""
    has_patient = studies.has("patient_id")
    if not has_patient.any():
        return studies
    ids = np.fromiter(map(hash, studies.column("study_id")), dtype=np.int64, count=len(studies))
    patients = np.fromiter(map(hash, studies.column("patient_id")), dtype=np.int64, count=len(studies))
    _, group = np.unique(ids, return_inverse=True)
    pairs = np.unique(np.stack([group[has_patient], patients[has_patient]], axis=1), axis=0)
    number = np.bincount(pairs[:, 0], minlength=int(group.max()) + 1)[group]  # of patients of each row's study id
    if (number > 1).any():
        several = (number > 1) & has_patient
        new = (
            f"{patient}/{study}" if more else study
            for study, patient, more in zip(
                studies.column("study_id"), studies.column("patient_id"), several.tolist(), strict=True
            )
        )
        resolved = studies.replace("study_id", new)
    else:
        resolved = studies
    blank = (number == 1) & ~has_patient
    if blank.any():
        known = {
            group_number: patient
            for group_number, patient, wanted in zip(
                group.tolist(),
                studies.column("patient_id"),
                (np.isin(group, group[blank]) & has_patient).tolist(),
                strict=True,
            )
            if wanted
        }
        filled = (
            known[group_number] if empty else patient
            for group_number, patient, empty in zip(
                group.tolist(), studies.column("patient_id"), blank.tolist(), strict=True
            )
        )
        resolved = resolved.replace("patient_id", filled)
    return resolved


def warn_of_spellings(studies: StudyList, name: str) -> None:
    """Warn if ids of patients may be spellings of one (:func:`~medvl.data.splits.patient_spelling`), and count them.

    Args:
        studies: the studies.
        name: of the table.
    """
    found = studies.has("patient_id")
    if not found.any():
        return
    ids = np.fromiter(map(hash, studies.column("patient_id")), dtype=np.int64, count=len(studies))[found]
    spellings = (hash(patient_spelling(patient)) for patient in studies.column("patient_id"))
    keys = np.fromiter(spellings, dtype=np.int64, count=len(studies))[found]
    _, first = np.unique(ids, return_index=True)
    _, number, count = np.unique(keys[first], return_inverse=True, return_counts=True)
    alike = np.sort(first[count[number] > 1])
    if not len(alike):
        return
    places = np.flatnonzero(found)
    examples = alike[keys[alike] == keys[alike[0]]][:2]
    one, other = (studies.text("patient_id", int(places[place])) for place in examples)
    logger.warning(
        "%s: %d ids of patients differ from another only in case, zeros before the number, signs between "
        "thousands or the width of characters, as %r and %r; "
        "they are taken for different patients, and a split that is drawn keeps them together.",
        name,
        len(alike),
        one,
        other,
    )


def _patients_from_names(studies: StudyList, folder: Path) -> tuple[StudyList, str]:
    """Give studies without a patient the one that the file name or the study's id holds: the patient that the other studies
    of that name have where they have one; with the data set whose convention the first follows, or ``""``."""
    start = str(folder.absolute()).rstrip(os.sep) + os.sep

    def name_of(study_id: str, image: str) -> tuple[str, str] | None:
        near = image[len(start) :] if image.startswith(start) else image and os.path.relpath(image, folder)
        return patient_from_name(study_id) or (patient_from_name(near) if near and near != study_id else None)

    def rows() -> Iterator[tuple[str, str, str]]:
        return zip(*map(studies.column, ("patient_id", "study_id", "image")), strict=True)

    given: dict[str, set[str]] = {}
    if studies.has("patient_id").any():
        for patient, study_id, image in rows():
            if patient and (found := name_of(study_id, image)):
                given.setdefault(found[0], set()).add(patient)
    conventions: list[str] = []

    def patients() -> Iterator[str]:
        for patient, study_id, image in rows():
            found = None if patient else name_of(study_id, image)
            if found and not conventions:
                conventions.append(found[1])
            known = given.get(found[0], ()) if found else ()
            yield next(iter(known)) if len(known) == 1 else found[0] if found else patient

    named = studies.replace("patient_id", patients())
    return (named, conventions[0]) if conventions else (studies, "")


def leaking_rows(studies: StudyList, images: NDArray[np.int64], convention: str) -> dict[int, StudyError]:
    """The errors, by row number, of studies whose patient or image is also in a split that is evaluated later.

    The test split keeps them, then the validation split: what must not happen is training or model selection on them.

    Args:
        studies: the studies.
        images: for each of them a hash of its image file, 0 for none.
        convention: by whose file names patients are known (:meth:`StudyCollector.resolved`), or ``""``.
    """
    split = np.fromiter(
        (SPLITS.index(name) if name else -1 for name in studies.column("split")), np.int64, len(studies)
    )
    if len(np.unique(split[split >= 0])) < 2:
        return {}
    places = np.flatnonzero(split >= 0)
    split = split[places]
    groups = hash_column([], group_key) if not len(places) else hash_column(studies, group_key)[places]
    errors: dict[int, StudyError] = {}
    for keys, of_image in ((groups, False), (images[places], True)):
        known = keys != 0 if of_image else np.ones(len(keys), dtype=bool)
        _, number = np.unique(keys, return_inverse=True)
        last = np.full(int(number.max()) + 1, -1)
        np.maximum.at(last, number, split)
        for place in np.flatnonzero(known & (last[number] != split)):
            study = studies[int(places[place])]
            errors.setdefault(study["row"], _leak(study, of_image, SPLITS[last[number[place]]], convention))
    return dict(sorted(errors.items()))


def contradicting_rows(studies: StudyList, images: NDArray[np.int64], names: Sequence[str]) -> dict[int, StudyError]:
    """The errors, by row number, of rows of one image file that state a finding differently.

    Not mentioned is no state. All rows of such an image have an error: which of them is right is not known.

    Args:
        studies: the studies.
        images: for each of them a hash of its image file, 0 for none.
        names: of the K findings; empty if they are unnamed.
    """
    places = of_shared_images(images, studies.has("label"))
    errors: dict[int, StudyError] = {}
    if not len(places):
        return errors
    states = np.stack([states_as_int8(studies.value("label", place)) for place in places.tolist()])
    for own, finding, first, other in differing_states(images[places], states):
        rows = [int(studies.value("row", int(places[i]))) for i in (first, other)]
        name = repr(names[finding]) if names else f"number {finding + 1}"
        reason = (
            f"rows {rows[0]} and {rows[1]} have the same image file and state the finding {name} as "
            f"{states[first, finding]} and {states[other, finding]}; expected one state for an image, as each row lists all "
            "findings of its image"
        )
        for place in places[own].tolist():
            study_id = studies.text("study_id", place)
            errors.setdefault(int(studies.value("row", place)), StudyError(study_id, "label", reason))
    return dict(sorted(errors.items()))


def of_shared_images(images: NDArray[np.int64], labeled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where the labeled studies are whose image file is that of another labeled study.

    Args:
        images: for each study a hash of its image file, 0 for none.
        labeled: for each study whether it has a label.
    """
    places = np.flatnonzero(labeled & (images != 0))
    _, number, count = np.unique(images[places], return_inverse=True, return_counts=True)
    return places[count[number] > 1]


def differing_states(
    images: NDArray[np.int64], states: NDArray[np.int8]
) -> Iterator[tuple[NDArray[np.int64], int, int, int]]:
    """The images of which a finding is stated differently: not mentioned is no state.

    Args:
        images: for each of N studies a hash of its image file.
        states: of their K findings, (N, K).

    Yields:
        For each such image, in the order of the first study of each, the studies that have it, the first such finding, and
        two of the studies that state it differently.
    """
    _, first_of, number = np.unique(images, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first_of))[number]
    order = np.argsort(number, kind="stable")  # the studies of an image one after the other
    stop = np.cumsum(np.bincount(number))
    lowest = np.full((len(stop), states.shape[1]), np.iinfo(np.int8).max, dtype=np.int8)
    highest = np.full_like(lowest, NOT_MENTIONED)
    np.minimum.at(lowest, number, np.where(states == NOT_MENTIONED, np.iinfo(np.int8).max, states))
    np.maximum.at(highest, number, states)
    differs = lowest < highest
    finding = differs.argmax(axis=1)
    said = states[np.arange(len(states)), finding[number]]

    def first_where(wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        places = np.flatnonzero(wanted)[::-1]
        found = np.zeros(len(stop), dtype=np.int64)
        found[number[places]] = places
        return found

    first = first_where(said != NOT_MENTIONED)
    other = first_where((said != NOT_MENTIONED) & (said != said[first[number]]))
    for image in np.flatnonzero(differs.any(axis=1)).tolist():
        own = order[stop[image - 1] if image else 0 : stop[image]]
        yield own, int(finding[image]), int(first[image]), int(other[image])


def _leak(study: Mapping[str, Any], of_image: bool, other: str, convention: str) -> StudyError:
    patient = f"patient ({convention})" if convention else "patient"
    what = "image file" if of_image else patient if "patient_id" in study else "study"
    expected = "an image in one split" if of_image else "all studies of a patient in one split"
    reason = f"row {study['row']}: the {what} is in {study['split']} and in {other}; expected {expected}"
    return StudyError(study["study_id"], "split", reason)
