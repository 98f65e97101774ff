"""Figures of open-access articles with their captions: ROCO, ROCOv2 and PMC-OA."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvl.data.public.base import ImageIndex, PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError


class CaptionDataset(PublicDataset):
    """Base of the data sets of figures with captions.

    Each study holds ``study_id``, ``image``, ``report`` (the caption) and, where there are splits, ``split``.

    A subclass yields the name of each image and its caption from :meth:`read_captions`.
    """

    @abstractmethod
    def read_captions(self) -> Iterator[tuple[str, str, str, str, ImageIndex]]:
        """Yield the study's id, the split (or ``""``), the image's name without suffix, the caption and the images."""

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """One study for each figure."""
        for study_id, split, image, caption, images in self.read_captions():
            with self.handle_study_errors():
                if not caption.strip():
                    raise StudyError(study_id, "caption", "the caption is empty")
                paths = self.indexed_images(images, image, study_id)
                study: dict[str, Any] = {"study_id": study_id, "image": paths, "report": caption.strip()}
                yield {**study, "split": split} if split else study


@register_public_dataset("roco")
class ROCO(CaptionDataset):
    """ROCO (Pelka et al. 2018), radiology figures with captions, as a datalist.

    Layout: ``data/train/radiology/captions.txt`` (id, tab, caption), ``dlinks.txt`` (id, tab, link and, last, the name of the
    file) and ``images/``, and so for ``validation`` and ``test``, as its repository's ``scripts/fetch.py`` writes them: an
    image is ``<PMC id>_<name>``, or ``<id>.jpg`` in other distributions. License: that of each article, in a table beside the
    captions. No application. The tables were compared with the repository. Figures of one article may be in two splits, as
    published.
    """

    title = "ROCO"
    layout = "data/train/radiology/captions.txt and images/ (validation, test)"
    license = "that of each article"
    url = "https://github.com/razorx89/roco-dataset"

    def read_captions(self) -> Iterator[tuple[str, str, str, str, ImageIndex]]:
        """The radiology figures of the three splits."""
        is_empty = True
        for split, folder in {"train": "train", "val": "validation", "test": "test"}.items():
            captions = self.find(f"data/{folder}/radiology/captions.txt", f"{folder}/radiology/captions.txt")
            if captions is None:
                continue
            is_empty = False
            images = ImageIndex(captions.parent)
            files = dict(_link(line) for link in captions.parent.glob("dlinks*.txt") for line in _lines(link))
            for line in _lines(captions):
                name, _, caption = line.partition("\t")
                name = name.strip()
                stem = files.get(name, name)
                yield name, split, name if images.get(stem) is None else stem, caption, images
        if is_empty:
            self.require("data/train/radiology/captions.txt")


@register_public_dataset("rocov2")
class ROCOv2(CaptionDataset):
    """ROCOv2 (Rückert et al. 2024), radiology figures with captions, as a datalist.

    Layout: ``train_captions.csv`` (ID, Caption) beside ``train_images`` (or ``train``) with ``ROCOv2_2023_train_000001.jpg``,
    and so for ``valid`` and ``test``, as on Zenodo. License: CC BY 4.0, CC BY-NC and others by article, in
    ``license_information.csv``. No application. Names were compared with public code that reads them.
    """

    title = "ROCOv2"
    layout = "train_captions.csv and train_images/ (valid, test)"
    license = "CC BY 4.0 and that of each article"
    url = "https://zenodo.org/records/8333645"

    def read_captions(self) -> Iterator[tuple[str, str, str, str, ImageIndex]]:
        """The figures of the three splits."""
        tables = {split: self.find(f"{own}_captions.csv") for split, own in _ROCOV2.items()}
        if not any(tables.values()):
            self.require("train_captions.csv")
        for split, table in tables.items():
            images = ImageIndex(*(self.path / f"{_ROCOV2[split]}{end}" for end in ("_images", "")))
            for row in self.read_rows(table, ("ID", "Caption")) if table else ():
                yield row["ID"], split, row["ID"], row["Caption"], images


_ROCOV2 = {"train": "train", "val": "valid", "test": "test"}


@register_public_dataset("pmc-oa")
class PMCOA(CaptionDataset):
    """PMC-OA (Lin et al. 2023), figures of PubMed Central's open-access articles, as a datalist.

    Layout: ``pmc_oa.jsonl`` or ``pmc_oa_beta.jsonl`` (``image``, ``caption``) and the unpacked ``images.zip``, whose folder
    is ``caption_T060_filtered_top4_sep_v0_subfigures``. ``patient_id`` is the article, where the image's name begins with its
    PMC id, so that the figures of an article are in one split. There are no splits. License: OpenRAIL for the set, that of
    each article for its figures. No application. Names were compared with its loader on Hugging Face.
    """

    title = "PMC-OA"
    layout = "pmc_oa.jsonl and caption_T060_filtered_top4_sep_v0_subfigures/"
    license = "OpenRAIL, and that of each article"
    url = "https://huggingface.co/datasets/axiong/pmc_oa"

    def read_captions(self) -> Iterator[tuple[str, str, str, str, ImageIndex]]:
        """The figures of the table."""
        table = self.require("pmc_oa.jsonl", "pmc_oa_beta.jsonl")
        images = ImageIndex(self.path)
        for row in self.read_rows(table, ("image", "caption")):
            stem = Path(row["image"]).stem
            yield stem, "", stem, row["caption"], images

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """One study for each figure, with its article as its patient."""
        for study in super().read_studies():
            article = study["study_id"].partition("_")[0]
            yield {**study, "patient_id": article} if article.startswith("PMC") else study


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _link(line: str) -> tuple[str, str]:
    """The id in a line of links, and the name without suffix of the file that the link's image is saved as."""
    parts = line.split("\t")
    article = next(
        (word.rpartition("/")[2].removesuffix(".tar.gz") for word in line.split() if word.endswith(".gz")), ""
    )
    return parts[0].strip(), Path(f"{article}_{parts[-1].strip()}").stem
