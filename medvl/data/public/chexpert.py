"""CheXpert (Irvin et al. 2019), read from its own CSV and folder layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvl.data.cells import is_missing
from medvl.data.label_columns import CHEXPERT_FINDINGS, parse_states
from medvl.data.public.base import PublicDataset, register_public_dataset
from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError

_VIEWS = ("frontal", "lateral")
_SPLITS = {"train": "train", "val": "valid", "test": "test"}  # name here: name of the CSV


@register_public_dataset("chexpert")
class CheXpert(PublicDataset):
    """A split of CheXpert as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("patient00001/study1"), ``patient_id``, ``image`` (list of paths), ``views`` ("frontal"
    or "lateral" for each image), ``label`` (float32 (14,): 1 present, 0 absent, -1 uncertain, NaN not mentioned, in the
    order of ``names``, whatever the order in the file), and ``sex`` and ``age`` if the file has them.

    Args:
        folder: the data set's folder, which holds ``train.csv`` and ``valid.csv`` and the images
            (``CheXpert-v1.0``, ``CheXpert-v1.0-small``).
        split: ``"train"``, ``"valid"`` or ``"test"``: the CSV's name.
        views: the views to keep; studies without any of them are dropped.
        check_files: whether to check that every image exists.
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Raises:
        FileNotFoundError: If the CSV does not exist.
        ValueError: If ``views`` or ``on_error`` is unknown, or the CSV lacks the column Path or one of the 14 findings.
        medvl.utils.errors.StudyError: If a label is not 1, 0, -1 or blank, a path has no patient and study folder, or an
            image does not exist.

    Example:
        >>> studies = CheXpert("CheXpert-v1.0-small", split="valid", views=["frontal"])  # doctest: +SKIP
    """

    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        views: Sequence[str] = _VIEWS,
        check_files: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(on_error)
        views = (views,) if isinstance(views, str) else tuple(views)
        if not views or set(views) - set(_VIEWS):
            raise ValueError(error_message("views", f"be a non-empty subset of {_VIEWS}", views))
        self.folder = Path(folder)
        table = self.folder / f"{split}.csv"
        if not table.is_file():
            raise FileNotFoundError(f"split: there is no file {table}.")
        studies: dict[str, dict[str, Any]] = {}
        images: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in self.read_rows(table, ("Path", *self.names)):
            with self.handle_study_errors():
                study_id, patient_id = _parse_path(row["Path"])
                view = row.get("Frontal/Lateral") or ("lateral" if "lateral" in row["Path"] else "frontal")
                view = view.strip().lower()
                if view not in views:
                    continue
                path = self._image_path(row["Path"], study_id, check_files)
                details = _details(row, study_id)
                images[study_id].append((path, view))
                studies.setdefault(study_id, {"study_id": study_id, "patient_id": patient_id, **details})
        self._studies = [
            {**study, "image": [path for path, _ in images[key]], "views": [view for _, view in images[key]]}
            for key, study in studies.items()
        ]

    @classmethod
    def read_splits(cls, path: str | Path, on_error: str = "raise") -> dict[str, CheXpert]:
        """The splits whose CSV exists, by the name ``train``, ``val`` or ``test``."""
        found = {split: own for split, own in _SPLITS.items() if (Path(path) / f"{own}.csv").is_file()}
        return {split: cls(path, own, on_error=on_error) for split, own in found.items()}

    def _image_path(self, name: str, study_id: str, check: bool) -> str:
        # Most CSVs' paths begin with the data set's folder, which may have been renamed; those of the test set do not.
        parts = PurePosixPath(name).parts
        split = next(i for i, part in enumerate(parts) if part.startswith("patient")) - 1
        path = self.folder.joinpath(*parts[max(split, 0) :])
        if check and not path.is_file():
            raise StudyError(study_id, "image", f"the file {name} does not exist")
        return str(path)


def _parse_path(path: str) -> tuple[str, str]:
    parts = PurePosixPath(path).parts
    patient = next((part for part in parts if part.startswith("patient")), None)
    study = next((part for part in parts if part.startswith("study")), None)
    if patient is None or study is None:
        raise StudyError(path, "image", "the path has no patient and study folder, expected patient00001/study1/...")
    return f"{patient}/{study}", patient


def _details(row: dict[str, str], study_id: str) -> dict[str, Any]:
    details: dict[str, Any] = {"label": parse_states(row, CHEXPERT_FINDINGS, study_id)}
    if row.get("Sex"):
        details["sex"] = row["Sex"]
    if not is_missing(row.get("Age")):
        try:
            details["age"] = float(row["Age"])
        except ValueError as error:
            raise StudyError(study_id, "Age", f"expected a number or blank, got {row['Age'][:20]!r}") from error
    return details
