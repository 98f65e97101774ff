"""The parts that the contrastive losses are made of: embeddings, ids, labels, weights, targets, tiles, reductions."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch

from medvl import functional, losses
from medvl.functional import contrastive, l2_normalize, sigmoid, tiled
from medvl.functional.batch import Batch, ids_and_labels, image_weights, optional_ids, pair_ids, pair_labels
from medvl.functional.contrastive import read_embeds
from medvl.functional.reduction import reduce_terms, term_weights
from medvl.functional.similarity import log_softmax, softmax
from medvl.functional.targets import (
    ALL,
    agreement_blocks,
    agreement_targets,
    id_targets,
    similarity_targets,
    sum_to_one,
)

NAN, INF = math.nan, math.inf
COMMON = {"reduction": "mean", "gather": False, "tile_size": None}
DEFAULTS = {
    "ImageTextContrastiveLoss": {"image_weight": 0.75, **COMMON, "pool_texts": False, "paired_only": False},
    "SemanticMatchingLoss": {"target_temperature": 1.0, "similarity": "cosine", **COMMON},
    "ImageTextLabelContrastiveLoss": {"label_agreement": "exact", "image_weight": 0.5, **COMMON},
    "SigmoidContrastiveLoss": {"label_agreement": "exact", **COMMON},
    "PatchSentenceMatchingLoss": {
        "alignment": "transport",
        "epsilon": 0.05,
        "attention_temperature": 0.1,
        "image_weight": 0.5,
        **COMMON,
    },
    "SemanticSentenceLoss": {
        "target_temperature": 0.1,
        "similarity": "cosine",
        "alignment": "attention",
        "epsilon": 0.05,
        "attention_temperature": 0.1,
        "present_only": True,
        **COMMON,
    },
    "MaskedPatchLoss": {"patch_size": 16, "normalize": True, "reduction": "mean", "gather": False},
}


def defaults(function) -> dict:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.default is not None} | {
        p.name: None for p in parameters if p.name == "tile_size"
    }


def function_of(name: str):
    """SemanticMatchingLoss -> semantic_matching_loss."""
    return getattr(functional, re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_the_class_and_of_its_function(name):
    assert defaults(getattr(losses, name).__init__) == DEFAULTS[name]
    expected = {key: value for key, value in DEFAULTS[name].items() if key != "patch_size"}
    assert defaults(function_of(name)) == expected
    loss = getattr(losses, name)()
    if name == "MaskedPatchLoss":
        assert {"patch_size": loss.patch_size, **loss.options} == DEFAULTS[name]
    else:
        scale = {"temperature": None} | ({"bias": None} if name == "SigmoidContrastiveLoss" else {})
        scale |= {"agreement_temperature": None} if name == "ImageTextLabelContrastiveLoss" else {}
        assert loss.options == DEFAULTS[name] | scale


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "MaskedPatchLoss"])
def test_without_options_the_defaults_are_used_on_the_plain_path(name, monkeypatch):
    def fail(*_args, **_options):
        raise AssertionError("gathered")

    monkeypatch.setattr(contrastive, "split_batch", fail)
    monkeypatch.setattr(sigmoid, "split_batch", fail)
    generator = torch.Generator().manual_seed(0)
    if "Sentence" in name:
        arguments = [torch.randn(3, 4, 5, generator=generator) for _ in range(2)]
    else:
        arguments = [torch.randn(3, 5, generator=generator) for _ in range(2)]
    if "Semantic" in name:
        arguments += [torch.randn(3, 4, generator=generator) for _ in range(2)]
    assert torch.equal(function_of(name)(*arguments), function_of(name)(*arguments, **DEFAULTS[name]))


def test_defaults_of_the_other_functions():
    assert defaults(functional.sinkhorn) == {
        "epsilon": 0.05,
        "tolerance": 1e-6,
        "max_iterations": 2000,
        "gradient": "exact",
    }
    options = {"alignment": "transport", "epsilon": 0.05, "attention_temperature": 0.1}
    assert defaults(functional.patch_sentence_plan) == options
    assert defaults(functional.patch_sentence_scores) == options | {"tile_size": None}
    assert defaults(functional.semantic_integrity) == {"temperature": 0.1}
    assert defaults(functional.semantic_targets) == {"similarity": "cosine", "temperature": 1.0}
    assert defaults(functional.label_similarity) == {"similarity": "cosine"}
    assert defaults(functional.random_visible_patches) == {"ratio": 0.5}
    assert defaults(functional.insert_prompt_tokens) == {"position": "front"}


EXTREMES = torch.tensor(
    [[3.0, -4.0, 0.0], [0.0, 0.0, 0.0], [1e-38, 0, 0], [1e-39, 0, 0], [1e18, 1e18, 1.0], [1, NAN, 2]]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embeddings_are_normalized_as_by_l2_normalize_bit_for_bit(dtype):
    random = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    vectors = torch.cat([EXTREMES, random]).to(dtype)
    upstream = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for normalize in (l2_normalize, lambda x: read_embeds(x, x.detach())[0], lambda x: read_embeds(x.detach(), x)[1]):
        leaf = vectors.clone().requires_grad_()
        unit = normalize(leaf)
        unit.backward(upstream)
        results.append((unit.detach(), leaf.grad))
    for unit, grad in results[1:]:
        assert torch.equal(unit.nan_to_num(7), results[0][0].nan_to_num(7))
        assert torch.equal(grad.nan_to_num(7), results[0][1].nan_to_num(7))
    unit, grad = results[0]
    torch.testing.assert_close(unit[0], torch.tensor([0.6, -0.8, 0], dtype=dtype))
    assert unit[1].tolist() == grad[1].tolist() == [0, 0, 0]
    if dtype == torch.float32:
        # Below the smallest normal number of float32, about 1.2e-38.
        assert unit[2:4].abs().sum() == grad[2:4].abs().sum() == 0
    else:
        assert unit[2:4, 0].tolist() == pytest.approx([1, 1])


def test_the_shortest_vector_that_is_normalized_has_the_smallest_normal_length():
    tiny = torch.finfo(torch.float32).tiny
    assert l2_normalize(torch.tensor([[tiny], [tiny * 1.5]])).tolist() == [[0.0], [1.0]]
    assert read_embeds(torch.tensor([[tiny], [tiny * 1.5]]), torch.ones(1, 1))[0].tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float16, torch.float64),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings_get_one_dtype(image, text, expected, normalize):
    v, t = read_embeds(torch.full((2, 1), 2.0, dtype=image), torch.full((3, 1), 4.0, dtype=text), normalize=normalize)
    assert v.dtype == t.dtype == expected
    assert (v[0, 0].item(), t[0, 0].item()) == ((1, 1) if normalize else (2, 4))


@pytest.mark.parametrize(
    ("images", "texts", "error", "message"),
    [
        ([1.0], torch.ones(2, 3), TypeError, "image_embeds must be a tensor (N, D), got list."),
        (torch.ones(2, 3), None, TypeError, "text_embeds must be a tensor (M, D), got NoneType."),
        (torch.ones(2, 3), torch.ones(2, 3).int(), TypeError, "text_embeds must be floating point, got torch.int32."),
        (torch.ones(2, 3, 1), torch.ones(2, 1), ValueError, "image_embeds must have shape (N, D), got (2, 3, 1)."),
        (torch.ones(2, 3), torch.ones(2, 4), ValueError,
         "image_embeds and text_embeds must have the same width D, got 3 and 4."),
    ],
)  # fmt: skip
def test_embeddings_that_do_not_fit(images, texts, error, message):
    for normalize in (True, False):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            read_embeds(images, texts, normalize=normalize)


class Subclass(torch.Tensor):
    """Stays what it is in every operation, as MONAI's MetaTensor does."""


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("wrap", [lambda x: x.as_subclass(Subclass), torch.nn.Parameter], ids=["subclass", "parameter"])
def test_embeddings_lose_their_subclass_and_keep_their_gradient(wrap, normalize):
    values = torch.tensor([[3.0, -4.0], [0.5, 0.0]])
    expected = read_embeds(values, values, normalize=normalize)
    leaf = wrap(values.clone()).requires_grad_()
    read = read_embeds(leaf, leaf, normalize=normalize)
    assert all(torch.equal(a, b) for a, b in zip(read, expected, strict=True))
    assert {type(x) for x in read_embeds(leaf.detach(), leaf.detach(), normalize=normalize)} == {torch.Tensor}
    assert {type(x * 1) for x in read} == {torch.Tensor}
    sum(x.sum() for x in read).backward()
    assert leaf.grad is not None


def test_pairs_without_ids_are_numbered(monkeypatch):
    images, texts = pair_ids(None, None, torch.ones(3, 1), torch.ones(3, 1))
    assert images.tolist() == texts.tolist() == [0, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    images, texts = pair_ids(None, None, torch.ones(2, 1), torch.ones(2, 1))
    assert images.tolist() == texts.tolist() == [3 * 2**40, 3 * 2**40 + 1]


def test_ids_and_labels_of_a_batch():
    embeds, labels = (torch.ones(2, 1), torch.ones(3, 1)), (torch.ones(2, 4).long(), torch.ones(3, 4))
    mask = torch.tensor([[True, False, True, True]] * 3)
    ids, read = ids_and_labels((None, None), labels, (None, mask), embeds)
    assert ids is None
    assert (read[0].dtype, read[0].tolist()) == (torch.float32, [[1, 1, 1, 1]] * 2)
    assert read[1].isnan().tolist() == [[False, True, False, False]] * 3
    ids, read = ids_and_labels((["a", "b"], ["a", "b", "c"]), (None, None), (None, None), embeds)
    assert read is None
    assert (ids[0][:, None] == ids[1]).int().tolist() == [[1, 0, 0], [0, 1, 0]]
    ids, read = ids_and_labels(([1, 2], [2, 2, 2]), labels, (None, None), embeds)
    assert (ids[1].tolist(), read[1].shape) == ([2, 2, 2], (3, 4))


def test_labels_need_a_row_for_each_embedding():
    message = "text_labels must have 3 rows, one for each row of the embeddings, got 2."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pair_labels((torch.ones(2, 4), torch.ones(2, 4)), (None, None), (torch.ones(2, 1), torch.ones(3, 1)))


def test_weights_of_images_have_no_gradient_and_the_embeddings_dtype():
    weights = torch.ones(2, requires_grad=True)
    read = image_weights(weights, torch.ones(2, 3, dtype=torch.float64))
    assert (read.requires_grad, read.dtype) == (False, torch.float64)
    assert image_weights(None, torch.ones(2, 3)) is None
    with pytest.raises(TypeError, match=r"^weights must be of type Tensor, got list\.$"):
        image_weights([1.0, 1.0], torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^weights must have shape \(2,\), one for each image, got \(2, 1\)\.$"):
        image_weights(torch.ones(2, 1), torch.ones(2, 3))


def test_a_batch_gives_the_arguments_of_a_loss():
    one, two = torch.ones(1, 1), torch.ones(2, 1)
    batch = Batch((one, two), labels=(one, two), weights=one[0])
    arguments = batch.arguments()
    assert list(arguments) == ["weights", "image_embeds", "text_embeds", "image_labels", "text_labels"]
    assert arguments["text_labels"] is two
    assert list(Batch((one, two)).arguments()) == ["image_embeds", "text_embeds"]


def test_gathering_one_side_leaves_the_other(monkeypatch):
    from medvl.functional import batch as module

    monkeypatch.setattr(module, "all_gather_with_grad", lambda x: torch.cat([x, x]))
    one, two = torch.ones(1, 1), torch.ones(2, 1)
    batch = Batch((one, two), (one[:, 0], two[:, 0]), None, one[0])
    images, texts = batch.gather(side=0), batch.gather(side=1)
    assert [len(x) for x in (*images.embeds, *images.ids, images.weights)] == [2, 2, 2, 2, 2]
    assert [len(x) for x in (*texts.embeds, *texts.ids, texts.weights)] == [1, 4, 1, 4, 1]
    assert images.labels is texts.labels is None
    images = Batch((one, two), labels=(one, two)).gather(side=0)
    assert [len(x) for x in images.labels] == [2, 2]
    assert images.ids is images.weights is None


FOUR = torch.eye(4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("image_text_contrastive_loss", {"temperature": 0}, "temperature must be above 0, got 0."),
        ("image_text_contrastive_loss", {"image_weight": 2}, "image_weight must be between 0 and 1, got 2."),
        ("image_text_contrastive_loss", {"reduction": "max"}, "reduction must be one of 'mean', 'sum', 'none', got 'max'."),
        ("image_text_contrastive_loss", {"image_ids": [1, 2, 3, 4]},
         "image_ids and text_ids must be given together, got no text_ids."),
        ("image_text_contrastive_loss", {"text_ids": [1, 2, 3, 4]},
         "image_ids and text_ids must be given together, got no image_ids."),
        ("image_text_contrastive_loss", {"image_ids": [1, 2, 3, 4], "text_ids": [1]},
         "text_ids must have shape (4,), one for each row of the embeddings, got (1,)."),
        ("image_text_label_contrastive_loss", {"image_weight": -1}, "image_weight must be between 0 and 1, got -1."),
        ("image_text_label_contrastive_loss", {"label_agreement": "any"},
         "label_agreement must be one of 'exact', 'overlap', 'soft', got 'any'."),
        ("image_text_label_contrastive_loss", {"text_labels": FOUR},
         "image_labels and text_labels must be given together, got no image_labels."),
        ("image_text_label_contrastive_loss", {"text_label_mask": FOUR},
         "text_label_mask must come with text_labels, got no text_labels."),
        ("sigmoid_contrastive_loss", {"temperature": 0}, "temperature must be above 0, got 0."),
        ("sigmoid_contrastive_loss", {"reduction": "max"}, "reduction must be one of 'mean', 'sum', 'none', got 'max'."),
        ("sigmoid_contrastive_loss", {"logit_bias": torch.ones(2)},
         "logit_bias must be a single number, got shape (2,)."),
        ("semantic_matching_loss", {"image_labels": FOUR, "text_labels": FOUR, "target_temperature": 0},
         "target_temperature must be above 0, got 0."),
        ("semantic_matching_loss", {"image_labels": FOUR, "text_labels": FOUR, "similarity": "l1"},
         "similarity must be one of 'cosine', 'dot', 'jaccard', got 'l1'."),
        ("semantic_matching_loss", {"image_labels": FOUR, "text_labels": FOUR, "text_label_mask": FOUR[0]},
         "text_label_mask must have shape (4, 4), got (4,)."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tile_size", [None, 2])
def test_the_functions_check_their_arguments_as_the_classes_do(name, options, message, tile_size):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(functional, name)(FOUR, FOUR, **options, tile_size=tile_size)


def test_what_is_read_is_on_the_device_of_the_embeddings():
    embeds = torch.ones(2, 3, device="meta"), torch.ones(2, 3, device="meta")
    labels = torch.ones(2, 4), torch.ones(2, 4)
    pairs = [
        pair_ids(None, None, *embeds),
        optional_ids([1, 2], torch.tensor([2, 1]), *embeds),
        pair_labels(labels, (None, torch.ones(2, 4)), embeds),
        (image_weights(torch.ones(2), embeds[0]), read_embeds(*embeds)[0]),
    ]
    assert {x.device.type for pair in pairs for x in pair} == {"meta"}


def test_sum_to_one_along_each_axis():
    weights = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert sum_to_one(weights, 1).tolist() == [[0.25, 0.75], [0, 0]]
    assert sum_to_one(weights, 0).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_nothing_is_nothing(axis):
    logits = torch.tensor([[0.0, math.log(3)], [-INF, -INF]])
    logits = logits if axis == 1 else logits.T
    expected = torch.tensor([[0.25, 0.75], [0, 0]])
    torch.testing.assert_close(softmax(logits, axis), expected if axis == 1 else expected.T)
    finite = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_softmax(finite, axis), finite.log_softmax(axis))
    torch.testing.assert_close(softmax(finite, axis), finite.softmax(axis))


IDS = torch.tensor([1, 2, 3]), torch.tensor([3, 9])
LABELS = (
    torch.tensor([[1.0, NAN], [NAN, NAN], [1.0, -1.0]]),
    torch.tensor([[1.0, NAN], [NAN, NAN]]),
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("exact", [[1, 0], [0, 0], [0, 0]]),
        ("overlap", [[1, 0], [0, 0], [1, 0]]),
        ("soft", [[1, 0], [0, 0], [math.sqrt(0.5), 0]]),
    ],
)
def test_agreement_of_labels_and_of_ids(kind, expected):
    alone = agreement_blocks(None, LABELS, kind)(ALL, ALL).float()
    torch.testing.assert_close(alone, torch.tensor(expected).float())
    both = agreement_blocks(IDS, LABELS, kind)
    torch.testing.assert_close(both(ALL, ALL).float(), torch.tensor([*expected[:2], [1, 0]]).float())
    torch.testing.assert_close(both(slice(2, 3), slice(0, 1)).float(), torch.ones(1, 1))
    log = agreement_targets(Batch((torch.ones(3, 1), torch.ones(2, 1)), IDS, LABELS), kind)
    assert log.bound == 0
    torch.testing.assert_close(log.block(ALL, ALL).exp(), both(ALL, ALL).float())
    assert log.block(ALL, ALL).dtype == torch.float32
    wide = agreement_targets(Batch((torch.ones(3, 1).double(), torch.ones(2, 1).double()), IDS, LABELS), kind)
    assert wide.block(ALL, ALL).dtype == torch.float64


@pytest.mark.parametrize("kind", ["exact", "overlap", "soft"])
def test_labels_of_which_nothing_is_known_agree_with_none(kind):
    known = torch.tensor([[k // 3, k % 3] for k in range(9)]).float()
    unknown = torch.full((2, 2), NAN)
    for labels in ((known, unknown), (unknown, known), (unknown, unknown)):
        assert not agreement_blocks(None, labels, kind)(ALL, ALL).any()


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_soft_agreement_with_a_temperature(temperature):
    labels = (
        torch.tensor([[1.0, 0.0], [0.0, NAN], [NAN, NAN]]),
        torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]),
    )
    agreement = agreement_blocks(None, labels, "soft", temperature)(ALL, ALL)
    expected = [[1, math.exp(-1 / temperature), math.exp(-2 / temperature), 0], [0] * 4, [0] * 4]
    # What float32 has no normal number for is no agreement: it could not be scaled to a sum of 1.
    expected = [[x if x > 1.2e-38 else 0 for x in row] for row in expected]
    torch.testing.assert_close(agreement, torch.tensor(expected).float(), rtol=1e-5, atol=0)
    batch = Batch((torch.ones(3, 1), torch.ones(4, 1)), labels=labels)
    log = agreement_targets(batch, "soft", temperature)
    torch.testing.assert_close(log.block(ALL, ALL).exp(), agreement, rtol=1e-5, atol=0)
    finite = log.block(ALL, ALL)
    assert finite[finite > -INF].abs().max() <= log.bound
    with_ids = agreement_blocks((torch.tensor([1, 2, 3]), torch.tensor([3, 9, 9, 2])), labels, "soft", temperature)
    assert with_ids(ALL, ALL)[1:].tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_an_agreement_temperature_is_that_of_soft_labels():
    for arguments, message in (
        (("exact", 0.1), "agreement_temperature must be None unless label_agreement is 'soft', got 0.1."),
        (("soft", 0.0), "agreement_temperature must be above 0, got 0.0."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            agreement_blocks(IDS, LABELS, *arguments)


def test_an_agreement_is_never_negative():
    labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    assert agreement_blocks(None, labels, "soft")(ALL, ALL).tolist() == [[0.0]]


@pytest.mark.parametrize("kind", ["exact", "overlap", "soft"])
def test_labels_that_do_not_agree_in_shape(kind):
    for labels, error, message in (
        ((torch.ones(2, 3), torch.ones(2, 4)), ValueError,
         "image_labels and text_labels must have the same width K, got 3 and 4."),
        (([1], torch.ones(2, 4)), TypeError, "image_labels must be a tensor (rows, K), got list."),
        ((torch.ones(2, 4), [1]), TypeError, "text_labels must be a tensor (rows, K), got list."),
    ):  # fmt: skip
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            agreement_blocks(None, labels, kind)


def test_orthogonal_labels_do_not_agree_whatever_the_rounding():
    states = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4)
    agreement = agreement_blocks(None, (states, states), "soft")
    products = states @ states.T
    for block in (agreement(ALL, ALL), torch.cat([agreement(ALL, slice(k, k + 1)) for k in range(81)], dim=1)):
        assert torch.equal(block > 0, products > 0)
    half = torch.tensor([[1.0, 0.0]]), torch.tensor([[1e-5, 1.0]])
    torch.testing.assert_close(agreement_blocks(None, half, "soft")(ALL, ALL), torch.tensor([[1e-5]]))


def test_an_agreement_is_at_most_one():
    labels = torch.full((1, 9), 0.1), torch.full((1, 9), 0.7)
    assert agreement_blocks(None, labels, "soft")(ALL, ALL).item() <= 1


def test_targets_need_ids_or_labels():
    with pytest.raises(ValueError, match=r"^ids or labels must be given, got neither\.$"):
        agreement_blocks(None, None, "exact")
    with pytest.raises(ValueError, match=r"^label_agreement must be one of 'exact', 'overlap', 'soft', got 'any'\.$"):
        agreement_blocks(IDS, None, "any")
    assert id_targets(Batch((torch.ones(3, 1), torch.ones(2, 1)), IDS)).block(ALL, ALL).tolist() == [
        [-INF, -INF],
        [-INF, -INF],
        [0, -INF],
    ]


@pytest.mark.parametrize(("kind", "bound"), [("cosine", 4), ("jaccard", 4), ("dot", INF), (lambda a, b: a @ b.T, INF)])
def test_log_targets_of_similarity(kind, bound):
    batch = Batch(
        (torch.ones(2, 1, dtype=torch.float64), torch.ones(3, 1)), labels=(torch.eye(2) * 2, torch.ones(3, 2))
    )
    targets = similarity_targets(batch, kind, 0.25)
    assert targets.bound == bound
    block = targets.block(slice(1, 2), slice(0, 2))
    s = {"cosine": math.sqrt(0.5), "jaccard": 0.5}.get(kind, 2.0) if isinstance(kind, str) else 2.0
    torch.testing.assert_close(block, torch.full((1, 2), 4 * s, dtype=torch.float64), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"^target_temperature must be above 0, got 0\.$"):
        similarity_targets(batch, kind, 0)


def test_reductions_of_terms():
    terms = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 7.0])
    counts = torch.tensor([True, False, True]), torch.tensor([False, True])
    assert reduce_terms(*terms, *counts, "mean").item() == 6 / 2 + 12
    assert reduce_terms(*terms, *counts, "sum").item() == 18
    assert reduce_terms(*terms, *counts, "none").tolist() == [1, 2, 3, 5, 7]
    one = torch.tensor([True, False, False]), torch.tensor([False, True])
    assert reduce_terms(*terms, *one, "mean").item() == 6 + 12
    nothing = torch.zeros(2), torch.zeros(1), torch.zeros(2).bool(), torch.zeros(1).bool()
    assert reduce_terms(*nothing, "mean").item() == 0
    with pytest.raises(ValueError, match=r"^reduction must be one of 'mean', 'sum', 'none', got 'max'\.$"):
        reduce_terms(*terms, *counts, "max")


def test_weights_of_terms():
    ids = torch.tensor([4, 4, 5, 6]), torch.tensor([5, 4, 8])
    counts = torch.tensor([True, True, True, False]), torch.tensor([True, True, False])
    assert term_weights(None, *ids, *counts) == (1.0, 1.0)
    images, texts = term_weights(torch.tensor([1.0, 3.0, 5.0, 9.0]), *ids, *counts)
    torch.testing.assert_close(images, torch.tensor([1 / 3, 1.0, 5 / 3, 0]))
    torch.testing.assert_close(texts, torch.tensor([10 / 7, 4 / 7, 0]))
    images, texts = term_weights(torch.zeros(4), *ids, *counts)
    assert images.abs().sum() == texts.abs().sum() == 0


def test_choice_of_the_tile_size():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert tiled.choose_tile_size(None, 10**6, 10**6, cpu) is None
    assert tiled.choose_tile_size(7, 1, 1, cpu) == 7
    assert tiled.choose_tile_size("auto", 2**9, 2**9, cpu) is None
    assert tiled.choose_tile_size("auto", 2**9, 2**9 + 1, cpu) == 512
    assert tiled.choose_tile_size("auto", 2**9, 2**9 + 1, gpu) == 4096
    assert tiled.check_tile_size(1) is None


def test_tiles_cover_the_matrix_once():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for images, texts, size in ((5, 7, 3), (1, 1, 4), (4, 6, 2)):
        seen = torch.zeros(images, texts)
        for rows, columns in tiled.tiles(images, texts, size, cpu):
            seen[rows, columns] += 1
            assert columns.stop - columns.start == size
        assert (seen == 1).all()
    assert next(tiled.tiles(10**6, 10**6, 512, cpu)) == (slice(0, 512), slice(0, 512))
    assert next(tiled.tiles(10**6, 10**6, 64, cpu)) == (slice(0, 4096), slice(0, 64))
    assert next(tiled.tiles(10**6, 10**6, 4096, gpu)) == (slice(0, 4096), slice(0, 4096))
    assert next(tiled.tiles(10**6, 10**6, 64, gpu)) == (slice(0, 2**18), slice(0, 64))


def test_up_to_the_bound_one_exponential_serves_rows_and_columns():
    targets = agreement_targets(
        Batch((torch.ones(2, 1), torch.ones(2, 1)), (torch.arange(2), torch.arange(2))), "exact"
    )
    sums = {bound: tiled.SoftTargetSums(targets, torch.ones(1), (2, 2), bound, False) for bound in (40.0, 40.001)}
    assert [s.logits_bounded for s in sums.values()] == [True, False]
    assert sums[40.0].targets_bounded
