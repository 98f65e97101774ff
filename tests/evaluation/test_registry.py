"""The registry: a protocol is one file, found by its name; what the data permit; what a context computes once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import medvl.evaluation as package
from medvl.evaluation import (
    Cell,
    Column,
    Evaluation,
    KeyFigure,
    Protocol,
    ProtocolContext,
    ProtocolResult,
    Row,
    Table,
    protocol_names,
    protocols,
    register_protocol,
    registered_protocols,
    write_report,
)
from medvl.evaluation.registry import _REGISTERED, choose_protocols, protocol_modules
from medvl.evaluation.report.page import table_sections

FOLDER = Path(protocols.__file__).parent


class Model(torch.nn.Module):
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.calls = 0

    def encode_image(self, images):
        self.calls += 1
        return images.flatten(1)

    def encode_text(self, texts):
        return torch.ones(len(texts), 4)


class Loader(list):
    dataset = range(4)


def loader(studies):
    generator = torch.Generator().manual_seed(0)
    return Loader(
        [
            {
                "image": torch.rand(len(studies), 1, 2, 2, generator=generator),
                "study_id": [study["study_id"] for study in studies],
                "label": torch.ones(len(studies), 1),
            }
        ]
    )


def context(**changes):
    studies = [{"study_id": str(i), "report": "Clear."} for i in range(4)]
    given = {
        "model": Model(),
        "data_name": "cases.csv",
        "studies": studies,
        "findings": ["Edema"],
        "loader": loader,
        "splits": lambda: ([{"study_id": "a"}], [{"study_id": "b"}]),
        "class_prompts": lambda names: {name: {"present": [name], "absent": [f"no {name}"]} for name in names},
    }
    return ProtocolContext(**{**given, **changes})


def chosen(names=None, **changes):
    return [protocol.name for protocol in choose_protocols(names, context(**changes))]


def test_every_file_registers_the_protocol_of_its_name():
    files = sorted(path.stem.replace("_", "-") for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert protocol_names() == files
    assert sorted(protocol.name for protocol in registered_protocols()) == files
    orders = [(protocol.order, protocol.name) for protocol in registered_protocols()]
    assert orders == sorted(orders)


def test_names_are_listed_without_importing_what_is_heavy():
    code = (
        "from medvl.evaluation.registry import protocol_names; protocol_names(); import sys; "
        "print([m for m in ('torch', 'numpy', 'monai', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_public_names_of_the_protocols_are_names_of_the_package():
    assert {"zero_shot", "retrieval", "knn", "label_agreement", "compare", "Table"} <= set(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=r"module 'medvl.evaluation' has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


@dataclass(frozen=True)
class Counted(ProtocolResult):
    value: float

    @property
    def settings(self):
        return {"bootstrap": {"confidence_level": 0.9, "n_resamples": 7}}

    def tables(self):
        columns = [Column("Studies", compared=True)]
        return [Table("counted", "Counted <studies>", "Row", columns, [Row("All", [Cell(self.value, (1.0, 9.0))])])]

    def to_dict(self):
        return {"value": self.value}

    def key_figures(self):
        return [KeyFigure("Number", Cell(self.value, (1.0, 9.0), note="counted", chance=2.0))]

    def notes(self):
        return ["They were counted."]


@pytest.fixture
def counted():
    """A protocol that is registered for one test."""
    protocol = Protocol("counted", lambda given: Counted(float(len(given.studies))), requires=["reports"], order=1)
    register_protocol(protocol)
    yield protocol
    del _REGISTERED["counted"]


def test_a_new_protocol_appears_in_every_output(counted, tmp_path):
    assert choose_protocols(["counted"], context()) == [counted]
    result = Evaluation({counted.key: counted.run(context())}, Evaluation({counted.key: Counted(3.0)}))
    assert result.save(tmp_path / "out" / "evaluation.json") == tmp_path / "out" / "evaluation.json"
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content == {"counted": {"value": 4.0}, "untrained": {"counted": {"value": 3.0}}}
    lines = (tmp_path / "out" / "evaluation.csv").read_text().splitlines()
    assert lines[1] == "counted,counted,All,Studies,4.0,1.0,9.0,,,3.0,1.0,9.0"
    title, head, *_ = result.table().splitlines()
    assert title == "Counted <studies>"
    assert head.split() == ["Row", "Studies", "Untrained", "studies"]
    page = write_report(tmp_path / "report.html", title="A run", evaluation=result).read_text()
    for text in ('<section id="counted"', "Counted &lt;studies&gt;", "They were counted.", "Untrained studies"):
        assert text in page
    assert "counted, chance 2.000, untrained 3.000" in page
    assert "90 % interval 1.000–9.000" in re.sub("<[^>]*>", "", page)
    assert "the middle 90 % of 7 bootstrap resamples" in page


def test_every_protocol_says_what_its_figures_mean():
    names = [name for module in protocol_modules() for name in module.__all__ if name.endswith("Result")]
    kinds = [
        kind
        for kind in (getattr(package, name) for name in names)
        if isinstance(kind, type) and issubclass(kind, ProtocolResult)
    ]
    assert len(kinds) == len(protocol_names())
    assert [kind.__name__ for kind in kinds if kind.explanations is ProtocolResult.explanations] == []


def test_an_explanation_stands_where_its_figure_does_first(counted):
    class Again(Counted):
        def explanations(self):
            return {"Studies": "How many there are.", "More": "How many more."}

    class Explained(Counted):
        def explanations(self):
            return {"Studies": "How many there are."}

    sections = table_sections(Evaluation({"first": Explained(4.0), "second": Again(3.0)}))
    assert [section.explanations for section in sections] == [
        {"Studies": "How many there are."}, {"More": "How many more."}
    ]  # fmt: skip


def test_a_name_is_registered_once(counted):
    def other(given):
        return None

    other.__module__ = "elsewhere"
    with pytest.raises(ValueError, match=r"^name must differ from those of the registered protocols, got 'counted'\.$"):
        register_protocol(Protocol("counted", other))


def test_requirements_and_options_are_known():
    with pytest.raises(ValueError, match=r"requires must be one of 'labels', 'reports', 'masks', .*, got 'labals'"):
        Protocol("x", lambda given: None, requires=["labals"])
    with pytest.raises(ValueError, match="options must be one of 'classes', 'mask_columns', got 'class'"):
        Protocol("x", lambda given: None, options=["class"])


def test_by_default_what_the_data_permit():
    everything = ["zero-shot", "label-agreement", "retrieval", "label-retrieval", "linear-probe", "knn"]
    assert [name for name in chosen() if name in everything] == everything
    assert not {"single-label", "fine-tune", "segmentation", "grounding"} & set(chosen())
    assert "zero-shot" not in chosen(findings=[])
    assert "retrieval" not in chosen(studies=[{"study_id": "0"}])
    assert not {"linear-probe", "knn"} & set(chosen(splits=lambda: ([], [])))
    assert not {"linear-probe", "knn"} & set(chosen(splits=lambda: ([{"study_id": "a"}], [])))
    # Training studies are not tested on.
    own = [{"study_id": str(i)} for i in range(4)]
    assert "knn" not in chosen(splits=lambda: (own, [{"study_id": "b"}]))


def test_on_request_by_name_or_by_an_option():
    assert chosen(["fine-tune", "single-label"]) == ["single-label", "fine-tune"]
    assert "single-label" in chosen(options={"classes": ["Edema"]})
    assert "segmentation" in chosen(options={"mask_columns": ["lung"]}, mask_loader=loader)
    assert "segmentation" not in chosen(mask_loader=loader)
    assert "grounding" in chosen(mask_loader=loader)


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["zeroshot"], {}, r"--protocol must be one of 'zero-shot', .*, got 'zeroshot'\."),
        (["zero-shot"], {"findings": []}, r"--protocol zero-shot: cases.csv has no labels; name .* --label-column\."),
        (["grounding"], {}, r"--protocol grounding: cases.csv has no masks; name their columns by --mask-column\."),
        (
            ["knn"],
            {"splits": lambda: ([], [])},
            r"--protocol knn: cases.csv has no studies both to train on and to test on\.",
        ),
        (
            ["knn"],
            {"splits": lambda: ([{"study_id": "a"}], [])},
            r"--protocol knn: cases.csv has no studies in its validation split\.",
        ),
        (
            ["zero-shot"],
            {"options": {"classes": ["Edema"]}},
            r"--class is for --protocol single-label, got --protocol zero-shot\.",
        ),
        (None, {"findings": [], "studies": []}, r"cases.csv has neither labels nor reports to evaluate on; .*\."),
    ],
)
def test_what_the_data_do_not_permit_is_said(names, changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        chosen(names, **changes)


def test_embeddings_are_computed_once():
    given = context()
    assert given.embedded is None
    first = given.embeddings()
    assert given.embeddings() is first is given.embedded
    assert given.model.calls == 1
    assert given.split_embeddings("train") is given.split_embeddings("train")
    assert given.validation_embeddings() is given.split_embeddings("validation")
    assert given.model.calls == 3
    assert given.split_embeddings("test").study_ids == first.study_ids
    other = given.for_model(Model(), "untrained ")
    assert other.embedded is None
    assert (other.label, other.keep_images) == ("untrained ", 0)


def test_validation_studies_that_are_evaluated_choose_nothing():
    assert context(splits=lambda: ([], [])).validation_embeddings() is None
    assert context(splits=lambda: ([], [{"study_id": "0"}])).validation_embeddings() is None
    given = context(splits=lambda: ([{"study_id": "0"}], []))
    assert given.split_embeddings("test").study_ids == ["1", "2", "3"]
    with pytest.raises(ValueError, match=r"^cases.csv has no masks\.$"):
        given.masked_batches([])
