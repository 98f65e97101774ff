"""Files of a run are written whole or not at all, and a damaged one is named."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from medvl.data import Manifest
from medvl.evaluation import audit_false_negatives
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.results import Evaluation
from medvl.handlers import SkippedLog
from medvl.utils.errors import StudyError
from medvl.utils.io import read_json_lines, write_json
from medvl.workflows import RunFolder, read_skipped
from medvl.workflows.split_record import SplitRecord

AUDIT = audit_false_negatives([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], 2, ("a", "b"))
SKIPPED = SkippedLog("", [StudyError("s1", "image", "it is broken")])


def write_skipped(path):
    log = SkippedLog(path, SKIPPED.errors)
    log(Engine(lambda *_: None))


WRITERS = {
    "evaluation.json": Evaluation({}).save,
    "skipped.jsonl": write_skipped,
    "embeddings.npz": Embeddings(torch.ones(2, 3), torch.ones(2, 3)).save,
    "audit.json": AUDIT.save,
    "audit.png": AUDIT.plot,
    "splits.json": lambda path: SplitRecord.from_studies([]).save(path.parent),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_text("the old one")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medvl.utils.io.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            WRITERS[name](path)
    assert path.read_text() == "the old one"
    assert [file.name for file in tmp_path.iterdir()] == [name]
    WRITERS[name](path)
    assert path.read_bytes() != b"the old one"


def test_lines_are_read_and_a_damaged_one_is_named(tmp_path):
    write_skipped(tmp_path / "skipped.jsonl")
    assert [error.study_id for error in read_skipped(tmp_path)] == ["s1"]
    whole = (tmp_path / "skipped.jsonl").read_text()
    for damaged in (
        '{"study_id": "s2"',
        '{"study_id": "s2"}',
        '{"study_id": 2, "key": "image", "reason": "gone"}',
        "3",
    ):
        (tmp_path / "skipped.jsonl").write_text(f"{whole}\n{damaged}\n{whole}")
        with pytest.raises(ValueError, match=r"skipped\.jsonl, line 3 is damaged; correct or remove it to go on\.$"):
            read_skipped(tmp_path)
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "\xe2\x80\xa8"}\r\n\r\n{"a": 2}')
    assert read_json_lines(tmp_path / "x.jsonl", lambda line: "a" in line) == [{"a": "\u2028"}, {"a": 2}]


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
@pytest.mark.parametrize("damaged", [b"", b"{", b"\x00\x00", b"[1]", b"\xff"])
def test_a_damaged_record_is_named_on_resume(tmp_path, name, damaged):
    config = {"seed": 0, "data": "cases.csv"}
    for file in ("config.yaml", "environment.json"):
        write_json(tmp_path / file, config)
    (tmp_path / name).write_bytes(damaged)
    folder = RunFolder(tmp_path, resume=True, config=config)
    with pytest.raises(ValueError, match=rf"{name} is damaged: "):
        folder._write_records(Manifest.from_studies("cases.csv", [], 0))
