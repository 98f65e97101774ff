"""The Indiana University chest X-ray collection (Open-i), read from its own XML reports."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvl.data.public.base import PublicDataset, register_public_dataset
from medvl.utils.errors import StudyError
from medvl.utils.limits import TEXT, check_regular_file, read_bounded, read_small_file

_SECTIONS = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")


@register_public_dataset("openi")
class OpenIReports(PublicDataset):
    """Reports of the Indiana collection (Demner-Fushman et al. 2016) as a datalist.

    Each study is a dictionary with ``study_id`` ("CXR17"), ``report`` (sections with their headers, one a line),
    ``sections`` (lower-case name to text, of those with text), ``mesh`` (the coders' terms, such as
    "Pleural Effusion/left/small") and ``image_ids``. With ``images``, ``image`` is the list of the files that are there.
    The collection numbers reports and not patients, so there is no ``patient_id``.

    Args:
        path: the archive (``.tgz``, ``.tar.gz``, ``.tar``), or a folder with the XML files at any depth.
        images: folder with the images, ``<image id>.png`` (or .jpg, .dcm).
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Raises:
        FileNotFoundError: If ``path`` does not exist or has no XML file.
        ValueError: If ``on_error`` is unknown, or the file is not an archive or is broken.
        medvl.utils.errors.StudyError: If a report is not valid XML or not of this collection.

    Example:
        >>> reports = OpenIReports("openi-reports.tgz")  # doctest: +SKIP
        >>> reports[0]["sections"]["impression"]  # doctest: +SKIP
        'Normal chest x-XXXX.'
    """

    def __init__(self, path: str | Path, images: str | Path | None = None, on_error: str = "raise") -> None:
        super().__init__(on_error)
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"path: there is no file or folder {path}.")
        files = None if images is None else _image_files(Path(images))
        try:
            for name, content in _xml_files(path):
                with self.handle_study_errors():
                    self._studies.append(_study(name, content, files))
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"path: {path.name} cannot be read as an archive (.tgz, .tar.gz, .tar).") from error
        if not self._studies and not self.skipped:
            raise FileNotFoundError(f"path: there is no XML report in {path}.")
        self._studies.sort(key=lambda study: (_study_number(study["study_id"]), study["study_id"]))

    @classmethod
    def read_splits(cls, path: str | Path, on_error: str = "raise") -> dict[str, OpenIReports]:
        """All reports under ``""``, with the images that are beside them in the folder: the collection has no splits."""
        return {"": cls(path, images=path if Path(path).is_dir() else None, on_error=on_error)}


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
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".xml"):
                content = archive.extractfile(member)
                if content is not None:
                    yield os.path.basename(member.name), content


def _image_files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"images: there is no folder {folder}.")
    return {
        file.stem: str(file) for file in sorted(folder.rglob("*")) if file.suffix in (".png", ".jpg", ".jpeg", ".dcm")
    }


def _study(name: str, source: Path | IO[bytes], files: dict[str, str] | None) -> dict[str, Any]:
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
    study: dict[str, Any] = {
        "study_id": identity.get("id"),
        "report": "\n".join(f"{label.upper()}: {text}" for label, text in sections.items()),
        "sections": sections,
        "mesh": [element.text.strip() for element in root.iter("major") if element.text],
        "image_ids": [element.get("id") or "" for element in root.iter("parentImage")],
    }
    if files is not None:
        study["image"] = [files[image] for image in study["image_ids"] if image in files]
    return study
