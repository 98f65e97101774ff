"""One dataset of images with reports, images with labels, and texts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from medvl.data.collate import IMAGE_KEYS
from medvl.data.dataset import StudyDataset, TransformChain, get_items
from medvl.data.samplers import DecoupledBatchSampler, MixedBatchSampler
from medvl.data.study_list import text_column
from medvl.data.study_parts import PartList, distinct_texts, group_views, image_of, prompt_of, text_of
from medvl.data.units import ItemList, TextIndex, Unit, UnitList, units_of
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.errors import StudyError
from medvl.utils.ids import hash_id

VIEWS = ("all", "sample", "pool")


class UnifiedDataset(Dataset[dict[str, Any]]):
    """Studies of every kind, for batches of N images and M texts.

    An item of the dataset is an image, a text, or an image with its text, depending on the kind of study and on
    ``decoupled``:

    ============  ====================  =======================
    kind          coupled               decoupled
    ============  ====================  =======================
    image-text    image and report      image; report
    image-label   image and prompt      image; prompt
    text-label    report                report
    ============  ====================  =======================

    A prompt is a text that ``prompt_transform`` generates from the label (:class:`~medvl.transforms.LabelsToPromptd`). Studies
    of the kind ``prompt`` are prompts that are given (:func:`~medvl.data.prompt_studies`): each other study is drawn together
    with ``prompts_per_study`` of them.
    If a study has ``sentences`` instead of ``text``, each sentence is a text with its own row of ``text_label``, and
    ``texts_per_study`` of them are drawn at a time.

    Images, texts and prompts each have their own transforms, whose deterministic part is cached as in
    :class:`StudyDataset`. An image and a text of one study share their ``study_id``, so :func:`collate_studies` gives them
    equal ``image_ids`` and ``text_ids``.

    Args:
        studies: dictionaries with ``study_id``, ``kind``, ``source`` and the keys of their kind, as :func:`load_sources` gives
            them: ``image`` and ``label``, ``text`` (or ``report``, or ``sentences``) and ``text_label``.
        image_transform: transforms of images: a MONAI ``Compose``, or a list of transforms.
        text_transform: transforms of ``text``, which must add ``input_ids`` (:class:`~medvl.transforms.TokenizeTextd`).
        prompt_transform: transforms of the ``label`` that a prompt is generated from, which must add ``input_ids`` too.
        decoupled: whether images and texts are items of their own, for :class:`DecoupledBatchSampler`.
        label_prompts: whether images of the kind ``image-label`` get a prompt as their text.
        paired_prompts: whether a prompt has the id of its image. If not, it has an id of its own, so that a loss of pairs
            (:class:`~medvl.losses.ImageTextContrastiveLoss` with ``paired_only``) passes over it: it is as true of every
            other image with that label.
        texts_per_study: sentences that are drawn together from a study with more of them, successive ones that start
            anywhere; at least 1, and 1 if decoupled. All of them are positives of the study's image.
        prompts_per_study: given prompts that are drawn with a study, if images and texts are coupled; at least 0. They are
            chosen by the study's id, others each time.
        views: how a study with several images is drawn: ``"all"``, each image as a unit of its own; ``"sample"``, one image,
            a different one each time; ``"pool"``, all of them together, as one image to :class:`~medvl.networks.PooledViews`.
        seed: of the random transforms and of :meth:`sampler`; an integer, at least 0.
        cache_bytes: maximum size of the cache, of images, texts and prompts each.

    Attributes:
        images: the :class:`StudyDataset` of images.
        texts: that of texts.
        prompts: that of prompts.
        pools: for each source, its units of items, if images and texts are coupled.
        image_pools: for each source, its units of images, if they are decoupled.
        text_pools: for each source, its units of texts, if they are decoupled.

    Raises:
        TypeError: If ``texts_per_study`` is not an integer.
        ValueError: If ``views`` is unknown, ``texts_per_study`` is out of its range, or a study lacks its id, source, kind or
            a key of its kind.

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
        image_transform: TransformChain | None = None,
        text_transform: TransformChain | None = None,
        prompt_transform: TransformChain | None = None,
        *,
        decoupled: bool = False,
        label_prompts: bool = True,
        paired_prompts: bool = True,
        texts_per_study: int = 1,
        prompts_per_study: int = 0,
        views: str = "all",
        seed: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        check_option(views, "views", VIEWS)
        check_integer(texts_per_study, "texts_per_study", minimum=1)
        check_integer(prompts_per_study, "prompts_per_study", minimum=0)
        if decoupled and texts_per_study > 1:
            expected = "be 1 where images and texts are decoupled"
            raise ValueError(error_message("texts_per_study", expected, texts_per_study))
        self.studies, self.seed, self._pooled, self._paired_prompts = studies, seed, views == "pool", paired_prompts
        self.texts_per_study, self.prompts_per_study = texts_per_study, prompts_per_study
        self._items = ItemList()
        self.pools: dict[str, UnitList] = {}
        self.image_pools: dict[str, UnitList] = {}
        self.text_pools: dict[str, UnitList] = {}
        groups, given = group_views(studies)
        images, texts, prompts = (PartList(studies, make) for make in (image_of, text_of, prompt_of))
        for row in given:
            prompts.append(row)
        self._given_prompts = range(len(self._items), len(self._items) + len(given))
        for number in range(len(given)):
            self._add_item(None, (number, True))
        for rows in groups:
            views_of_study = [studies[row] for row in rows]
            study = views_of_study[0]
            is_prompt = study["kind"] == "image-label"
            own = prompts if is_prompt else texts
            first_image, first_text = len(images), len(own)
            for row, view in zip(rows, views_of_study, strict=True):
                if "image" in view:
                    images.append(row)
            for view_number, part in distinct_texts(views_of_study) if not is_prompt or label_prompts else ():
                own.append(rows[view_number], part)
            text_indices = [(number, is_prompt) for number in range(first_text, len(own))]
            self._add_units(study, range(first_image, len(images)), text_indices, decoupled, views)
        self.images = StudyDataset(images, image_transform, seed, cache_bytes)
        self.texts = StudyDataset(texts, text_transform, seed, cache_bytes)
        self.prompts = StudyDataset(prompts, prompt_transform, seed, cache_bytes)

    def _add_units(
        self, study: Mapping[str, Any], images: range, texts: Sequence[TextIndex], decoupled: bool, views: str
    ) -> None:
        source = study["source"]
        if decoupled:
            image_items = [self._add_item(image, None) for image in images]
            text_items = [self._add_item(None, text) for text in texts]
            self.image_pools.setdefault(source, UnitList()).extend(units_of(image_items, views))
            self.text_pools.setdefault(source, UnitList()).extend(units_of(text_items, "sample"))
            return
        pool = self.pools.setdefault(source, UnitList())
        if not texts:
            pool.extend(units_of([self._add_item(image, None) for image in images], views))
            return
        count = min(self.texts_per_study, len(texts))
        alone = [self._add_item(None, text) for text in texts] if count > 1 or not images else []
        # The texts after the first, for each that may be the first.
        more = [
            [*(alone[(first + step) % len(texts)] for step in range(1, count)), *self._draw_prompts(study, first)]
            for first in range(len(texts))
        ]
        if not images:
            pool.append((text, *others) for text, others in zip(alone, more, strict=True))
            return
        if views == "pool":
            other_views = [self._add_item(image, None) for image in images[1:]]
            more, images = [[*other_views, *others] for others in more], images[:1]
        pairs = [
            [(self._add_item(image, text), *others) for text, others in zip(texts, more, strict=True)]
            for image in images
        ]
        if views == "sample":  # the alternatives are all pairs of a view and a text
            pool.append(of_image[number] for number in range(len(texts)) for of_image in pairs)
        else:
            pool.extend(pairs)

    def _draw_prompts(self, study: Mapping[str, Any], draw: int) -> list[int]:
        """Items of given prompts that go with a draw of a study."""
        if not self._given_prompts:
            return []
        numbers = range(self.prompts_per_study)
        keys = [hash_id(f"{study['study_id']} {draw} {number}") for number in numbers]
        return [self._given_prompts[key % len(self._given_prompts)] for key in keys]

    def _add_item(self, image: int | None, text: TextIndex | None) -> int:
        return self._items.append(image, text)

    def __len__(self) -> int:
        return len(self._items)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the random transforms are seeded with."""
        self.images.set_epoch(epoch)
        self.texts.set_epoch(epoch)
        self.prompts.set_epoch(epoch)

    def load(self, progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None, threads: int = 2) -> None:
        """Fill the cache of images, see :meth:`StudyDataset.load`."""
        self.images.load(progress, threads)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item after its transforms: the keys of an image, of a text, or of both, with ``study_id`` and ``source``.

        Raises:
            StudyError: If a transform fails.
        """
        image, text = self._items[range(len(self))[index]]
        item: dict[str, Any] = {}
        if image is not None:
            item |= self.images[image]
            if self._pooled:
                item["pooled"] = True
        if text is not None:
            number, is_prompt = text
            found = (self.prompts if is_prompt else self.texts)[number]
            item |= {key: value for key, value in found.items() if key not in IMAGE_KEYS}
            if is_prompt and not self._paired_prompts:
                item["text_study_id"] = f"{item['study_id']}\0prompt"
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any] | StudyError]:
        """Several items; one that fails is replaced by its error, as in :class:`StudyDataset`."""
        return get_items(self, indices)

    def sampler(
        self,
        batch_size: int,
        num_texts: int | None = None,
        sampling_weights: Mapping[str, float] | None = None,
        text_sampling_weights: Mapping[str, float] | None = None,
        length: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> MixedBatchSampler | DecoupledBatchSampler:
        """The batch sampler of this dataset: mixed if images and texts are coupled, else decoupled.

        Args:
            batch_size: units (studies, or images if decoupled) in a batch.
            num_texts: texts in a batch, if decoupled. Default: ``batch_size``.
            sampling_weights: weight of each source or kind of source among the units (among the images, if decoupled); those
                not named have weight 0. Default: the number of units.
            text_sampling_weights: the same among the texts, if decoupled.
            length: units in an epoch, see the samplers.
            num_replicas: see :class:`MixedBatchSampler`.
            rank: see :class:`MixedBatchSampler`.

        Raises:
            ValueError: If a weight names an unknown or an empty source, or as the samplers.
        """
        shared: dict[str, Any] = {"seed": self.seed, "num_replicas": num_replicas, "rank": rank}
        if self.pools:
            for name, value in (("num_texts", num_texts), ("text_sampling_weights", text_sampling_weights)):
                if value is not None:
                    raise ValueError(error_message(name, "be None where images and texts are coupled", value))
            weights = self._pool_weights(sampling_weights, self.pools, "sampling_weights")
            return MixedBatchSampler(list(self.pools.values()), batch_size, weights, length, **shared)
        return DecoupledBatchSampler(
            list(self.image_pools.values()),
            list(self.text_pools.values()),
            batch_size,
            num_texts,
            self._pool_weights(sampling_weights, self.image_pools, "sampling_weights"),
            self._pool_weights(text_sampling_weights, self.text_pools, "text_sampling_weights"),
            length,
            **shared,
        )

    def _pool_weights(
        self, weights: Mapping[str, float] | None, pools: Mapping[str, Sequence[Unit]], argument: str
    ) -> list[float] | None:
        """The weight of each pool from weights by source or by kind."""
        if weights is None:
            return None
        kinds = dict(zip(text_column(self.studies, "source"), text_column(self.studies, "kind"), strict=True))
        unknown = sorted(set(weights) - set(pools) - set(kinds.values()))
        if unknown:
            expected = f"name kinds or sources ({', '.join(pools)})"
            raise ValueError(error_message(argument, expected, repr(unknown[0])))
        by_pool = []
        for name, pool in pools.items():
            same_kind = [
                len(units) for other, units in pools.items() if kinds[other] == kinds[name] and other not in weights
            ]
            # The weight of a kind is distributed over its sources by size.
            of_kind = weights.get(kinds[name], 0.0) * len(pool) / max(1, sum(same_kind))
            by_pool.append(float(weights.get(name, of_kind)))
            if by_pool[-1] and not pool:
                raise ValueError(error_message(argument, f"be 0 for {name!r}, which is empty", f"{by_pool[-1]:g}"))
        return by_pool
