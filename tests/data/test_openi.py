"""The Indiana collection: archive and folder, images, reports that are broken."""

from __future__ import annotations

import tarfile

import pytest

from medvl.data import OpenIReports
from medvl.utils.errors import StudyError

XML = """<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON"></AbstractText>
<AbstractText Label="FINDINGS">No effusion in report {number}.</AbstractText>
<AbstractText Label="IMPRESSION">Normal &lt;chest&gt;.</AbstractText>
</Abstract></Article></MedlineCitation><MeSH><major>normal</major></MeSH>
<parentImage id="CXR{number}_1"/><parentImage id="CXR{number}_2"/></eCitation>"""


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "ecgen-radiology"
    inner.mkdir()
    for number in (10, 9, 2):
        (inner / f"{number}.xml").write_text(XML.format(number=number))
    return tmp_path


def test_folder_and_archive_read_the_same(folder, tmp_path):
    archive = tmp_path / "reports.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "ecgen-radiology", "ecgen-radiology")
    reports = OpenIReports(folder)
    assert list(OpenIReports(archive)) == list(reports)
    assert [study["study_id"] for study in reports] == ["CXR2", "CXR9", "CXR10"]
    assert reports[0] == {
        "study_id": "CXR2",
        "report": "FINDINGS: No effusion in report 2.\nIMPRESSION: Normal <chest>.",
        "sections": {"findings": "No effusion in report 2.", "impression": "Normal <chest>."},
        "mesh": ["normal"],
        "image_ids": ["CXR2_1", "CXR2_2"],
    }
    assert len(reports[1:]) == 2


@pytest.mark.parametrize("damage", ["long", "number", "sparse"])
def test_records_of_an_archive_are_bounded_and_checked(tmp_path, monkeypatch, damage):
    """A record before a member is read whole, and its numbers by int()."""
    content = {"long": b"comment=" + b"x" * 50_000, "number": b"GNU.sparse.size=x", "sparse": b"GNU.sparse.map=1,x"}[
        damage
    ]
    size = len(content) + 2
    size += len(str(size))  # a record begins with its length
    size += len(str(size)) - len(str(len(content) + 2))
    record = str(size).encode() + b" " + content + b"\n"
    header = tarfile.TarInfo("PaxHeaders/a.xml")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    member = tarfile.TarInfo("a.xml")
    member.size = 4
    blocks = [
        header.tobuf(),
        record.ljust(-(-len(record) // 512) * 512, b"\0"),
        member.tobuf(),
        b"<a/>".ljust(512, b"\0"),
    ]
    (tmp_path / "a.tar").write_bytes(b"".join(blocks) + bytes(1024))
    monkeypatch.setenv("MEDVL_MAX_TEXT_BYTES", "40000")
    with pytest.raises(ValueError, match=r"^path: a\.tar cannot be read as an archive") as caught:
        OpenIReports(tmp_path / "a.tar")
    reasons = {"long": "a record is longer than 40000 bytes (MEDVL_MAX_TEXT_BYTES)"}
    assert reasons.get(damage, "a record is damaged") in str(caught.value.__cause__)


def test_images_are_those_that_are_there(folder, tmp_path):
    images = tmp_path / "png"
    images.mkdir()
    (images / "CXR9_2.png").touch()
    reports = OpenIReports(folder, images=images)
    assert reports[1]["image"] == [str(images / "CXR9_2.png")]
    assert reports[0]["image"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<eCitation>", r"study 'bad\.xml', report: not valid XML"),
        ("<a/>", r"study 'bad\.xml', study_id: no uId element"),
    ],
)
def test_a_broken_report_is_named_or_skipped(folder, content, message):
    (folder / "bad.xml").write_text(content)
    with pytest.raises(StudyError, match=message):
        OpenIReports(folder)
    reports = OpenIReports(folder, on_error="skip")
    assert len(reports) == 3
    assert [error.study_id for error in reports.skipped] == ["bad.xml"]


def test_missing_things_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no file or folder"):
        OpenIReports(tmp_path / "none.tgz")
    with pytest.raises(FileNotFoundError, match="images: there is no folder"):
        OpenIReports(folder, images=tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="path: there is no XML report in"):
        OpenIReports(empty)
    for content in (b"study,report", b"\x1f\x8b\x08\x00 cut short"):
        (tmp_path / "bad.tgz").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.tgz cannot be read as an archive"):
            OpenIReports(tmp_path / "bad.tgz")
    with pytest.raises(ValueError, match=r"^on_error must be one of 'raise', 'skip', got 'warn'\.$"):
        OpenIReports(folder, on_error="warn")


def test_the_real_collection(shared_data):
    reports = OpenIReports(shared_data / "openi-reports.tgz")
    assert len(reports) == 3955
    assert reports[0]["study_id"] == "CXR1"
    assert sum("findings" in study["sections"] for study in reports) == 3955 - 530
    assert sum(study["mesh"] == ["normal"] for study in reports) > 1000
