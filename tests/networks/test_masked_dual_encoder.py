"""Dual encoders of images with masked patches."""

from __future__ import annotations

import json

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from medvl.functional import gather_patches, semantic_integrity
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, MaskedPatchLoss, PatchSentenceMatchingLoss
from medvl.networks import DualEncoder, ImageEncoder, MaskedDualEncoder, TextEncoder, TextProcessor
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


LOCAL = {"image_embeds", "text_embeds", "logit_scale", "patch_embeds", "sentence_embeds", "sentence_mask"}
VISIBLE = torch.tensor([[0, 5, 9, 15], [3, 2, 1, 0], [8, 9, 10, 11]])


def build(image=None, **options) -> MaskedDualEncoder:
    torch.manual_seed(0)
    encoders = ImageEncoder(**(image or VIT)), TextEncoder(BERT, "mean")
    return MaskedDualEncoder(*encoders, embed_dim=6, text_processor=TextProcessor(TOKENIZER), **options).eval()


def masked() -> MaskedDualEncoder:
    return build(local_projections=True, patch_decoder={"features": 16, "num_heads": 2}, semantic_integrity="report")


@pytest.fixture
def image():
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))


class TestMasked:
    def test_only_what_is_asked_for(self, image):
        tokens = masked().tokenize(REPORTS)
        output = LOCAL | {"visible_mask", "patch_prediction", "semantic_integrity"}
        assert set(masked()(image, **tokens, visible_indices=VISIBLE)) == output
        assert set(masked()(image, **tokens)) == LOCAL
        without_sentences = masked()(image, tokens["input_ids"], tokens["attention_mask"], visible_indices=VISIBLE)
        assert set(without_sentences) == output - {"sentence_embeds", "sentence_mask", "semantic_integrity"}
        assert set(build()(image, visible_indices=VISIBLE)) == {"image_embeds", "visible_mask", "logit_scale"}

    def test_without_masking_it_is_a_dual_encoder(self, image):
        model = masked()
        plain = DualEncoder(
            model.image_encoder,
            model.text_encoder,
            embed_dim=6,
            local_projections=True,
            text_processor=model.text_processor,
        )
        plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
        tokens = model.tokenize(REPORTS)
        expected = plain.eval()(image, **tokens)
        for name, value in model(image, **tokens).items():
            assert torch.equal(value, expected[name]), name
        everything = model(image, **tokens, visible_indices=torch.arange(16).expand(3, -1))
        for name, value in expected.items():
            torch.testing.assert_close(everything[name], value, msg=name)
        assert everything["visible_mask"].all()

    def test_hidden_patches_are_zero_and_visible_ones_in_place(self, image):
        model = masked()
        output = model(image, visible_indices=VISIBLE)
        assert output["visible_mask"].sum(1).tolist() == [4, 4, 4]
        assert output["patch_embeds"][~output["visible_mask"]].abs().max() == 0
        patches = model.image_encoder(image, visible_indices=VISIBLE)["patches"]
        expected = F.normalize(model.patch_projection(patches), dim=-1)
        torch.testing.assert_close(gather_patches(output["patch_embeds"], VISIBLE), expected)

    def test_monais_tensors_are_left_behind(self, image):
        model = masked()
        plain = {**model.tokenize(REPORTS), "visible_indices": VISIBLE}
        expected = model(image, **plain)
        output = model(MetaTensor(image), **{name: MetaTensor(value) for name, value in plain.items()})
        for name, value in output.items():
            assert type(value) is torch.Tensor, name
            assert torch.equal(value, expected[name]), name

    def test_hidden_pixels_change_nothing(self, image):
        model = masked()
        before = model(image, visible_indices=VISIBLE)
        other = image.clone()
        other[0, :, 8:16, 0:8] += 1  # patch 4, hidden in image 0
        after = model(other, visible_indices=VISIBLE)
        for name in ("image_embeds", "patch_embeds", "patch_prediction"):
            assert torch.equal(before[name], after[name]), name

    def test_integrity_is_the_reports_share(self, image):
        model = masked()
        tokens = model.tokenize(REPORTS)
        output = model(image, **tokens, visible_indices=VISIBLE)
        patches, _ = model.encode_patches(image)
        sentences, mask = model.encode_sentences(REPORTS)
        for row in range(3):
            best = (patches[row] @ sentences[row, mask[row]].T).amax(1)
            share = (best / 0.1).softmax(0)[VISIBLE[row]].sum()
            torch.testing.assert_close(output["semantic_integrity"][row], share)
        assert not output["semantic_integrity"].requires_grad

    def test_integrity_finds_the_own_report(self, image):
        model = masked()
        tokens = model.tokenize([REPORTS[1], REPORTS[0]])
        straight = model(image[:2], **model.tokenize(REPORTS[:2]), visible_indices=VISIBLE[:2])["semantic_integrity"]
        ids = {"image_ids": torch.tensor([7, 4, 9]), "text_ids": torch.tensor([4, 7])}
        crossed = model(image, **tokens, visible_indices=VISIBLE, **ids)["semantic_integrity"]
        torch.testing.assert_close(crossed[:2], straight, atol=1e-5, rtol=1e-5)
        assert crossed[2].item() == pytest.approx(4 / 16), "without a report every patch counts alike"
        with pytest.raises(
            ValueError, match=r"^image_ids and text_ids must tell which .* got 3 images and 2 texts without ids\.$"
        ):
            model(image, **tokens, visible_indices=VISIBLE)

    def test_integrity_of_contrast(self, image):
        model = build(semantic_integrity="contrast")
        output = model(image, visible_indices=VISIBLE)
        spread = image.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).std(-1, correction=0).flatten(1)
        expected = spread.gather(1, VISIBLE).sum(1) / spread.sum(1)
        torch.testing.assert_close(output["semantic_integrity"], expected)

    def test_options_that_do_not_fit(self):
        densenet = {"backbone": "densenet121", "image_size": 32}
        for option in ({"patch_decoder": {}}, {"semantic_integrity": "contrast"}):
            name = next(iter(option))
            message = rf"^image_encoder must support masking, as a ViT does, for {name}, got a DenseNetBackbone\.$"
            with pytest.raises(ValueError, match=message):
                build(densenet, **option)
        with pytest.raises(
            ValueError, match=r"^local_projections must be True for semantic_integrity='report', got False\.$"
        ):
            build(semantic_integrity="report")
        with pytest.raises(
            ValueError, match=r"^semantic_integrity must be one of None, 'report', 'contrast', got 'x'\.$"
        ):
            build(semantic_integrity="x")

    def test_integrity_reads_all_texts_of_an_image(self, image):
        model = masked()
        rows = [0, 0, 1]  # two texts of the first image, one of the second
        texts = ["No effusion.", "Large heart.", "No edema."]
        ids = torch.tensor(rows)
        apart = model(
            image[:2], **model.tokenize(texts), visible_indices=VISIBLE[:2], image_ids=torch.arange(2), text_ids=ids
        )
        sentences = apart["sentence_embeds"][:, 0]
        together = torch.stack([sentences[:2], torch.stack([sentences[2], sentences[2]])])
        mask = torch.tensor([[True, True], [True, False]])
        with torch.no_grad():
            patches, _ = model.encode_patches(image[:2])
        expected = semantic_integrity(patches, together, apart["visible_mask"], sentence_mask=mask)
        torch.testing.assert_close(apart["semantic_integrity"], expected)
        moved = model(
            image[:2],
            **model.tokenize(texts),
            visible_indices=VISIBLE[:2],
            image_ids=torch.tensor([1, 7]),
            text_ids=ids,
        )
        torch.testing.assert_close(moved["semantic_integrity"][1], apart["visible_mask"][1].float().mean())

    def test_names_wire_to_the_losses_and_all_learns(self, image):
        model = masked().train()
        loss = CombinedLoss(
            {
                "global": ImageTextContrastiveLoss(),
                "local": (PatchSentenceMatchingLoss(), 0.5),
                "pixels": MaskedPatchLoss(patch_size=8),
            },
            argument_names={"weights": "semantic_integrity", "patch_mask": "visible_mask"},
        )
        output = model(image, **model.tokenize(REPORTS), visible_indices=VISIBLE)
        total = loss(output, {"image": image})
        weights, mask = output["semantic_integrity"], output["visible_mask"]
        scale = output["logit_scale"]
        whole = ImageTextContrastiveLoss()(
            output["image_embeds"], output["text_embeds"], weights=weights, logit_scale=scale
        )
        torch.testing.assert_close(loss.terms["global"], whole.detach())
        local = PatchSentenceMatchingLoss()(
            output["patch_embeds"],
            output["sentence_embeds"],
            mask,
            output["sentence_mask"],
            weights=weights,
            logit_scale=scale,
        )
        torch.testing.assert_close(loss.terms["local"], local.detach())
        total.backward()
        still = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not still
        dead = [name for name, p in model.named_parameters() if p.requires_grad and p.grad.abs().max() == 0]
        assert not [name for name in dead if "token_type" not in name and "key.bias" not in name]

    def test_in_three_dimensions(self):
        vit = {**VIT, "spatial_dims": 3, "image_size": 16}
        model = build(vit, local_projections=True, patch_decoder={"features": 24, "num_heads": 2})
        output = model(torch.rand(2, 1, 16, 16, 16), visible_indices=torch.tensor([[0, 7], [3, 4]]))
        assert output["patch_prediction"].shape == (2, 8, 512)
        assert output["patch_embeds"].shape == (2, 8, 6)


def test_everything_is_saved(tmp_path, image):
    model = masked()
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    assert type(again) is MaskedDualEncoder, "the class that was saved"
    assert type(MaskedDualEncoder.from_pretrained(tmp_path)) is MaskedDualEncoder
    first, second = (m(image, **m.tokenize(REPORTS), visible_indices=VISIBLE) for m in (model, again))
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_folder_of_another_class_is_refused(tmp_path):
    encoders = ImageEncoder(**VIT), TextEncoder(BERT, "mean")
    DualEncoder(*encoders, embed_dim=6).save_pretrained(tmp_path)
    assert type(DualEncoder.from_pretrained(tmp_path)) is DualEncoder
    with pytest.raises(ValueError, match=r"^architecture must be one of 'MaskedDualEncoder', got 'DualEncoder'\.$"):
        MaskedDualEncoder.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "SHA256SUMS").unlink()  # changed on purpose
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "Unknown"}))
    with pytest.raises(ValueError, match=r"^architecture must be one of 'DualEncoder', .* got 'Unknown'\.$"):
        DualEncoder.from_pretrained(tmp_path)
