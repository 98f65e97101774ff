"""Studies of every kind in one batch, by the data contract."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, MapTransform, Randomizable

from medvl.data import StudyLoader, UnifiedDataset, unified_loader
from medvl.engines import PrepareBatchImageText
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, SemanticMatchingLoss
from medvl.networks import PooledViews
from medvl.transforms import LabelPolicy, LabelsToPromptd
from medvl.utils.errors import StudyError
from medvl.utils.ids import hash_id

NAMES = ["No Finding", "Edema"]


def study(kind, number, source=None, **more):
    out = {"study_id": f"{source or kind}/{number}", "kind": kind, "source": source or kind}
    if kind != "text-label":
        out["image"] = torch.full((1, 2, 2), float(number))
        out["label"] = np.array([0, 1], np.float32)
    if kind != "image-label":
        out["text"], out["text_label"] = f"text {number}", np.array([1, np.nan], np.float32)
    return {**out, **more}


def mixed_studies(pairs=3, labeled=4, texts=5):
    return (
        [study("image-text", i) for i in range(pairs)]
        + [study("image-label", i) for i in range(labeled)]
        + [study("text-label", i) for i in range(texts)]
    )


class Noise(Randomizable, MapTransform):
    """A random step that leaves the values where the tests look."""

    def __call__(self, data):
        image = data["image"].clone()
        image[..., 1:] += float(self.R.rand())
        return {**data, "image": image}


def text_chain():
    return Compose(
        [
            Lambdad("text", lambda text: text, overwrite="input_ids"),
            Lambdad("input_ids", lambda text: torch.arange(len(text.split()))),
        ]
    )


def prompt_chain():
    return [LabelsToPromptd("label", names=NAMES), text_chain()]


def dataset(studies=None, **options):
    studies = mixed_studies() if studies is None else studies
    return UnifiedDataset(studies, Noise("image"), text_chain(), prompt_chain(), **options)


class TestCoupled:
    def test_a_batch_holds_what_each_kind_has(self):
        data = dataset()
        assert len(data) == 12
        batch = next(iter(StudyLoader(data, batch_sampler=data.sampler(12))))
        assert batch["image"].shape == (7, 1, 2, 2)
        assert batch["label"].shape == (7, 2)
        assert len(batch["text"]) == len(batch["input_ids"]) == 12
        assert batch["text_label"].shape == (12, 2)
        assert batch["image_ids"].shape == (7,)
        assert batch["text_ids"].shape == (12,)
        assert len(batch["study_id"]) == 12
        with_image = [i for i in batch["study_id"] if not i.startswith("text-label")]
        assert batch["image_ids"].tolist() == [hash_id(i) for i in with_image]
        for number, study_id in enumerate(batch["study_id"]):
            prompt = study_id.startswith("image-label")
            assert batch["text_label"][number].nan_to_num(9).tolist() == ([0, 1] if prompt else [1, 9])
            assert batch["text"][number].startswith("text ") != prompt

    def test_without_prompts_an_image_has_no_text(self):
        data = dataset(label_prompts=False)
        batch = next(iter(StudyLoader(data, batch_sampler=data.sampler(12))))
        assert (len(batch["image_ids"]), len(batch["text_ids"])) == (7, 8)

    def test_weights_by_source_and_by_kind(self):
        studies = [
            *[study("image-text", i) for i in range(6)],
            *[study("image-label", i, "a") for i in range(30)],
            *[study("image-label", i, "b") for i in range(10)],
            *[study("text-label", i) for i in range(6)],
        ]
        data = dataset(studies)
        sampler = data.sampler(
            4, sampling_weights={"image-text": 0.5, "image-label": 0.25, "text-label": 0.25}, length=160
        )
        sources = [data[i]["source"] for batch in sampler for i in batch]
        found = {name: sources.count(name) for name in data.pools}
        assert found == {"image-text": 80, "a": 30, "b": 10, "text-label": 40}
        with pytest.raises(
            ValueError,
            match=r"^sampling_weights must name kinds or sources \(image-text, a, b, text-label\), got 'c'\.$",
        ):
            data.sampler(4, sampling_weights={"c": 1.0})

    def test_a_weight_of_an_empty_source(self):
        data = dataset([study("text-label", 0, text_label=np.zeros((0, 2)), sentences=[]), study("image-text", 0)])
        assert len(list(data.sampler(2))) == 1
        with pytest.raises(
            ValueError, match=r"^sampling_weights must be 0 for 'text-label', which is empty, got 0\.5\.$"
        ):
            data.sampler(2, sampling_weights={"text-label": 0.5, "image-text": 0.5})

    def test_a_sentence_at_a_time_with_its_own_label(self):
        sentences = {"sentences": ["one", "two words", "now three words"], "text_label": np.eye(3, 2, dtype=np.float32)}
        pair = study("image-text", 0, **sentences)
        del pair["text"]
        data = dataset([pair])
        loader = StudyLoader(data, batch_sampler=data.sampler(1))
        seen = []
        for epoch in range(3):
            loader.set_epoch(epoch)
            (batch,) = loader
            seen.append((batch["text"][0], tuple(batch["text_label"][0].tolist())))
            assert batch["image_ids"].tolist() == batch["text_ids"].tolist()
        assert sorted(seen) == [("now three words", (0, 0)), ("one", (1, 0)), ("two words", (0, 1))]


def report(number, sentences, **more):
    """A study with sentences, each with a label of its own."""
    out = {**study("image-text", number), **more}
    del out["text"]
    states = np.arange(2 * len(sentences), dtype=np.float32).reshape(-1, 2)
    return {**out, "sentences": list(sentences), "text_label": states}


class TestTextsPerStudy:
    """Several sentences of a study in a step."""

    @pytest.mark.parametrize("views", ["all", "sample", "pool"])
    @pytest.mark.parametrize("per_study", [1, 2, 3, 5, 9])
    def test_each_study_draws_so_many_different_texts_and_all_in_turn(self, views, per_study):
        reports = {1: ["a"], 2: ["b", "c"], 5: ["d", "e", "f", "g", "h"]}
        studies = [report(number, sentences) for number, sentences in reports.items()]
        data = dataset(studies, texts_per_study=per_study, views=views)
        loader = StudyLoader(data, batch_sampler=data.sampler(3))
        drawn = {number: [] for number in reports}
        for epoch in range(10):
            loader.set_epoch(epoch)
            (batch,) = loader
            assert len(batch["image_ids"]) == 3
            assert len(set(batch["text"])) == len(batch["text"]) == len(batch["text_ids"])
            for number, sentences in reports.items():
                own = batch["text_ids"] == hash_id(f"image-text/{number}")
                texts = [text for text, keep in zip(batch["text"], own, strict=True) if keep]
                assert len(texts) == min(per_study, number)
                assert set(texts) <= set(sentences)
                labels = batch["text_label"][own].tolist()
                assert labels == [[2 * sentences.index(t), 2 * sentences.index(t) + 1] for t in texts]
                drawn[number] += texts
        for number, sentences in reports.items():  # ten epochs are whole turns of 1, 2 and 5 sentences
            counts = [drawn[number].count(sentence) for sentence in sentences]
            assert counts == [10 * min(per_study, number) // number] * number

    def test_one_text_a_study_is_drawn_as_without_the_argument(self):
        """The items and units are those from before there was a choice."""
        studies = [
            report(0, ["a", "b", "c"]),
            study("image-label", 1),
            {k: v for k, v in report(2, ["d", "e"], kind="text-label").items() if k != "image"},
        ]
        data = dataset(studies, texts_per_study=1)
        assert data.pools == dataset(studies).pools == {"image-text": [((0,), (1,), (2,)), ((4,), (5,))],
                                                        "image-label": [((3,),)]}  # fmt: skip
        assert len(data) == 6
        assert [data[i].get("text") for i in (0, 1, 2, 4, 5)] == ["a", "b", "c", "d", "e"]
        assert list(data.sampler(2)) == list(dataset(studies).sampler(2))

    def test_units_of_several_texts(self):
        two_views = [report(0, ["a", "b", "c"], image=torch.full((1, 2, 2), float(v))) for v in range(2)]

        def units(views):
            data = dataset(two_views, texts_per_study=2, views=views)
            return [
                [[("image" in data[i], data[i].get("text")) for i in alternative] for alternative in unit]
                for unit in data.pools["image-text"]
            ]

        texts = [[(True, "a"), (False, "b")], [(True, "b"), (False, "c")], [(True, "c"), (False, "a")]]
        assert units("all") == [texts, texts]
        assert units("sample") == [[texts[0], texts[0], texts[1], texts[1], texts[2], texts[2]]]
        assert units("pool") == [[[first, (True, None), second] for first, second in texts]]

    def test_texts_alone(self):
        studies = [{k: v for k, v in report(n, "abc", kind="text-label").items() if k != "image"} for n in range(4)]
        data = dataset(studies, texts_per_study=2)
        (batch,) = StudyLoader(data, batch_sampler=data.sampler(4))
        assert "image" not in batch
        _, counts = batch["text_ids"].unique(return_counts=True)
        assert counts.tolist() == [2, 2, 2, 2]

    @pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
    def test_values_out_of_range(self, value, error):
        with pytest.raises(error, match=r"^texts_per_study must be .*\.$"):
            dataset(texts_per_study=value)

    def test_decoupled_texts_are_drawn_one_by_one(self):
        message = r"^texts_per_study must be 1 where images and texts are decoupled, got 2\.$"
        with pytest.raises(ValueError, match=message):
            dataset(decoupled=True, texts_per_study=2)


class TestPromptsOfTheirOwn:
    def batch(self, **options):
        data = dataset(**options)
        return next(
            iter(StudyLoader(data, batch_sampler=data.sampler(12, **({"num_texts": 12} if data.image_pools else {}))))
        )

    @pytest.mark.parametrize("decoupled", [False, True])
    def test_an_unpaired_prompt_has_an_id_of_its_own(self, decoupled):
        paired, own = (self.batch(decoupled=decoupled, paired_prompts=value) for value in (True, False))
        assert own["study_id"] == paired["study_id"]
        assert own["text"] == paired["text"]
        assert "text_study_id" not in own
        assert torch.equal(own["image_ids"], paired["image_ids"])
        changed = own["text_ids"] != paired["text_ids"]
        prompts = torch.tensor([not text.startswith("text ") for text in own["text"]])
        assert prompts.any()
        assert torch.equal(changed, prompts)
        assert not torch.isin(own["text_ids"][prompts], own["image_ids"]).any()
        assert len(own["text_ids"][prompts].unique()) == prompts.sum()

    def test_a_loss_of_pairs_passes_over_prompts(self):
        generator = torch.Generator().manual_seed(0)
        batch = self.batch(paired_prompts=False)
        images = torch.randn(len(batch["image_ids"]), 4, generator=generator, requires_grad=True)
        texts = torch.randn(len(batch["text_ids"]), 4, generator=generator, requires_grad=True)
        loss = ImageTextContrastiveLoss(paired_only=True, pool_texts=True)
        loss(images, texts, batch["image_ids"], batch["text_ids"]).backward()
        of_pairs = [own.startswith("image-text") for own in batch["study_id"]]
        assert texts.grad.any(1).tolist() == of_pairs
        assert images.grad.any(1).sum() == 3


class TestDecoupled:
    def test_any_images_against_any_texts(self):
        data = dataset(decoupled=True)
        loader = StudyLoader(data, batch_sampler=data.sampler(3, num_texts=5))
        batches = list(loader)
        assert [(len(b["image_ids"]), len(b["text_ids"])) for b in batches] == [(2, 5), (2, 5), (3, 5)]
        images = [i for b in batches for i in b["image_ids"].tolist()]
        assert len(set(images)) == 7
        kinds = {name.split("/")[0] for b in batches for name in b["study_id"]}
        assert kinds == {"image-text", "image-label", "text-label"}

    def test_an_image_and_its_report_keep_one_id(self):
        data = dataset([study("image-text", 0)], decoupled=True)
        (batch,) = StudyLoader(data, batch_sampler=data.sampler(1))
        assert batch["image_ids"].tolist() == batch["text_ids"].tolist() == [hash_id("image-text/0")]


class TestViews:
    def studies(self):
        views = [study("image-text", 7, image=torch.full((1, 2, 2), float(v))) for v in range(3)]
        return [*views, study("image-text", 9)]

    def values(self, batch):
        return sorted(batch["image"][:, 0, 0, 0].tolist())

    def test_all_each_a_unit_with_its_study_s_report(self):
        data = dataset(self.studies())
        (batch,) = StudyLoader(data, batch_sampler=data.sampler(4))
        assert self.values(batch) == [0, 1, 2, 9]
        assert batch["image_ids"].tolist() == batch["text_ids"].tolist()

    def test_sampled_in_turn(self):
        data = dataset(self.studies(), views="sample")
        loader = StudyLoader(data, batch_sampler=data.sampler(2))
        seen = []
        for epoch in range(3):
            loader.set_epoch(epoch)
            (batch,) = loader
            assert len(batch["image_ids"]) == len(batch["text_ids"]) == 2
            seen += self.values(batch)
        assert sorted(seen) == [0, 1, 2, 9, 9, 9]

    def test_every_view_meets_every_report(self):
        views = [
            study("image-text", 7, image=torch.full((1, 2, 2), float(v)), text=f"report {min(v, 1)}") for v in range(3)
        ]
        data = dataset(views, views="sample")
        loader = StudyLoader(data, batch_sampler=data.sampler(1))
        seen = set()
        for epoch in range(6):
            loader.set_epoch(epoch)
            (batch,) = loader
            seen.add((float(batch["image"][0, 0, 0, 0]), batch["text"][0]))
        assert len(seen) == 6

    def test_pooled_are_one_image_with_one_text(self):
        class Mean(torch.nn.Module):
            def forward(self, image, input_ids):
                embeds = torch.stack([image.mean((1, 2, 3)), torch.ones(len(image))], dim=1)
                return {"image_embeds": embeds, "text_embeds": torch.ones(len(input_ids), 2)}

        data = dataset(self.studies(), views="pool")
        (batch,) = StudyLoader(data, batch_sampler=data.sampler(2))
        assert self.values(batch) == [0, 1, 2, 9]
        assert batch["label"].shape == (2, 2)
        assert batch["image_ids"].tolist() == batch["text_ids"].tolist()
        assert sorted(batch["view_index"].bincount().tolist()) == [1, 3]
        prepare = PrepareBatchImageText(network_keys=("input_ids", "view_index"), label_policy=LabelPolicy())
        image, targets, _, kwargs = prepare(batch, "cpu")
        output = PooledViews(Mean())(image, **kwargs)
        assert output["image_embeds"].shape == (2, 2)
        assert output["image_embeds"].norm(dim=1).tolist() == pytest.approx([1, 1])
        of_three = output["image_embeds"][batch["image_ids"].tolist().index(hash_id("image-text/7"))]
        views = [
            image[i].mean() for i in (batch["view_index"] == batch["view_index"].mode().values).nonzero().flatten()
        ]
        assert float(of_three[0] / of_three[1]) == pytest.approx(float(sum(views) / 3), rel=1e-5)
        loss = SemanticMatchingLoss()
        assert torch.isfinite(CombinedLoss({"matching": loss})(output, targets))
        with pytest.raises(
            ValueError, match=r"^view_index must have shape \(4,\), one value for each image, got \(3,\)\.$"
        ):
            PooledViews(Mean())(image, kwargs["input_ids"], view_index=torch.tensor([0, 0, 1]))

    def test_pooled_go_on_without_a_view_that_cannot_be_read(self):
        studies = self.studies()
        studies[0]["image"] = None
        data = UnifiedDataset(studies, Lambdad("image", lambda x: x + 0), text_chain(), views="pool")
        (batch,) = StudyLoader(data, batch_sampler=data.sampler(2), on_error="skip")
        assert self.values(batch) == [1, 2, 9]
        assert sorted(batch["view_index"].bincount().tolist()) == [1, 2]


class TestLoading:
    @pytest.mark.parametrize("decoupled", [False, True])
    def test_the_same_whatever_the_workers(self, decoupled):
        def contents(workers):
            data = dataset(decoupled=decoupled, seed=5)
            loader = StudyLoader(data, batch_sampler=data.sampler(2), num_workers=workers)
            out = []
            for epoch in (1, 2):
                loader.set_epoch(epoch)
                out += [(b["study_id"], b["text"]) for b in loader]
            return out

        assert contents(0) == contents(14)  # more workers than studies

    @pytest.mark.parametrize("decoupled", [False, True])
    def test_every_pass_is_an_epoch_with_draws_of_its_own(self, decoupled):
        def contents(loader):
            return [(batch["study_id"], batch["text"]) for batch in loader]

        loader = unified_loader(dataset(decoupled=decoupled, seed=5), 2)
        first, second = contents(loader), contents(loader)
        assert first != second
        loader.set_epoch(0)
        assert [contents(loader), contents(loader)] == [first, second]
        fixed = unified_loader(dataset(decoupled=decoupled, seed=5), 2, advance_epoch=False)
        assert [contents(fixed), contents(fixed)] == [first, first]

    def test_bad_studies_are_named_or_skipped_and_counted(self):
        studies = mixed_studies()
        studies[0]["image"] = None
        studies[3]["label"] = np.full(2, np.nan, np.float32)  # nothing to write a prompt of
        studies[8]["text"] = None
        chain = Compose([Lambdad("image", lambda x: x + 0)])
        for number, key in ((0, "image"), (3, "label"), (8, "input_ids")):
            broken = [study for i, study in enumerate(studies) if i == number or i in (1, 2)]
            data = UnifiedDataset(broken, chain, text_chain(), prompt_chain())
            with pytest.raises(StudyError, match=f"^study '{studies[number]['study_id']}', {key}: "):
                list(StudyLoader(data, batch_sampler=data.sampler(3)))
        data = UnifiedDataset(studies, chain, text_chain(), prompt_chain())
        loader = StudyLoader(data, batch_sampler=data.sampler(4), on_error="skip", required_keys=("image", "input_ids"))
        kept = [i for batch in loader for i in batch["study_id"]]
        assert set(loader.skipped) == {studies[i]["study_id"] for i in (0, 3, 8)}
        assert len(kept) == 9

    def test_a_batch_that_lost_a_side_is_passed_over(self):
        studies = [study("image-label", 0), study("text-label", 0)]
        studies[0]["image"] = None
        data = UnifiedDataset(
            studies, Lambdad("image", lambda x: x + 0), text_chain(), prompt_chain(), label_prompts=False
        )
        loader = StudyLoader(data, batch_sampler=data.sampler(2), on_error="skip", required_keys=("image", "input_ids"))
        assert list(loader) == []

    def test_clear_errors(self):
        with pytest.raises(ValueError, match=r"^study 'a' must have the key 'kind', got \['study_id'\]\.$"):
            UnifiedDataset([{"study_id": "a"}])
        with pytest.raises(ValueError, match=r"^kind of study 'a' must be one of 'image-text', .*, got 'images'\.$"):
            UnifiedDataset([{"study_id": "a", "kind": "images", "source": "x"}])
        with pytest.raises(
            ValueError, match=r"^study 'a' must have the key 'label' of the kind image-label, got \['image', "
        ):
            UnifiedDataset([{"study_id": "a", "kind": "image-label", "source": "x", "image": "a.png"}])
        with pytest.raises(
            ValueError,
            match=r"^study 'a' must have the key 'text' or 'sentences' or 'report' of the kind text-label, got \[",
        ):
            UnifiedDataset([{"study_id": "a", "kind": "text-label", "source": "x"}])
        with pytest.raises(ValueError, match=r"^views must be one of 'all', 'sample', 'pool', got 'mean'\.$"):
            dataset(views="mean")
        with pytest.raises(ValueError, match=r"^num_texts must be None where images and texts are coupled, got 3\.$"):
            dataset().sampler(2, num_texts=3)


class TestUnifiedLoader:
    @pytest.mark.parametrize("kind", ["image-text", "text-label"])
    @pytest.mark.parametrize("rows", [None, 1, 3])
    def test_a_label_for_each_sentence(self, kind, rows):
        one = study(kind, 0, sentences=["one", "two"], text_label=np.zeros((rows or 0, 2)))
        if rows is None:
            del one["text_label"]
        with pytest.raises(
            ValueError,
            match=rf"^text_label of study '.*' must have one row for each sentence \(2\), got {rows or 0}\.$",
        ):
            UnifiedDataset([one])

    def test_workers_that_are_spawned_get_the_same_items(self):
        """As on macOS and Windows, where a worker gets the dataset by pickle."""
        studies = [*mixed_studies(), report(9, ["one", "two"])]
        data = UnifiedDataset(studies, prompt_transform=LabelsToPromptd("label", names=NAMES))
        again = pickle.loads(pickle.dumps(data))
        assert len(again) == len(data)
        assert list(again.sampler(4)) == list(data.sampler(4))
        for index in range(len(data)):
            one, other = data[index], again[index]
            assert one.keys() == other.keys()
            assert str(one) == str(other)

    def test_weights_reach_the_sampler(self):
        loader = unified_loader(
            dataset(decoupled=True), 2, 3, {"image-text": 1.0}, {"text-label": 0.5, "image-label": 0.5}, num_workers=0
        )
        batch = next(iter(loader))
        kinds = [name.split("/")[0] for name in batch["study_id"]]
        number = len(batch["image_ids"])
        assert (kinds[:number], len(batch["text_ids"])) == (["image-text"] * number, 3)
        assert set(kinds[number:]) == {"text-label", "image-label"}
        assert loader.required_keys == ("image", "input_ids")

    @pytest.mark.parametrize(("kind", "missing"), [("text-label", "image"), ("image-label", "text")])
    def test_one_side_missing(self, kind, missing):
        data = dataset([study(kind, 0)], label_prompts=False)
        with pytest.raises(ValueError, match=rf"^dataset must have images and texts, got no {missing}\.$"):
            unified_loader(data, 2)
        assert list(unified_loader(data, 2, allow_empty=True)) == []

    def test_the_cache_is_filled_with_images(self):
        calls = []
        chain = Lambdad("image", lambda image: calls.append(1) or image)
        data = UnifiedDataset(mixed_studies(), chain, text_chain(), prompt_chain(), cache_bytes=1 << 20)
        data.load()
        assert len(calls) == 7
        assert len(list(unified_loader(data, 4))) == 3
        assert len(calls) == 7


def test_labels_become_numbers_for_the_loss():
    data = dataset()
    batch = next(iter(StudyLoader(data, batch_sampler=data.sampler(12))))
    _, targets, _, _ = PrepareBatchImageText(label_policy=LabelPolicy())(batch, "cpu")
    assert targets["image_labels"].tolist() == [[-1, 1]] * 7
    assert {tuple(row) for row in targets["text_labels"].tolist()} == {(-1, 1), (1, 0)}


class TestGivenPrompts:
    def prompts(self, count: int) -> list[dict]:
        labels = np.array([1.0, np.nan], dtype=np.float32)
        return [
            {
                "study_id": f"prompt {n}",
                "kind": "prompt",
                "source": "prompts",
                "text": f"Prompt {n}.",
                "text_label": labels,
            }
            for n in range(count)
        ]

    @pytest.mark.parametrize("kind", ["image-text", "image-label", "text-label"])
    def test_each_study_brings_some(self, kind):
        studies = [study(kind, number) for number in range(12)]
        plain = UnifiedDataset(studies, None, text_chain(), prompt_chain())
        data = UnifiedDataset([*studies, *self.prompts(5)], None, text_chain(), prompt_chain(), prompts_per_study=2)
        assert set(data.pools) == set(plain.pools)
        drawn = list(data.sampler(4))
        assert [len(batch) for batch in drawn] == [4 * 3] * 3
        texts = [data[index]["text"] for batch in drawn for index in batch if "text" in data[index]]
        given = [text for text in texts if text.startswith("Prompt")]
        assert len(given) == 24
        assert len(set(given)) == 5, "others for other studies"
        item = next(data[index] for batch in drawn for index in batch if data[index]["study_id"].startswith("prompt"))
        assert "image" not in item
        assert "label" not in item

    def test_without_a_number_none_is_drawn(self):
        studies = [study("image-text", number) for number in range(6)]
        plain = UnifiedDataset(studies, None, text_chain(), prompt_chain())
        data = UnifiedDataset([*studies, *self.prompts(5)], None, text_chain(), prompt_chain())
        assert [[data[i]["study_id"] for i in batch] for batch in data.sampler(2)] == [
            [plain[i]["study_id"] for i in batch] for batch in plain.sampler(2)
        ]
