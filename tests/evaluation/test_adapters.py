"""Models of other people go through every protocol unchanged."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
)

from medvl.evaluation import (
    BootstrapConfig,
    FunctionModel,
    HuggingFaceModel,
    compare,
    dense_features,
    embed_studies,
    evaluate,
    fine_tune,
    grounding,
    label_retrieval,
    linear_probe,
    retrieval,
    zero_shot,
    zero_shot_single_label,
)

NAMES = ["Edema", "Fracture"]
PROMPTS = {name: {"present": [name, f"{name} is seen"], "absent": [f"no {name}"]} for name in NAMES}
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"image_size": 32, "patch_size": 8, **SIZES}


class Tokenizer:
    """Letters as tokens, called as Hugging Face's tokenizers are."""

    def __call__(self, texts, padding, truncation, max_length, return_tensors):
        assert (truncation, return_tensors) == (True, "pt")
        rows = [[1, *(3 + ord(letter) % 40 for letter in text[: max_length - 2]), 2] for text in texts]
        length = max_length if padding == "max_length" else max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": torch.zeros_like(ids)}


class ImageProcessor:
    image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


class Processor:
    tokenizer, image_processor = Tokenizer(), ImageProcessor()


def clip():
    text = {
        "vocab_size": 50,
        "max_position_embeddings": 12,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **SIZES,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))


def siglip():
    text = {
        "vocab_size": 50,
        "max_position_embeddings": 12,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **SIZES,
    }
    return SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))


def vision_text():
    vision = ViTModel(ViTConfig(num_channels=1, **VISION))
    text = BertModel(BertConfig(vocab_size=50, max_position_embeddings=12, **SIZES))
    return VisionTextDualEncoderModel(vision_model=vision, text_model=text)


def function_model():
    layer = torch.nn.Linear(64, 8)

    def patches(images):
        blocks = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)  # (N, 1, h, w, 64)
        return layer(blocks[:, 0].flatten(1, 2)), blocks.shape[2:4]

    return FunctionModel(
        lambda images: patches(images)[0].mean(1),
        lambda texts: torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(len(t))) for t in texts]),
        encode_patches=patches,
    )


MODELS = {
    "clip": lambda: HuggingFaceModel(clip(), Processor()),
    "siglip": lambda: HuggingFaceModel(siglip(), Tokenizer(), padding="max_length"),
    "vision_text": lambda: HuggingFaceModel(vision_text(), Tokenizer()),
    "function": function_model,
}


def batches(first, number=48, size=13):
    generator = torch.Generator().manual_seed(first)
    labels = (torch.rand(number, 2, generator=generator) < 0.45).float()
    images = torch.rand(number, 1, 32, 32, generator=generator) * 0.5
    images[:, 0, :16, :16] += labels[:, 0, None, None]
    images[:, 0, 16:, 16:] += labels[:, 1, None, None]
    masks = torch.zeros(number, 2, 32, 32)
    masks[:, 0, :16, :16] = labels[:, 0, None, None]
    masks[:, 1, 16:, 16:] = labels[:, 1, None, None]
    for start in range(0, number, size):
        rows = slice(start, start + size)
        count = len(images[rows])
        yield {
            "image": images[rows],
            "label": labels[rows],
            "report": [f"Study {first + start + i}." for i in range(count)],
            "study_id": [f"s{first + start + i}" for i in range(count)],
            "patient_id": [f"p{first + start + i}" for i in range(count)],
            "mask": masks[rows],
        }


@pytest.mark.parametrize("name", MODELS)
def test_every_protocol_takes_the_model(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    test, train, validation = (embed_studies(model, batches(first)) for first in (0, 1000, 2000))
    zero = zero_shot(test, PROMPTS, model, NAMES, validation=validation, bootstrap=BootstrapConfig(n_resamples=20))
    single = zero_shot_single_label(
        test, {n: [n] for n in NAMES}, model, NAMES, per_class=5, bootstrap=BootstrapConfig(n_resamples=20)
    )
    pairs = retrieval(test, bootstrap=BootstrapConfig(n_resamples=20), shuffles=2)
    labels = label_retrieval(
        test,
        NAMES,
        NAMES,
        class_prompts={n: [n] for n in NAMES},
        encode_text=model,
        ks=[5],
        per_class=5,
        queries_per_class=2,
        bootstrap=BootstrapConfig(n_resamples=20),
    )
    probe = linear_probe(
        train, validation, test, NAMES, fractions=[0.5, 1.0], seeds=[0, 1], bootstrap=BootstrapConfig(n_resamples=20)
    )
    for result in (zero, single, pairs, labels, probe, compare(zero, zero, bootstrap=BootstrapConfig(n_resamples=20))):
        json.dumps(result.to_dict(), allow_nan=False)
        assert result.table()
    assert probe.fractions[1.0].macro["auroc"].value > 0.6
    if name != "function":
        loaders = [list(batches(first)) for first in (1000, 2000, 0)]
        tuned = fine_tune(
            model, *loaders, NAMES, epochs=2, learning_rate=1e-3, bootstrap=BootstrapConfig(n_resamples=20)
        )
        assert 0 <= tuned.result.macro["auroc"].value <= 1
    assert (
        evaluate(test, model, class_prompts=PROMPTS, names=NAMES, bootstrap=BootstrapConfig(n_resamples=20))[
            "zero_shot"
        ]
        .macro["auroc"]
        .value
        > 0
    )


@pytest.mark.parametrize("name", MODELS)
def test_patches_serve_grounding_and_segmentation(name):
    model = MODELS[name]()
    patches, grid = model.encode_patches(torch.rand(2, 1, 32, 32))
    assert patches.shape == (2, 16, 8 if name in ("clip", "function") else patches.shape[2])
    assert tuple(grid) == (4, 4)
    maps = dense_features(model)(torch.rand(2, 1, 32, 32))
    assert tuple(maps[-1].shape[2:]) == (4, 4)


def test_the_adapter_gives_what_hugging_face_gives():
    network = clip().eval()
    model = HuggingFaceModel(network, Processor())
    images, texts = torch.rand(3, 1, 40, 40), ["Edema", "no edema"]
    prepared = model.prepare(images)
    assert prepared.shape == (3, 3, 32, 32)
    small = torch.nn.functional.interpolate(images, size=(32, 32), mode="bicubic", antialias=True)[:, 0]
    for channel, (mean, deviation) in enumerate(zip(ImageProcessor.image_mean, ImageProcessor.image_std, strict=True)):
        torch.testing.assert_close(prepared[:, channel], (small - mean) / deviation)
    tokens = Tokenizer()(texts, True, True, 12, "pt")
    expected = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=prepared)
    logits = model.logit_scale * model.encode_image(images) @ model.encode_text(texts).T
    torch.testing.assert_close(logits, expected.logits_per_image)
    # The patches share the class token's way into the joint space.
    states = network.vision_model(pixel_values=prepared).last_hidden_state
    joint = network.visual_projection(network.vision_model.post_layernorm(states[:, 1:]))
    torch.testing.assert_close(model.encode_patches(images)[0], torch.nn.functional.normalize(joint, dim=-1))


def test_modules_among_functions_are_put_into_evaluation_mode():
    dropout = torch.nn.Dropout(0.9)
    model = FunctionModel(torch.nn.Sequential(torch.nn.Flatten(), dropout), lambda texts: torch.ones(len(texts), 1024))
    image = torch.rand(2, 1, 32, 32)
    embeddings = embed_studies(model.train(), [{"image": image}])
    torch.testing.assert_close(embeddings.image, torch.nn.functional.normalize(image.flatten(1), dim=1))
    assert dropout.training


def test_a_model_without_patches_says_so():
    model = FunctionModel(lambda images: images.flatten(1), lambda texts: torch.ones(len(texts), 1024))
    with pytest.raises(TypeError, match="encode_patches"):
        grounding(model, list(batches(0)), names=NAMES, phrases={name: [name] for name in NAMES})


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="model must have get_image_features, as CLIPModel has, got Linear"):
        HuggingFaceModel(torch.nn.Linear(1, 1), Tokenizer())
    with pytest.raises(TypeError, match="processor must be a processor or a tokenizer, got str"):
        HuggingFaceModel(clip(), "name")
    with pytest.raises(TypeError, match="encode_text must be callable, got str"):
        FunctionModel(lambda images: images, "x")
    with pytest.raises(
        ValueError, match=r"images must have shape \(N, 1, H, W\) or \(N, 3, H, W\), got \(1, 2, 8, 8\)"
    ):
        HuggingFaceModel(clip(), Tokenizer()).encode_image(torch.ones(1, 2, 8, 8))
