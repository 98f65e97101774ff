"""The published lists of CheXpert 5x200 and 8x200: which images are evaluated on, and which of them are queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from medvl.data import Manifest
from medvl.data.tables import read_table
from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES

_FILES = ("image-retrieval/query.csv", "image-retrieval/candidate.csv", "text-retrieval/query.csv")


@dataclass(frozen=True)
class RetrievalLists:
    """Queries and candidates of retrieval by finding, as ConVIRT published them (https://github.com/yuhaozhang/convirt).

    Args:
        name: of the folder.
        queries: class of each image query, by the image's id ("patient00001/study1/view1_frontal").
        candidates: class of each candidate, likewise.
        texts: text queries by class.
    """

    name: str
    queries: dict[str, str]
    candidates: dict[str, str]
    texts: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> RetrievalLists:
        """Read ``image-retrieval/query.csv`` and ``candidate.csv`` and, if it is there, ``text-retrieval/query.csv``.

        Raises:
            FileNotFoundError: If one of the first two is missing.
            ValueError: If a table lacks a column, or a candidate does not show one class alone.
        """
        folder = Path(folder)
        for name in _FILES[:2]:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}, as ConVIRT's lists of CheXpert 8x200 have.")
        queries = {image_id(row["Path"]): row["Variable"] for row in _rows(folder / _FILES[0], ("Variable", "Path"))}
        candidates = {}
        for row in _rows(folder / _FILES[1], ("Path", *CHEXPERT_8X200_CLASSES)):
            shown = [name for name in CHEXPERT_8X200_CLASSES if row[name].strip() in ("1", "1.0")]
            if len(shown) != 1:
                raise ValueError(f"{_FILES[1]}: a candidate shows {len(shown)} of the classes, and not one.")
            candidates[image_id(row["Path"])] = shown[0]
        texts: dict[str, list[str]] = defaultdict(list)
        if (folder / _FILES[2]).is_file():
            for row in _rows(folder / _FILES[2], ("Variable", "Text")):
                texts[row["Variable"]].append(row["Text"])
        return cls(folder.name, queries, candidates, dict(texts))


def image_id(path: str) -> str:
    """What CheXpert's images are called from whatever folder.

    Example:
        >>> image_id("CheXpert-v1.0-small/train/patient01653/study2/view1_frontal.jpg")
        'patient01653/study2/view1_frontal'
    """
    return str(PurePosixPath(*PurePosixPath(path.replace("\\", "/")).parts[-3:]).with_suffix(""))


def select_8x200(manifest: Manifest, folder: Path) -> tuple[Manifest, list[str]]:
    """The images of ConVIRT's lists as the test split, each under its own id, and those that are not there."""
    lists = RetrievalLists.read(folder)
    return _select(manifest, [*lists.queries, *lists.candidates])


def select_5x200(manifest: Manifest, table: Path) -> tuple[Manifest, list[str]]:
    """The images of GLoRIA's table, of which the column Path is read, as the test split, and those that are not there."""
    if not table.is_file():
        raise FileNotFoundError(f"There is no file {table}; GLoRIA's list of CheXpert 5x200 is chexpert_5x200.csv.")
    return _select(manifest, [image_id(row["Path"]) for row in _rows(table, ("Path",))])


def _select(manifest: Manifest, listed: Iterable[str]) -> tuple[Manifest, list[str]]:
    wanted = dict.fromkeys(listed)
    studies, found = [], set()
    for study in manifest.studies:
        name = image_id(str(study["image"])) if "image" in study else ""
        if name in wanted:
            found.add(name)
            studies.append({**study, "study_id": name, "split": "test"})
        else:
            studies.append({**study, "split": "train"})
    return replace(manifest, studies=studies), [name for name in wanted if name not in found]


def _rows(path: Path, columns: Iterable[str]) -> Iterable[dict[str, str]]:
    table = read_table(path)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}.")
    for row in table:
        if row.problem:
            raise ValueError(f"{path}, {row.position}: {row.problem}.")
        yield {column: "" if cell is None else str(cell) for column, cell in row.cells.items()}
