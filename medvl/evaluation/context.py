"""What there is to evaluate: the model and the data, from which each protocol takes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tqdm.auto import tqdm

from medvl.evaluation.embeddings import Embeddings, embed_studies
from medvl.evaluation.retrieval_lists import RetrievalLists
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig

Study = Mapping[str, Any]
Batches = Iterable[Mapping[str, Any]]
Split = Literal["train", "validation", "test"]


@dataclass
class ProtocolContext:
    """A model and the data to evaluate it on.

    Embeddings are computed when first asked for, and once.

    Args:
        model: the model.
        data_name: name of the data, for messages.
        studies: the studies to evaluate on, each with its ``study_id``.
        findings: the K findings of the studies' ``label``; empty without labels.
        loader: function from studies to their batches, prepared for the model, with a ``dataset``.
        splits: function that gives the training and the validation studies of the data; either may be empty.
        class_prompts: function from findings to their present and absent prompts.
        test_loader: batches of ``studies``; None for ``loader(studies)``.
        mask_names: of the K regions that masks show.
        mask_loader: function from studies to batches of those that have masks, with ``mask`` (N, K, H, W[, D]) beside
            ``image``, and a ``dataset``; None without masks.
        retrieval_lists: published queries and candidates of retrieval by finding; None to draw them.
        options: options of single protocols, by the keys of :data:`~medvl.evaluation.registry.OPTIONS`.
        seed: of what a protocol draws.
        bootstrap: of the intervals.
        keep_images: number of studies whose pictures are kept for the report.
        progress: whether progress bars are shown.
        label: stands before the titles of progress bars.
    """

    model: Any
    data_name: str
    studies: Sequence[Study]
    findings: Sequence[str]
    loader: Callable[[Sequence[Study]], Any]
    splits: Callable[[], tuple[Sequence[Study], Sequence[Study]]]
    class_prompts: Callable[[Iterable[str]], dict[str, dict[str, list[str]]]]
    test_loader: Any = None
    mask_names: Sequence[str] = ()
    mask_loader: Callable[[Sequence[Study]], Any] | None = None
    retrieval_lists: RetrievalLists | None = None
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
    keep_images: int = 0
    progress: bool = False
    label: str = ""
    _embedded: dict[str, Embeddings] = field(default_factory=dict, init=False, repr=False)

    def for_model(self, model: Any, label: str) -> ProtocolContext:
        """The same data for another model, of which no pictures are kept."""
        return replace(self, model=model, label=label, keep_images=0)

    def has(self, requirement: str) -> bool:
        """Whether the data have what a key of :data:`~medvl.evaluation.registry.REQUIREMENTS` names."""
        if requirement == "labels":
            return bool(self.findings)
        if requirement == "reports":
            return any("report" in study for study in self.studies)
        if requirement == "masks":
            return self.mask_loader is not None
        if requirement == "validation":
            return bool(self.split_studies("validation"))
        return bool(self.split_studies("train") and self.split_studies("test"))

    @cached_property
    def _splits(self) -> tuple[Sequence[Study], Sequence[Study]]:
        return self.splits()

    def split_studies(self, split: Split) -> Sequence[Study]:
        """The training studies, the validation studies, or those evaluated that are in neither."""
        train, validation = self._splits
        if split == "test":
            taken = {study["study_id"] for study in (*train, *validation)}
            return [study for study in self.studies if study["study_id"] not in taken]
        return train if split == "train" else validation

    def embeddings(self) -> Embeddings:
        """Embeddings of the studies to evaluate on."""
        if "all" not in self._embedded:
            loader = self.loader(self.studies) if self.test_loader is None else self.test_loader
            self._embedded["all"] = embed(self.model, loader, self.keep_images, self.progress, f"{self.label}embed")
        return self._embedded["all"]

    @property
    def embedded(self) -> Embeddings | None:
        """Those embeddings, if some protocol has asked for them."""
        return self._embedded.get("all")

    def split_embeddings(self, split: Split) -> Embeddings:
        """Embeddings of the studies of a split (:meth:`split_studies`)."""
        if split not in self._embedded:
            if split == "test":
                kept = {study["study_id"] for study in self.split_studies("test")}
                embeddings = self.embeddings()
                rows = [row for row, study_id in enumerate(embeddings.study_ids) if study_id in kept]
                self._embedded[split] = embeddings.rows(rows)
            else:
                loader = self.loader(self.split_studies(split))
                name = f"{self.label}{'training' if split == 'train' else split} split"
                self._embedded[split] = embed(self.model, loader, progress=self.progress, name=name)
        return self._embedded[split]

    def probe_arguments(self) -> dict[str, Any]:
        """Arguments of a protocol that learns findings from the training split: its three splits, findings and bootstrap."""
        return {
            "train": self.split_embeddings("train"),
            "validation": self.split_embeddings("validation"),
            "test": self.split_embeddings("test"),
            "names": self.findings,
            "findings": labeled_findings(self.embeddings(), self.findings),
            "bootstrap": self.bootstrap,
        }

    def validation_embeddings(self) -> Embeddings | None:
        """Embeddings of the validation studies; None without any, or where one is among those evaluated."""
        validation = {study["study_id"] for study in self.split_studies("validation")}
        if not validation or validation & {study["study_id"] for study in self.studies}:
            return None
        return self.split_embeddings("validation")

    def masked_batches(self, studies: Sequence[Study]) -> Any:
        """Batches of those studies that have masks.

        Raises:
            ValueError: If there are no masks.
        """
        if self.mask_loader is None:
            raise ValueError(f"{self.data_name} has no masks.")
        return self.mask_loader(studies)

    @contextmanager
    def progress_bar(self, loader: Any, name: str) -> Iterator[Callable[[int], Any]]:
        """A progress bar over a loader's studies, as the function that advances it."""
        with tqdm(
            total=len(loader.dataset), desc=f"{self.label}{name}", unit="study", disable=not self.progress
        ) as bar:
            yield bar.update


def embed(model: Any, loader: Any, keep_images: int = 0, progress: bool = False, name: str = "embed") -> Embeddings:
    """Embeddings of a loader's studies, with a progress bar."""
    with tqdm(total=len(loader.dataset), desc=name, unit="study", disable=not progress) as bar:
        return embed_studies(model, loader, device=model.device, keep_images=keep_images, progress=bar.update)


def labeled_findings(embeddings: Embeddings, names: Sequence[str]) -> list[str]:
    """The findings of which the label of some study is known; a column of blanks is no finding to evaluate."""
    if embeddings.labels is None:
        return []
    known = (~embeddings.labels.isnan()).any(0)
    return [name for name, given in zip(names, known.tolist(), strict=True) if given]
