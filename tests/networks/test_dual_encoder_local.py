"""What the dual encoder gives beside whole images and texts: patches, sentences and reports."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, TextProcessor
from medvl.text import content_sentences, split_sentences
from medvl.transforms import train_tokenizer

REPORTS = [
    "FINDINGS: The heart is normal in size. No effusion. There is a large left pneumothorax.",
    "Clear lungs.",
    "IMPRESSION: 1. Edema. 2. No effusion. ___",
]
TOKENIZER = train_tokenizer(REPORTS, 200, min_patients=1)
BERT = {
    "model_type": "bert",
    "vocab_size": len(TOKENIZER),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
VIT = {"backbone": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2}


def build(report_encoding="whole", **options) -> DualEncoder:
    torch.manual_seed(0)
    processor = TextProcessor(TOKENIZER, report_encoding)
    encoders = ImageEncoder(**VIT), TextEncoder(BERT, "mean")
    return DualEncoder(*encoders, embed_dim=6, text_processor=processor, **options).eval()


@pytest.fixture
def image():
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))


class TestLocal:
    def test_only_what_is_asked_for(self, image):
        tokens = build().tokenize(REPORTS)
        assert set(build()(image, **tokens)) == {"image_embeds", "text_embeds", "logit_scale"}
        local = {"image_embeds", "text_embeds", "logit_scale", "patch_embeds", "sentence_embeds", "sentence_mask"}
        assert set(build(local_projections=True)(image, **tokens)) == local

    def test_patches_and_sentences_have_their_own_projections(self, image):
        model = build(local_projections=True)
        tokens = model.tokenize(REPORTS)
        output = model(image, **tokens)
        patches = model.image_encoder(image)["patches"]
        torch.testing.assert_close(output["patch_embeds"], F.normalize(model.patch_projection(patches), dim=-1))
        states = model.text_encoder(tokens["input_ids"], tokens["attention_mask"])["tokens"]
        for m, s in ((0, 2), (0, 3), (1, 0), (2, 1)):
            own = states[m, tokens["sentence_ids"][m] == s].mean(0)
            expected = F.normalize(model.sentence_projection(own), dim=-1)
            torch.testing.assert_close(output["sentence_embeds"][m, s], expected)
        counts = [len(split_sentences(report)) for report in REPORTS]
        assert output["sentence_mask"].sum(1).tolist() == counts

    def test_encode_patches(self, image):
        model = build(local_projections=True)
        embeds, grid = model.encode_patches(image)
        assert grid == (4, 4)
        torch.testing.assert_close(embeds, model(image)["patch_embeds"])
        shared = build()
        embeds, _ = shared.encode_patches(image)
        expected = F.normalize(shared.image_projection(shared.image_encoder(image)["patches"]), dim=-1)
        torch.testing.assert_close(embeds, expected)

    def test_encode_sentences_in_their_text(self):
        model = build(local_projections=True)
        embeds, mask = model.encode_sentences(REPORTS)
        output = model(**model.tokenize(REPORTS))
        torch.testing.assert_close(embeds, output["sentence_embeds"])
        assert torch.equal(mask, output["sentence_mask"])
        tokens = model.tokenize(REPORTS)
        torch.testing.assert_close(
            model.encode_sentences(tokens["input_ids"], tokens["attention_mask"], tokens["sentence_ids"])[0], embeds
        )
        with pytest.raises(ValueError, match="encode_sentences needs sentence_ids with token ids"):
            model.encode_sentences(tokens["input_ids"])

    def test_encode_sentences_alone(self):
        model = build()
        embeds, mask = model.encode_sentences([*REPORTS, ""])
        for row, report in enumerate(REPORTS):
            sentences = [report[start:end] for start, end in split_sentences(report)]
            assert mask[row].tolist() == [True] * len(sentences) + [False] * (mask.shape[1] - len(sentences))
            for place, sentence in enumerate(sentences):
                torch.testing.assert_close(embeds[row, place], model.encode_text(sentence)[0])
        assert not mask[3].any()
        with pytest.raises(
            ValueError, match=r"^texts must be strings for a model without local_projections, got token ids\.$"
        ):
            model.encode_sentences(torch.ones(1, 3, dtype=torch.long))


class TestReports:
    def test_by_sentences(self):
        model = build(report_encoding="sentences")
        embeds = model.encode_reports([*REPORTS, "", "___"])
        for row, report in enumerate([*REPORTS, "", "___"]):
            vectors = torch.cat([model.encode_text(sentence) for sentence in content_sentences(report) or [report]])
            torch.testing.assert_close(embeds[row], F.normalize(vectors.mean(0), dim=0))
        torch.testing.assert_close(model.encode_reports(REPORTS[0]), embeds[:1])

    def test_whole(self):
        model = build()
        torch.testing.assert_close(model.encode_reports(REPORTS), model.encode_text(REPORTS))

    def test_any_number(self, monkeypatch):
        model = build(report_encoding="sentences")
        expected = model.encode_reports(REPORTS)
        monkeypatch.setattr("medvl.networks.nets.dual_encoder.TEXT_BATCH_SIZE", 2)
        torch.testing.assert_close(model.encode_reports(REPORTS), expected)
        assert model.encode_reports([]).shape == (0, 6)

    def test_texts_in_parts_and_none(self, monkeypatch):
        model = build()
        expected = model.encode_text(REPORTS)
        monkeypatch.setattr("medvl.networks.nets.dual_encoder.TEXT_BATCH_SIZE", 2)
        torch.testing.assert_close(model.encode_text(REPORTS), expected)
        assert model.encode_text([]).shape == (0, 6)
        with pytest.raises(ValueError, match="texts must hold at least one string, got none"):
            build(local_projections=True).encode_sentences([])

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"^report_encoding must be one of 'whole', 'sentences', got 'words'\.$"):
            build(report_encoding="words")
