"""What the public data sets share: the registry, splits as one manifest, CSV files."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest

import medvl.data.public
from medvl.data import CheXpert, load_sources
from medvl.data.public import base
from medvl.data.public.base import read_public_dataset, register_public_dataset
from medvl.utils.errors import StudyError

NEW_DATASET = '''
from pathlib import Path

from medvl.data.public.base import PublicDataset, register_public_dataset
from medvl.utils.errors import StudyError


@register_public_dataset("my-reports")
class MyReports(PublicDataset):
    """A folder of text files, one folder a split; an empty file is an error."""

    def __init__(self, folder, split, on_error="raise"):
        super().__init__(on_error)
        for path in sorted((Path(folder) / split).glob("*.txt")):
            with self.handle_study_errors():
                if not path.read_text():
                    raise StudyError(path.stem, "report", "the file is empty")
                self._studies.append({"study_id": path.stem, "report": path.read_text()})

    @classmethod
    def read_splits(cls, path, on_error="raise"):
        return {split: cls(path, split, on_error) for split in ("train", "test")}
'''


@pytest.fixture
def new_dataset(tmp_path, monkeypatch):
    """A data set that is one new file, beside those of the library."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_reports.py").write_text(NEW_DATASET)
    monkeypatch.setattr(base, "_REGISTRY", dict(base.public_datasets()))
    monkeypatch.setattr(medvl.data.public, "__path__", [*medvl.data.public.__path__, str(tmp_path / "modules")])
    yield
    sys.modules.pop("medvl.data.public.my_reports", None)


@pytest.fixture
def folder(tmp_path):
    for split, texts in {"train": {"a": "Edema.", "b": ""}, "test": {"c": "No edema."}}.items():
        (tmp_path / "reports" / split).mkdir(parents=True)
        for name, text in texts.items():
            (tmp_path / "reports" / split / f"{name}.txt").write_text(text)
    return tmp_path / "reports"


def test_a_new_file_is_a_new_source(new_dataset, folder):
    manifest = load_sources(f"text-label=my-reports:{folder}", on_error="skip")
    assert [(study["study_id"], study["split"], study["text"]) for study in manifest.studies] == [
        ("a", "train", "Edema."),
        ("c", "test", "No edema."),
    ]
    assert manifest.name == "my-reports:reports"
    assert manifest.counts == {"rows": 3, "skipped": 1, "image": 0, "report": 2, "label": 0}
    assert [str(error) for error in manifest.skipped] == ["study 'b', report: the file is empty"]
    with pytest.raises(ValueError, match="the file is empty"):
        load_sources(f"text-label=my-reports:{folder}")


def test_where_every_study_is_skipped(new_dataset, folder):
    (folder / "train" / "a.txt").unlink()
    (folder / "test" / "c.txt").unlink()
    with pytest.raises(
        ValueError, match=r"^Every row of my-reports:reports was skipped for an error, the first: study"
    ):
        load_sources(f"text-label=my-reports:{folder}", on_error="skip")


def test_no_study_at_all(new_dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^my-reports: there is no study in .*\.$"):
        read_public_dataset("my-reports", tmp_path)


def test_unknown_names(tmp_path):
    message = r"^name must be one of 'chexpert', 'mimic-cxr', 'openi', got 'padchest'\.$"
    with pytest.raises(ValueError, match=message):
        read_public_dataset("padchest", tmp_path)
    message = r"^source must begin with one of chexpert, mimic-cxr, openi before the colon, got 'padchest:x'\.$"
    with pytest.raises(ValueError, match=message):
        load_sources("image-label=padchest:x")


@pytest.mark.parametrize("name", ["c", "a:b", "chexpert"])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ValueError, match=rf"^name must be a new name of at least two .*, got '{name}'\.$"):
        register_public_dataset(name)(CheXpert)


def test_views_labels_and_reports_without_content(tmp_path, monkeypatch):
    study = {"study_id": "s", "image": ["a.png", "b.png"], "views": ["PA", "AP"], "report": " \n", "label": np.ones(2)}
    blank = {"study_id": "t", "report": "Edema.", "label": np.full(2, np.nan)}

    class Two:
        names = ("x", "y")
        skipped = ()

        @classmethod
        def read_splits(cls, path, on_error):
            return {"": Two()}

        def __iter__(self):
            return iter((study, blank))

    monkeypatch.setattr(base, "_REGISTRY", {**base.public_datasets(), "two": Two})
    first, second, third = read_public_dataset("two", tmp_path).studies
    assert first == {"study_id": "s", "row": 1, "image": "a.png", "label": study["label"]}
    assert second == {**first, "image": "b.png"}
    assert third == {"study_id": "t", "row": 2, "report": "Edema."}


class Listed(base.PublicDataset):
    """Nothing but its tables' rows."""

    @classmethod
    def read_splits(cls, path, on_error="raise"):
        return {}


def test_tables_may_be_gzipped_and_must_have_their_columns(tmp_path):
    text = "\ufeffid,view\n1,PA\n"
    (tmp_path / "plain.csv").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "packed.csv.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    for name in ("plain.csv", "packed.csv.gz"):
        assert list(Listed().read_rows(tmp_path / name, ["id"])) == [{"id": "1", "view": "PA"}]
        message = rf"^{name} has no column study, patient; use the data set's original table\.$"
        with pytest.raises(ValueError, match=message):
            list(Listed().read_rows(tmp_path / name, ["study", "id", "patient"]))


def test_a_shifted_row_of_a_public_table_is_an_error_or_counted(tmp_path):
    (tmp_path / "cut.csv").write_text("id,view\n1,PA\n2,PA,erect\n3,AP\n")
    message = r"^study 'row 2', cut\.csv: row 2 \(line 3\): the row has 3 cells, expected 2 as in the header"
    with pytest.raises(StudyError, match=message):
        list(Listed().read_rows(tmp_path / "cut.csv", ["id"]))
    dataset = Listed(on_error="skip")
    assert [row["id"] for row in dataset.read_rows(tmp_path / "cut.csv", ["id"])] == ["1", "3"]
    assert len(dataset.skipped) == 1
