"""Images with reports, images with labels and texts alone in one dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch.utils.data import Dataset

from medvl.data.collate import IMAGE_KEYS, TEXT_KEYS
from medvl.data.dataset import Chain, StudyDataset, items_or_errors
from medvl.data.samplers import DecoupledBatchSampler, MixedBatchSampler
from medvl.utils.errors import StudyError

VIEWS = ("all", "sample", "pool")
# What a study of each kind has, each by one of these names.
_TEXT = ("text", "sentences", "report")
_NEEDED = {"image-text": (("image",), _TEXT), "image-label": (("image",), ("label",)), "text-label": (_TEXT,)}

Text: TypeAlias = "tuple[int, bool]"  # its number among the texts, or where true among the prompts


class UnifiedDataset(Dataset):
    """Studies of every kind, for batches that need not hold as many texts as images.

    An entry of the dataset is an image, a text, or an image with its text; which of them, the kind of study and
    ``decoupled`` decide:

    ============  ====================  =======================
    kind          coupled               decoupled
    ============  ====================  =======================
    image-text    image and report      image; report
    image-label   image and prompt      image; prompt
    text-label    report                report
    ============  ====================  =======================

    A prompt has no words before ``prompt_transform`` writes them from the label (:class:`~medvl.transforms.LabelsToPromptd`).
    Where a study has ``sentences`` in place of ``text``, each is a text of its own with its own row of ``text_label``, and one
    of them is drawn at a time.

    Each goes through a chain of its own, which keeps what is not random, as :class:`StudyDataset` does. An image and a text of
    one study have one ``study_id``, so :func:`collate_studies` gives them equal ``image_ids`` and ``text_ids``.

    Args:
        studies: dictionaries with ``study_id``, ``kind`` and ``source``, and what their kind has, as :func:`load_sources` gives
            them: ``image`` and ``label``, ``text`` (or ``report``, or ``sentences``) and ``text_label``.
        image_transform: chain on images: a MONAI ``Compose``, or a list of transforms.
        text_transform: chain on ``text``; it ends with ``input_ids`` (:class:`~medvl.transforms.TokenizeTextd`).
        prompt_transform: chain on the ``label`` that a prompt is written from; it ends likewise.
        decoupled: images and texts as entries of their own, for :class:`DecoupledBatchSampler`.
        prompts: whether images of the kind image-label get a prompt as their text.
        views: what is drawn of a study with several images: ``"all"``, each as a unit of its own; ``"sample"``, one, another
            one each time; ``"pool"``, all together, as one image to :class:`~medvl.networks.PooledViews`.
        seed: an integer, at least 0.
        cache_bytes: how many bytes of tensors to keep, of images and of texts each.

    Attributes:
        pools: for each source, its units of entries, where images and texts are coupled.
        image_pools: the units of images, where they are decoupled.
        text_pools: the units of texts, where they are decoupled.

    Raises:
        ValueError: for unknown ``views``, or a study without an id, a source or a kind, or what its kind has.

    Example:
        >>> studies = [
        ...     {"study_id": "a", "kind": "image-label", "source": "x", "image": "a.png", "label": [1.0]},
        ...     {"study_id": "b", "kind": "text-label", "source": "y", "text": "Edema.", "text_label": [1.0]},
        ... ]
        >>> dataset = UnifiedDataset(studies)
        >>> sorted(dataset[0]), sorted(dataset[1])
        (['image', 'label', 'source', 'study_id', 'text_label'], ['source', 'study_id', 'text', 'text_label'])
        >>> UnifiedDataset(studies, decoupled=True).text_pools
        {'x': [((1,),)], 'y': [((2,),)]}
    """

    def __init__(
        self,
        studies: Sequence[Mapping[str, Any]],
        image_transform: Chain | None = None,
        text_transform: Chain | None = None,
        prompt_transform: Chain | None = None,
        *,
        decoupled: bool = False,
        prompts: bool = True,
        views: str = "all",
        seed: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        if views not in VIEWS:
            raise ValueError(f"views must be one of {VIEWS}, received {views!r}")
        for study in studies:
            _check(study)
        self.studies, self.seed, self._pooled = studies, seed, views == "pool"
        images: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        written: list[dict[str, Any]] = []
        self._entries: list[tuple[int | None, Text | None]] = []
        self.pools: dict[str, list] = {}
        self.image_pools: dict[str, list] = {}
        self.text_pools: dict[str, list] = {}
        for views_of_study in _by_study(studies):
            study = views_of_study[0]
            is_prompt = study["kind"] == "image-label"
            found = _texts(views_of_study) if not is_prompt or prompts else []
            side = written if is_prompt else texts
            first = len(images), len(side)
            images += [_side(view, IMAGE_KEYS) for view in views_of_study if view["kind"] != "text-label"]
            side += found
            numbers = [(number, is_prompt) for number in range(first[1], len(side))]
            self._add_units(study["source"], range(first[0], len(images)), numbers, decoupled, views)
        self.images = StudyDataset(images, image_transform, seed, cache_bytes)
        self.texts = StudyDataset(texts, text_transform, seed, cache_bytes)
        self.prompts = StudyDataset(written, prompt_transform, seed, cache_bytes)

    def _add_units(self, source: str, images: range, texts: Sequence[Text], decoupled: bool, views: str) -> None:
        if decoupled:
            image_entries = [self._entry((image, None)) for image in images]
            text_entries = [self._entry((None, text)) for text in texts]
            self.image_pools.setdefault(source, []).extend(_units(image_entries, views))
            self.text_pools.setdefault(source, []).extend(_units(text_entries, "sample"))
            return
        pool = self.pools.setdefault(source, [])
        if not images or not texts:
            pool += _units([self._entry((i, None)) for i in images] or [self._entry((None, t)) for t in texts],
                           views if images else "sample")  # fmt: skip
            return
        if views == "pool":
            others = [self._entry((image, None)) for image in images[1:]]
            pool.append(tuple((self._entry((images[0], text)), *others) for text in texts))
            return
        pairs = [[(self._entry((image, text)),) for text in texts] for image in images]
        if views == "all":
            pool += map(tuple, pairs)
        else:  # every view meets every text
            pool.append(tuple(of_image[number] for number in range(len(texts)) for of_image in pairs))

    def _entry(self, entry: tuple[int | None, Text | None]) -> int:
        self._entries.append(entry)
        return len(self._entries) - 1

    def __len__(self) -> int:
        return len(self._entries)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the random transforms are seeded with."""
        self.images.set_epoch(epoch)
        self.texts.set_epoch(epoch)
        self.prompts.set_epoch(epoch)

    def load(self, progress: Callable[[Iterable], Iterable] | None = None, threads: int = 2) -> None:
        """Reads the images into the cache, see :meth:`StudyDataset.load`."""
        self.images.load(progress, threads)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An entry after its transforms: the keys of an image, of a text, or of both, with ``study_id`` and ``source``.

        Raises:
            StudyError: where a transform fails.
        """
        image, text = self._entries[range(len(self))[index]]
        item: dict[str, Any] = {}
        if image is not None:
            item |= self.images[image]
            if self._pooled:
                item["pooled"] = True
        if text is not None:
            number, is_prompt = text
            found = (self.prompts if is_prompt else self.texts)[number]
            item |= {key: value for key, value in found.items() if key not in IMAGE_KEYS}
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any] | StudyError]:
        """Several entries; one that fails stands in the list as its error, as in :class:`StudyDataset`."""
        return items_or_errors(self, indices)

    def sampler(
        self,
        batch_size: int,
        num_texts: int | None = None,
        rates: Mapping[str, float] | None = None,
        text_rates: Mapping[str, float] | None = None,
        length: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> MixedBatchSampler | DecoupledBatchSampler:
        """The batch sampler of these entries: mixed where images and texts are coupled, else decoupled.

        Args:
            batch_size: units (studies, or where decoupled images) in a batch.
            num_texts: texts in a batch, where decoupled. Default: ``batch_size``.
            rates: source, or kind of source, to its share of the units (where decoupled: of the images); those not named
                get none. Default: by size.
            text_rates: the same for texts, where decoupled.
            length: units in an epoch, see the samplers.
            num_replicas: see :class:`MixedBatchSampler`.
            rank: see :class:`MixedBatchSampler`.

        Raises:
            ValueError: for a rate of a source that is not there or has nothing to draw; for the rest see the samplers.
        """
        place: dict[str, Any] = {"seed": self.seed, "num_replicas": num_replicas, "rank": rank}
        if self.pools:
            if num_texts is not None or text_rates is not None:
                raise ValueError("num_texts and text_rates are of decoupled images and texts, which these are not")
            return MixedBatchSampler(
                list(self.pools.values()), batch_size, self._rates(rates, self.pools), length, **place
            )
        return DecoupledBatchSampler(
            list(self.image_pools.values()),
            list(self.text_pools.values()),
            batch_size,
            num_texts,
            self._rates(rates, self.image_pools),
            self._rates(text_rates, self.text_pools),
            length,
            **place,
        )

    def _rates(self, rates: Mapping[str, float] | None, pools: Mapping[str, Sequence]) -> list[float] | None:
        if rates is None:
            return None
        kinds = {study["source"]: study["kind"] for study in self.studies}
        unknown = sorted(set(rates) - set(pools) - set(kinds.values()))
        if unknown:
            raise ValueError(f"rates: {unknown[0]!r} is no source or kind; the sources are {', '.join(pools)}")
        shares = []
        for name, pool in pools.items():
            alike = [len(units) for other, units in pools.items() if kinds[other] == kinds[name] and other not in rates]
            # what a kind gets is shared out by size among its sources
            by_kind = rates.get(kinds[name], 0.0) * len(pool) / max(1, sum(alike))
            shares.append(float(rates.get(name, by_kind)))
        empty = [name for name, pool, share in zip(pools, pools.values(), shares, strict=True) if share and not pool]
        if empty:
            raise ValueError(f"rates: source {empty[0]!r} has a rate but nothing to draw")
        return shares


def _check(study: Mapping[str, Any]) -> None:
    name = f"study {study.get('study_id')!r}"
    if not {"kind", "source"} <= set(study):
        raise ValueError(f"studies must have a kind and a source, {name} has not")
    if study["kind"] not in _NEEDED:
        raise ValueError(f"kind must be one of {tuple(_NEEDED)}, received {study['kind']!r} of {name}")
    for choice in (("study_id",), *_NEEDED[study["kind"]]):
        if not any(key in study for key in choice):
            raise ValueError(f"{name} is of the kind {study['kind']} and has no {' or '.join(choice)}")


def _by_study(studies: Sequence[Mapping[str, Any]]) -> Iterable[list[Mapping[str, Any]]]:
    """Views of one study together; a table may hold several texts of one id, which are studies of their own."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for number, study in enumerate(studies):
        key = (study["source"], study["kind"], study["study_id"]) if "image" in study else number
        groups.setdefault(key, []).append(study)
    return groups.values()


def _side(study: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: study[key] for key in ("study_id", "source", *keys) if key in study}


def _texts(views: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The distinct texts of a study's views, which mostly share one; of labelled images a prompt to be written."""
    if views[0]["kind"] == "image-label":
        return [{**_side(views[0], ("label",)), "text_label": views[0]["label"]}]
    found: dict[Any, dict[str, Any]] = {}
    for study in views:
        if "sentences" not in study:
            text = study.get("text", study.get("report"))
            found.setdefault(text, {**_side(study, TEXT_KEYS), "text": text})
            continue
        for sentence, label in zip(study["sentences"], study["text_label"], strict=True):
            found.setdefault(sentence, {**_side(study, ()), "text": sentence, "text_label": label})
    return list(found.values())


def _units(entries: Sequence[int], views: str) -> list[tuple]:
    """Entries of one study as units: each of its own, one at a time, or all together."""
    if not entries:
        return []
    if views == "all":
        return [((entry,),) for entry in entries]
    return [tuple((entry,) for entry in entries)] if views == "sample" else [(tuple(entries),)]
