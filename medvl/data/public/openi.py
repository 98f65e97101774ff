"""The Indiana University chest X-ray collection (Open-i), read from its XML reports or its two tables."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import xml.etree.ElementTree as ElementTree
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvl.data.public.base import ImageIndex, ImagesElsewhere, join_sections
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError
from medvl.utils.limits import TEXT, check_regular_file, limit, read_bounded, read_small_file

_SECTIONS = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")


@register_public_dataset("openi")
class OpenIReports(ImagesElsewhere):
    """The Indiana University collection (Demner-Fushman et al. 2016) as a datalist.

    Each study is a dictionary with ``study_id`` ("CXR17"), ``report`` (sections with their headers, one a line), ``sections``
    (lower-case name to text, of those with text), ``mesh`` (the coders' terms, such as "Pleural Effusion/left/small"),
    ``image_ids``, ``image`` (list of the files that are there) and, from the tables, ``views``. The collection numbers
    reports and not patients, and has no splits.

    Layout: the XML reports as archive (``.tgz``, ``.tar.gz``, ``.tar``; nothing is unpacked) or in a folder at any depth; or
    the two tables ``indiana_reports.csv`` and ``indiana_projections.csv``, as distributed on Kaggle. License: public,
    Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 by its site. No application: Open-i of the US National
    Library of Medicine. The XML form was compared with the archive in TorchXRayVision, the tables with public code that reads
    them.

    Args:
        path: the archive, or the folder of the reports or the tables.
        split: ``"all"``.
        views: ``"frontal"``, ``"lateral"`` or ``"all"``; the XML form has no views.
        images: folder with the images, ``<image id>.png`` (or .jpg, .dcm); the folder of the reports if it is blank.
        check_files: not used, since the images are those that are there.
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Raises:
        FileNotFoundError: If a folder does not exist or there is no report.
        ValueError: If an argument is unknown, or the file is not an archive or is broken.
        medvl.utils.errors.StudyError: If a report is not valid XML or not of this collection.

    Example:
        >>> reports = OpenIReports("openi-reports.tgz")  # doctest: +SKIP
        >>> reports[0]["sections"]["impression"]  # doctest: +SKIP
        'Normal chest x-XXXX.'
    """

    title = "Open-i"
    layout = "XML reports (a folder or an archive .tgz), or indiana_reports.csv and indiana_projections.csv"
    license = "CC BY-NC-ND 4.0"
    url = "https://openi.nlm.nih.gov/faq"

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The reports in the order of their numbers, of the tables if they are there, else of the XML files."""
        files = ImageIndex(self.images)
        tables = self.find("indiana_reports.csv") if self.path.is_dir() else None
        studies = list(self._read_xml(files) if tables is None else self._read_tables(tables, files))
        yield from sorted(studies, key=lambda study: (_study_number(study["study_id"]), study["study_id"]))

    def _read_xml(self, files: ImageIndex) -> Iterator[dict[str, Any]]:
        is_empty = True
        try:
            for name, content in _xml_files(self.path):
                is_empty = False
                with self.handle_study_errors():
                    study = _study(name, content)
                    found = [path for name in study["image_ids"] if (path := files.get(name))]
                    yield study | {"image": found} if files else study
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"path: {self.path.name} cannot be read as an archive (.tgz, .tar.gz, .tar).") from error
        if is_empty:
            raise FileNotFoundError(f"path: there is no XML report in {self.path}.")

    def _read_tables(self, reports: Path, files: ImageIndex) -> Iterator[dict[str, Any]]:
        images: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in self.read_rows(self.require("indiana_projections.csv"), ("uid", "filename", "projection")):
            images[row["uid"]].append((row["filename"].removesuffix(".png"), row["projection"]))
        names = [section.lower() for section in _SECTIONS]
        for row in self.read_rows(reports, ("uid", "MeSH", *names)):
            sections = {name: row[name].strip() for name in names if row[name].strip()}
            present = [(name, view, path) for name, view in images[row["uid"]] if (path := files.get(name))]
            yield {
                "study_id": f"CXR{row['uid']}",
                "report": join_sections(sections),
                "sections": sections,
                "mesh": [term.strip() for term in row["MeSH"].split(";") if term.strip()],
                "image_ids": [name for name, _ in images[row["uid"]]],
                "image": [path for _, _, path in present],
                "views": [view for _, view, _ in present],
            }


def _study_number(study_id: str) -> int:
    digits = "".join(filter(str.isdigit, study_id))
    return int(digits) if digits else 0


def _xml_files(path: Path) -> Iterator[tuple[str, Path | IO[bytes]]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.xml")):
            yield file.name, file
        return
    check_regular_file(path)
    # A stream: nothing is unpacked to the disk, so no name in the archive can lead outside a folder.
    with tarfile.open(path, "r:*", tarinfo=_Member) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".xml"):
                content = archive.extractfile(member)
                if content is not None:
                    yield os.path.basename(member.name), content


class _Member(tarfile.TarInfo):
    """A member of an archive, whose long names and other records, which are read whole, are bounded."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isfile() and self.size > limit(TEXT):
            raise tarfile.ReadError(f"a record is longer than {limit(TEXT)} bytes ({TEXT}).")
        try:
            return super()._proc_member(archive)  # type: ignore[misc]
        except (ValueError, IndexError, OverflowError) as error:  # numbers that are none
            raise tarfile.ReadError("a record is damaged.") from error


def _study(name: str, source: Path | IO[bytes]) -> dict[str, Any]:
    try:
        content = read_small_file(source) if isinstance(source, Path) else read_bounded(source, "the file", TEXT)
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise StudyError(name, "report", f"not valid XML: {str(error).removesuffix('.')}") from error
    identity = root.find("uId")
    if identity is None or not identity.get("id"):
        raise StudyError(name, "study_id", "no uId element with an id, expected a report of the Indiana collection")
    sections = {}
    for element in root.iter("AbstractText"):
        label, text = (element.get("Label") or "").upper(), (element.text or "").strip()
        if label in _SECTIONS and text:
            sections[label.lower()] = text
    return {
        "study_id": identity.get("id"),
        "report": join_sections(sections),
        "sections": sections,
        "mesh": [element.text.strip() for element in root.iter("major") if element.text],
        "image_ids": [element.get("id") or "" for element in root.iter("parentImage")],
    }
