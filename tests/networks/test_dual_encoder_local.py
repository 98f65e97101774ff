"""What the dual encoder gives beside whole images and texts: patches, sentences, reports, masked images."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from medvl.functional import gather_patches
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, MaskedPatchLoss, PatchSentenceMatchingLoss
from medvl.networks import DualEncoder, ImageEncoder, TextEncoder
from medvl.networks.nets.strings import telling_sentences, tokenize
from medvl.text import split_sentences
from medvl.transforms import TokenizeText, train_tokenizer

REPORTS = [
    "FINDINGS: The heart is normal in size. No effusion. There is a large left pneumothorax.",
    "Clear lungs.",
    "IMPRESSION: 1. Edema. 2. No effusion. ___",
]
TOKENIZER = train_tokenizer(REPORTS, 200)
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


def build(image=None, **options) -> DualEncoder:
    torch.manual_seed(0)
    encoder = ImageEncoder(**(image or VIT))
    return DualEncoder(encoder, TextEncoder(BERT, "mean"), embed_dim=6, tokenizer=TOKENIZER, **options).eval()


def masked() -> DualEncoder:
    return build(local_projections=True, patch_decoder={"features": 16, "num_heads": 2}, semantic_integrity="report")


@pytest.fixture
def image():
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))


VISIBLE = torch.tensor([[0, 5, 9, 15], [3, 2, 1, 0], [8, 9, 10, 11]])


class TestLocal:
    def test_only_what_is_asked_for(self, image):
        tokens = build().tokenize(REPORTS)
        assert set(build()(image, **tokens)) == {"image_embeds", "text_embeds", "logit_scale"}
        local = {"image_embeds", "text_embeds", "logit_scale", "patch_embeds", "sentence_embeds", "sentence_mask"}
        assert set(build(local_projections=True)(image, **tokens)) == local
        seen = local | {"visible_mask", "patch_mask", "patch_prediction", "semantic_integrity", "weights"}
        assert set(masked()(image, **tokens, visible=VISIBLE)) == seen
        assert set(masked()(image, **tokens)) == local
        without_sentences = masked()(image, tokens["input_ids"], tokens["attention_mask"], visible=VISIBLE)
        assert set(without_sentences) == seen - {
            "sentence_embeds", "sentence_mask", "semantic_integrity", "weights"
        }  # fmt: skip

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
        with pytest.raises(ValueError, match="encode_sentences needs sentence_ids beside token ids"):
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
        with pytest.raises(ValueError, match="takes strings where the model has no local_projections"):
            model.encode_sentences(torch.ones(1, 3, dtype=torch.long))


class TestReports:
    def test_by_sentences(self):
        model = build(report_encoding="sentences")
        embeds = model.encode_reports([*REPORTS, "", "___"])
        for row, report in enumerate([*REPORTS, "", "___"]):
            vectors = torch.cat([model.encode_text(sentence) for sentence in telling_sentences(report) or [report]])
            torch.testing.assert_close(embeds[row], F.normalize(vectors.mean(0), dim=0))
        torch.testing.assert_close(model.encode_reports(REPORTS[0]), embeds[:1])

    def test_headers_do_not_count(self):
        assert telling_sentences(REPORTS[0])[0] == "The heart is normal in size."
        assert telling_sentences("FINDINGS:") == ["FINDINGS:"]

    def test_whole(self):
        model = build()
        torch.testing.assert_close(model.encode_reports(REPORTS), model.encode_text(REPORTS))

    def test_any_number(self, monkeypatch):
        model = build(report_encoding="sentences")
        expected = model.encode_reports(REPORTS)
        monkeypatch.setattr("medvl.networks.nets.dual_encoder.TEXTS_AT_ONCE", 2)
        torch.testing.assert_close(model.encode_reports(REPORTS), expected)
        assert model.encode_reports([]).shape == (0, 6)

    def test_texts_in_parts_and_none(self, monkeypatch):
        model = build()
        expected = model.encode_text(REPORTS)
        monkeypatch.setattr("medvl.networks.nets.dual_encoder.TEXTS_AT_ONCE", 2)
        torch.testing.assert_close(model.encode_text(REPORTS), expected)
        assert model.encode_text([]).shape == (0, 6)
        with pytest.raises(ValueError, match="texts must hold at least one string, received none"):
            build(local_projections=True).encode_sentences([])

    def test_unknown(self):
        with pytest.raises(ValueError, match="report_encoding must be one of whole, sentences, received 'words'"):
            build(report_encoding="words")


class TestTokens:
    @pytest.mark.parametrize("length", [6, 40])
    def test_as_the_transform_gives_them(self, length):
        batch = tokenize(TOKENIZER, REPORTS, length)
        for row, report in enumerate(REPORTS):
            alone = TokenizeText(TOKENIZER, length)(report)
            for name, values in alone.items():
                assert torch.equal(batch[name][row, : len(values)], values), name
            rest = slice(len(alone["input_ids"]), None)
            assert (batch["sentence_ids"][row, rest] == -1).all()
            assert (batch["attention_mask"][row, rest] == 0).all()


class TestMasked:
    def test_hidden_patches_are_zero_and_visible_ones_in_place(self, image):
        model = masked()
        output = model(image, visible=VISIBLE)
        assert output["visible_mask"].sum(1).tolist() == [4, 4, 4]
        assert output["patch_embeds"][~output["visible_mask"]].abs().max() == 0
        patches = model.image_encoder(image, visible=VISIBLE)["patches"]
        expected = F.normalize(model.patch_projection(patches), dim=-1)
        torch.testing.assert_close(gather_patches(output["patch_embeds"], VISIBLE), expected)
        assert torch.equal(output["patch_mask"], output["visible_mask"])

    def test_monais_tensors_are_left_behind(self, image):
        model = masked()
        plain = {**model.tokenize(REPORTS), "visible": VISIBLE}
        expected = model(image, **plain)
        output = model(MetaTensor(image), **{name: MetaTensor(value) for name, value in plain.items()})
        for name, value in output.items():
            assert type(value) is torch.Tensor, name
            assert torch.equal(value, expected[name]), name

    def test_hidden_pixels_change_nothing(self, image):
        model = masked()
        before = model(image, visible=VISIBLE)
        other = image.clone()
        other[0, :, 8:16, 0:8] += 1  # patch 4, hidden in image 0
        after = model(other, visible=VISIBLE)
        for name in ("image_embeds", "patch_embeds", "patch_prediction"):
            assert torch.equal(before[name], after[name]), name

    def test_integrity_is_the_reports_share(self, image):
        model = masked()
        tokens = model.tokenize(REPORTS)
        output = model(image, **tokens, visible=VISIBLE)
        patches, _ = model.encode_patches(image)
        sentences, mask = model.encode_sentences(REPORTS)
        for row in range(3):
            best = (patches[row] @ sentences[row, mask[row]].T).amax(1)
            share = (best / 0.1).softmax(0)[VISIBLE[row]].sum()
            torch.testing.assert_close(output["semantic_integrity"][row], share)
        assert not output["semantic_integrity"].requires_grad
        assert output["weights"] is output["semantic_integrity"]

    def test_integrity_finds_the_own_report(self, image):
        model = masked()
        tokens = model.tokenize([REPORTS[1], REPORTS[0]])
        straight = model(image[:2], **model.tokenize(REPORTS[:2]), visible=VISIBLE[:2])["weights"]
        ids = {"image_ids": torch.tensor([7, 4, 9]), "text_ids": torch.tensor([4, 7])}
        crossed = model(image, **tokens, visible=VISIBLE, **ids)["weights"]
        torch.testing.assert_close(crossed[:2], straight, atol=1e-5, rtol=1e-5)
        assert crossed[2].item() == pytest.approx(4 / 16), "without a report every patch counts alike"
        with pytest.raises(ValueError, match=r"image_ids and text_ids .* received 3 images and 2 texts"):
            model(image, **tokens, visible=VISIBLE)

    def test_integrity_of_contrast(self, image):
        model = build(semantic_integrity="contrast")
        output = model(image, visible=VISIBLE)
        spread = image.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).std(-1, correction=0).flatten(1)
        expected = spread.gather(1, VISIBLE).sum(1) / spread.sum(1)
        torch.testing.assert_close(output["semantic_integrity"], expected)

    def test_options_that_do_not_fit(self):
        resnet = {"backbone": "resnet10", "image_size": 32, "width": 0.125}
        with pytest.raises(
            ValueError, match="patch_decoder needs an image encoder that takes visible patches, a ViT, rec"
        ):
            build(resnet, patch_decoder={})
        with pytest.raises(ValueError, match="semantic_integrity needs an image encoder that takes visible"):
            build(resnet, semantic_integrity="contrast")
        with pytest.raises(
            ValueError, match="semantic_integrity='report' needs local_projections=True, received False"
        ):
            build(semantic_integrity="report")
        with pytest.raises(ValueError, match="semantic_integrity must be one of None, report, contrast, received 'x'"):
            build(semantic_integrity="x")

    def test_names_wire_to_the_losses_and_all_learns(self, image):
        model = masked().train()
        loss = CombinedLoss(
            {
                "global": ImageTextContrastiveLoss(),
                "local": (PatchSentenceMatchingLoss(), 0.5),
                "pixels": MaskedPatchLoss(patch_size=8),
            }
        )
        output = model(image, **model.tokenize(REPORTS), visible=VISIBLE)
        assert set(output) >= {"weights", "patch_mask"}
        loss(output, {"image": image}).backward()
        still = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not still
        dead = [name for name, p in model.named_parameters() if p.requires_grad and p.grad.abs().max() == 0]
        assert not [name for name in dead if "token_type" not in name and "key.bias" not in name]

    def test_in_three_dimensions(self):
        vit = {**VIT, "spatial_dims": 3, "image_size": 16}
        model = build(vit, local_projections=True, patch_decoder={"features": 24, "num_heads": 2})
        output = model(torch.rand(2, 1, 16, 16, 16), visible=torch.tensor([[0, 7], [3, 4]]))
        assert output["patch_prediction"].shape == (2, 8, 512)
        assert output["patch_embeds"].shape == (2, 8, 6)


def test_everything_is_saved(tmp_path, image):
    model = masked()
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    first, second = (m(image, **m.tokenize(REPORTS), visible=VISIBLE) for m in (model, again))
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
