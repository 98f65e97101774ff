"""What the public data sets share: the registry, splits as one manifest, CSV files."""

from __future__ import annotations

import gzip
import os
import sys

import numpy as np
import pytest

import medvl.data.public
from medvl.data import CheXpert, load_sources, read_manifest
from medvl.data.public import base, registry
from medvl.data.public.registry import parse_public_location, register_public_dataset
from medvl.data.public.views import keep_views
from medvl.utils.errors import StudyError

NEW_DATASET = '''
from medvl.data.public.base import PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError


@register_public_dataset("my-reports")
class MyReports(PublicDataset):
    """A folder of text files, one folder a split; an empty file is an error."""

    title, layout = "My reports", "train/*.txt and test/*.txt"

    def read_studies(self):
        for split in ("train", "test"):
            for path in sorted((self.path / split).glob("*.txt")):
                with self.handle_study_errors():
                    if not path.read_text():
                        raise StudyError(path.stem, "report", "the file is empty")
                    yield {"study_id": path.stem, "split": split, "report": path.read_text()}
'''


@pytest.fixture
def new_dataset(tmp_path, monkeypatch):
    """A data set that is one new file, beside those of the library."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_reports.py").write_text(NEW_DATASET)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry.public_datasets()))
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
    with pytest.raises(FileNotFoundError, match=r"^There is no study of My reports in .*\.$"):
        read_manifest(f"my-reports:{tmp_path}")


def test_unknown_names():
    names = ", ".join(registry.public_datasets())
    message = rf"^source must begin with one of {names} before the colon, got 'padchst:x'\.$"
    with pytest.raises(ValueError, match=message):
        load_sources("image-label=padchst:x")
    with pytest.raises(
        ValueError, match=r"^path must begin with one of chexlocalize, .* before the colon, got 'x1:y'\.$"
    ):
        read_manifest("x1:y")


def test_locations(tmp_path):
    location = parse_public_location("mimic-cxr,views=PA+AP,labeler=negbio,check_files=false:data/mimic")
    assert location.options == {"views": ("PA", "AP"), "labeler": "negbio", "check_files": False}
    assert str(location) == "mimic-cxr,views=PA+AP,labeler=negbio,check_files=false:data/mimic"
    assert str(parse_public_location("vindr-cxr,votes=1:x").absolute()) == f"vindr-cxr,votes=1:{os.path.abspath('x')}"
    assert parse_public_location("ms-cxr,images=data/jpg:x").absolute().options["images"] == os.path.abspath("data/jpg")
    assert parse_public_location("C:\\cases.csv") is parse_public_location("cases.csv") is None
    odd = tmp_path / "a1:b.csv"
    odd.touch()
    assert parse_public_location(odd) is None


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nih,views:x", r"^option of nih must be OPTION=VALUE, got 'views'\.$"),
        ("nih,view=PA:x", r"^option of nih must be one of 'split', 'views', 'check_files', got 'view'\.$"),
        ("nih,check_files=no:x", r"^check_files must be one of 'true', 'false', got 'no'\.$"),
        ("vindr-cxr,votes=two:x", r"^votes must be an integer, got 'two'\.$"),
    ],
)
def test_options_that_are_wrong(location, message):
    with pytest.raises(ValueError, match=message):
        parse_public_location(location)


def test_columns_of_a_public_set_cannot_be_named(new_dataset, folder):
    message = r"^columns and image files cannot be named for my-reports:.*, which has its own\.$"
    with pytest.raises(ValueError, match=message):
        read_manifest(f"my-reports:{folder}", label_column="y")


def test_views_by_kind_and_by_name():
    studies = [
        {"study_id": "a", "image": ["1", "2"], "views": ["PA", "LATERAL"]},
        {"study_id": "b", "image": ["3"], "views": ["AP_horizontal"]},
        {"study_id": "c", "image": ["4"], "views": [""]},
    ]

    def kept(views):
        return [(study["study_id"], study["image"]) for study in keep_views(studies, views, "X")]

    assert kept("all") == [("a", ["1", "2"]), ("b", ["3"]), ("c", ["4"])]
    assert kept("frontal") == [("a", ["1"]), ("b", ["3"])]
    assert kept(["lateral", "ap_horizontal"]) == [("a", ["2"]), ("b", ["3"])]
    assert studies[0]["image"] == ["1", "2"]
    message = r"^views must be 'all', 'frontal', 'lateral' or of AP_horizontal, LATERAL, PA, got 'oblique'\.$"
    with pytest.raises(ValueError, match=message):
        kept("oblique")
    with pytest.raises(ValueError, match=r"^views must be 'all', since X has no views, got 'frontal'\.$"):
        keep_views([{"study_id": "d", "image": ["5"]}], "frontal", "X")


@pytest.mark.parametrize("name", ["c", "a:b", "chexpert"])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ValueError, match=rf"^name must be a new name of at least two .*, got '{name}'\.$"):
        register_public_dataset(name)(CheXpert)


def test_views_labels_and_reports_without_content(tmp_path):
    study = {"study_id": "s", "image": ["a.png", "b.png"], "views": ["PA", ""], "report": " \n", "label": np.ones(2)}
    blank = {"study_id": "t", "report": "Edema.", "label": np.full(2, np.nan), "sex": "F"}

    class Two(base.PublicDataset):
        names = ("x", "y")

        def read_studies(self):
            yield from (study, blank)

    first, second, third = Two(tmp_path).to_manifest().studies
    assert first == {"study_id": "s", "row": 1, "image": "a.png", "view": "PA", "label": study["label"]}
    assert second == {"study_id": "s", "row": 1, "image": "b.png", "label": study["label"]}
    assert third == {"study_id": "t", "row": 2, "report": "Edema."}
    with pytest.raises(ValueError, match=r"^split must be 'all', since  has no splits, got 'train'\.$"):
        Two(tmp_path, split="train")


class Listed(base.PublicDataset):
    """Nothing but its tables' rows."""

    def read_studies(self):
        yield from ()


def test_tables_may_be_gzipped_and_must_have_their_columns(tmp_path):
    text = "\ufeffid,view\n1,PA\n"
    (tmp_path / "plain.csv").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "packed.csv.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    for name in ("plain.csv", "packed.csv.gz"):
        assert list(Listed(tmp_path).read_rows(tmp_path / name, ["id"])) == [{"id": "1", "view": "PA"}]
        message = rf"^{name} has no column study, patient; use the data set's original table\.$"
        with pytest.raises(ValueError, match=message):
            list(Listed(tmp_path).read_rows(tmp_path / name, ["study", "id", "patient"]))


def test_a_shifted_row_of_a_public_table_is_an_error_or_counted(tmp_path):
    (tmp_path / "cut.csv").write_text("id,view\n1,PA\n2,PA,erect\n3,AP\n")
    message = r"^study 'row 2', cut\.csv: row 2 \(line 3\): the row has 3 cells, expected 2 as in the header"
    with pytest.raises(StudyError, match=message):
        list(Listed(tmp_path).read_rows(tmp_path / "cut.csv", ["id"]))
    dataset = Listed(tmp_path, on_error="skip")
    assert [row["id"] for row in dataset.read_rows(tmp_path / "cut.csv", ["id"])] == ["1", "3"]
    assert len(dataset.skipped) == 1
