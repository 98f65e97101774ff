"""Metrics against scikit-learn, torchmetrics and loops, over short last batches and over ranks."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from sklearn.metrics import average_precision_score, roc_auc_score

from medvl.functional import contrast_to_noise_ratio, mean_iou, pointing_game
from medvl.metrics import GroundingMetric, RetrievalMetric, ZeroShotMetric


def embeddings(number=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(number, 6, generator=generator)
    return images, images + torch.randn(number, 6, generator=generator)


def labels_and_scores(number=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, 3, generator=generator) < 0.4).float()
    scores = torch.round(labels + torch.randn(number, 3, generator=generator), decimals=1)
    labels[torch.rand(number, 3, generator=generator) < 0.2] = torch.nan
    labels[torch.rand(number, 3, generator=generator) < 0.2] = -1
    return labels, scores


def naive_recall(queries, candidates, query_ids, candidate_ids, k):
    hits = []
    for q, i in zip(queries, query_ids, strict=True):
        scores = torch.nn.functional.cosine_similarity(q[None], candidates)
        right = candidate_ids == i
        hits.append(int((scores[~right] >= scores[right].max()).sum()) + 1 <= k)
    return sum(hits) / len(hits)


@pytest.mark.parametrize("batch", [1, 5, 23])
@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image", "both"])
def test_retrieval_does_not_depend_on_the_batches_and_equals_a_loop(batch, direction):
    images, texts = embeddings()
    ids = torch.arange(23) // 2
    metric, pairs = RetrievalMetric("recall_at_3", direction), RetrievalMetric("recall_at_3", direction)
    for start in range(0, 23, batch):
        rows = slice(start, start + batch)
        metric(images[rows], texts[rows], image_ids=ids[rows], text_ids=ids[rows])
        pairs(images[rows], texts[rows])
    for found, numbers in ((metric, ids), (pairs, torch.arange(23))):
        forward = naive_recall(images, texts, numbers, numbers, 3)
        backward = naive_recall(texts, images, numbers, numbers, 3)
        expected = {"image_to_text": forward, "text_to_image": backward, "both": (forward + backward) / 2}
        assert found.aggregate().item() == pytest.approx(expected[direction])


def test_retrieval_takes_fewer_texts_than_images_and_resets():
    images, texts = embeddings(6)
    metric = RetrievalMetric("median_rank", "image_to_text")
    metric(images, texts[:4], image_ids=torch.tensor([0, 0, 1, 2, 3, 9]), text_ids=torch.arange(4))
    assert metric.aggregate() >= 1  # the image without a text does not count
    metric.reset()
    metric(torch.eye(4), torch.eye(4))
    assert metric.aggregate() == 1
    metric.reset()
    # A collapsed model comes last, not first.
    metric(torch.ones(4, 2), torch.ones(4, 2))
    assert metric.aggregate() == 4


def test_retrieval_takes_texts_as_ids():
    images, texts = embeddings(5)
    named, numbered = RetrievalMetric("mean_rank"), RetrievalMetric("mean_rank")
    named(images, texts, image_ids=["s1", "s1", "s2", "s3", "s4"], text_ids=["s1", "s2", "s2", "s3", "s4"])
    numbered(images, texts, image_ids=torch.tensor([1, 1, 2, 3, 4]), text_ids=torch.tensor([1, 2, 2, 3, 4]))
    assert named.aggregate() == numbered.aggregate() > 1


def test_retrieval_recall_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    images, texts = embeddings()
    metric = RetrievalMetric("recall_at_5", "image_to_text")
    metric(images, texts)
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
    hits = [functional.retrieval_hit_rate(cosines[i], torch.arange(23) == i, top_k=5) for i in range(23)]
    assert metric.aggregate().item() == pytest.approx(torch.stack(hits).mean().item())


@pytest.mark.parametrize(("name", "reference"), [("auroc", roc_auc_score), ("auprc", average_precision_score)])
@pytest.mark.parametrize("batch", [4, 23])
@pytest.mark.parametrize("uncertain", ["exclude", "present", "absent"])
def test_zero_shot_equals_scikit_learn_on_the_known_labels(name, reference, batch, uncertain):
    labels, scores = labels_and_scores()
    metric = ZeroShotMetric(name, uncertain=uncertain)
    for start in range(0, 23, batch):
        metric(scores[start : start + batch], labels[start : start + batch])
    for column, value in enumerate(metric.aggregate("none").tolist()):
        truth = labels[:, column].clone()
        truth[truth == -1] = {"exclude": torch.nan, "present": 1.0, "absent": 0.0}[uncertain]
        known = ~truth.isnan()
        assert value == pytest.approx(reference(truth[known], scores[known, column]))
    assert metric.aggregate().item() == pytest.approx(metric.aggregate("none").mean().item())


def test_scores_that_differ_in_float64_do_not_tie():
    metric = ZeroShotMetric()
    metric(torch.tensor([[1.0], [1 - 1e-12]], dtype=torch.float64), torch.tensor([[1.0], [0.0]]))
    assert metric.aggregate() == 1
    with pytest.raises(ValueError, match=r"^y_pred must be finite, got 1 NaN or infinite values among 2 cases\.$"):
        metric(torch.tensor([[torch.inf], [1.0]]), torch.ones(2, 1))


def test_zero_shot_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    labels, scores = labels_and_scores()
    targets = (labels == 1).float()
    for name, reference in (("auroc", functional.multilabel_auroc), ("auprc", functional.multilabel_average_precision)):
        metric = ZeroShotMetric(name)
        metric(scores, targets)
        assert metric.aggregate().item() == pytest.approx(
            reference(scores.sigmoid(), targets.long(), num_labels=3).item(), abs=1e-5
        )


def test_one_class_only_is_left_out_with_a_warning():
    metric = ZeroShotMetric()
    metric(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.warns(RuntimeWarning, match=r"^1 of 2 findings have only one class and are left out: columns \[1\]\.$"):
        assert metric.aggregate() == 1
    nothing = ZeroShotMetric()
    nothing(torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.warns(RuntimeWarning, match="1 of 1 findings"):
        assert math.isnan(nothing.aggregate())


@pytest.mark.parametrize("name", ["mean_iou", "pointing_game", "contrast_to_noise_ratio"])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2)])
def test_grounding_is_the_mean_of_its_function_over_batches_and_lists(name, shape):
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(7, 2, *shape, generator=generator)
    masks = torch.rand(7, 2, *shape, generator=generator) < 0.4
    function = {
        "mean_iou": mean_iou,
        "pointing_game": pointing_game,
        "contrast_to_noise_ratio": contrast_to_noise_ratio,
    }
    expected = function[name](maps.flatten(0, 1), masks.flatten(0, 1)).mean()
    whole, lists = GroundingMetric(name), GroundingMetric(name)
    for rows in (slice(0, 4), slice(4, 7)):
        assert whole(maps[rows], masks[rows]).shape == (rows.stop - rows.start, 2)
        lists(list(maps[rows]), list(masks[rows]))
    torch.testing.assert_close(whole.aggregate(), expected)
    torch.testing.assert_close(lists.aggregate(), expected)


@pytest.mark.parametrize("name", ["mean_iou", "pointing_game", "contrast_to_noise_ratio"])
def test_grounding_does_not_warn_where_every_map_has_a_value(name):
    metric = GroundingMetric(name)
    assert metric.metric == name
    metric(torch.tensor([[[[1.0, 2.0, 4.0, 3.0]]]]), torch.tensor([[[[0, 0, 1, 1]]]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.aggregate()


def test_empty_regions_are_left_out_and_empty_predictions_count():
    metric = GroundingMetric("mean_iou")
    metric(torch.zeros(3, 1, 2, 2), torch.tensor([[[[0, 0], [0, 0]]], [[[1, 0], [0, 0]]], [[[1, 1], [1, 1]]]]))
    with pytest.warns(RuntimeWarning, match="1 of 3 heat maps have no region"):
        assert metric.aggregate() == 0


def test_an_infinite_contrast_is_left_out():
    metric = GroundingMetric("contrast_to_noise_ratio")
    maps = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[3.0, 5.0, 0.0, 2.0]]]])
    metric(maps, torch.tensor([[[[1, 1, 0, 0]]]]).expand(2, -1, -1, -1))
    with pytest.warns(
        RuntimeWarning,
        match=r"region \(or no background\), or an infinite contrast, and are left out\.$",
    ):
        assert metric.aggregate().item() == pytest.approx(3 / math.sqrt(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RetrievalMetric("r@0"), "metric must be 'recall_at_K', 'median_rank' or 'mean_rank', got 'r@0'."),
        (lambda: RetrievalMetric("recall_at_0"),
         "metric must be 'recall_at_K', 'median_rank' or 'mean_rank', got 'recall_at_0'."),
        (lambda: RetrievalMetric(direction="up"),
         "direction must be one of 'image_to_text', 'text_to_image', 'both', got 'up'."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 4)),
         "y_pred and y must have shapes (N, D) and (M, D), got (2, 3) and (2, 4)."),
        (lambda: RetrievalMetric()(torch.ones(2, 3, 1), torch.ones(2, 3)),
         "y_pred and y must have shapes (N, D) and (M, D), got (2, 3, 1) and (2, 3)."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 3, 1)),
         "y_pred and y must have shapes (N, D) and (M, D), got (2, 3) and (2, 3, 1)."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 3), image_ids=torch.arange(3), text_ids=torch.arange(2)),
         "image_ids must have shape (2,), one for each row of the embeddings, got (3,)."),
        (lambda: ZeroShotMetric()(torch.ones(2, 1)), "y_pred and y must have the same shape (N, K), got (2, 1) and None."),
        (lambda: ZeroShotMetric()(torch.ones(2, 1), torch.tensor([[1], [2]])), "y must hold 1, 0, -1 or NaN, got 2."),
        (lambda: GroundingMetric()(torch.ones(2, 1, 4, 4)),
         "y_pred and y must have the same shape (N, C, H, W[, D]), got (2, 1, 4, 4) and None."),
        (lambda: GroundingMetric()(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 5)),
         "y_pred and y must have the same shape (N, C, H, W[, D]), got (2, 1, 4, 4) and (2, 1, 4, 5)."),
        (lambda: RetrievalMetric()(torch.ones(2, 3)), "y_pred and y must have shapes (N, D) and (M, D), got (2, 3) and None."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(3, 3)),
         "y_pred and y must have the same number of rows if there are no ids, got 2 and 3."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 3), image_ids=torch.arange(2)),
         "image_ids and text_ids must be given together, got no text_ids."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 3), text_ids=torch.arange(2)),
         "image_ids and text_ids must be given together, got no image_ids."),
        (lambda: RetrievalMetric()(torch.ones(2, 3), torch.ones(2, 3), image_ids=torch.arange(2), text_ids=torch.arange(3)),
         "text_ids must have shape (2,), one for each row of the embeddings, got (3,)."),
        (lambda: ZeroShotMetric()(torch.tensor([[torch.nan], [1.0]]), torch.ones(2, 1)),
         "y_pred must be finite, got 1 NaN or infinite values among 2 cases."),
        (lambda: ZeroShotMetric()(torch.ones(2, 1), torch.ones(2, 3)),
         "y_pred and y must have the same shape (N, K), got (2, 1) and (2, 3)."),
        (lambda: ZeroShotMetric()(torch.ones(2), torch.ones(2)),
         "y_pred and y must have the same shape (N, K), got (2,) and (2,)."),
        (lambda: ZeroShotMetric()(torch.ones(2, 1), torch.full((2, 1), 0.5)), "y must hold 1, 0, -1 or NaN, got 0.5."),
        (lambda: ZeroShotMetric("f1"), "metric must be one of 'auroc', 'auprc', got 'f1'."),
        (lambda: ZeroShotMetric(reduction="sum"), "reduction must be one of 'mean', 'none', got 'sum'."),
        (lambda: ZeroShotMetric(uncertain="?"), "uncertain must be one of 'exclude', 'present', 'absent', got '?'."),
        (lambda: GroundingMetric("dice"),
         "metric must be one of 'mean_iou', 'pointing_game', 'contrast_to_noise_ratio', got 'dice'."),
        (lambda: GroundingMetric()(torch.ones(2, 4, 4), torch.ones(2, 4, 4)),
         "y_pred and y must have the same shape (N, C, H, W[, D]), got (2, 4, 4) and (2, 4, 4)."),
        (lambda: RetrievalMetric().aggregate(), "RetrievalMetric must hold at least one batch, got none."),
        (lambda: ZeroShotMetric().aggregate(), "ZeroShotMetric must hold at least one batch, got none."),
        (lambda: GroundingMetric().aggregate(), "GroundingMetric must hold at least one batch, got none."),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_ids_with_some_batches_only():
    mixed = RetrievalMetric()
    mixed(torch.ones(2, 3), torch.ones(2, 3))
    message = "image_ids and text_ids must be given with every batch or with none, got both kinds of batches."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mixed(torch.ones(2, 3), torch.ones(2, 3), image_ids=torch.arange(2), text_ids=torch.arange(2))


def test_two_processes_agree_with_one(tmp_path):
    worker = Path(__file__).with_name("distributed_worker.py")
    spec = importlib.util.spec_from_file_location("distributed_worker", worker)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = module.figures([slice(None)])
    subprocess.run([sys.executable, str(worker), str(tmp_path)], check=True, timeout=850)
    for rank in (0, 1):
        shared, one_sided = json.loads((tmp_path / f"{rank}.json").read_text())
        assert shared == pytest.approx(expected)
        assert one_sided == pytest.approx(expected)


def test_retrieval_defaults_to_recall_at_10_in_both_directions():
    images, texts = embeddings()
    images = torch.cat([images, images + 1])  # more images than texts, so that the directions differ
    image_ids, text_ids = torch.arange(46) % 23, torch.arange(23)
    metric = RetrievalMetric()
    metric(images, texts, image_ids=image_ids, text_ids=text_ids)
    forward = naive_recall(images, texts, image_ids, text_ids, 10)
    backward = naive_recall(texts, images, text_ids, image_ids, 10)
    assert metric.aggregate().item() == pytest.approx((forward + backward) / 2)


def test_median_and_mean_rank_by_hand():
    # The ranks of the images' texts are 1, 1, 1 and 4.
    images, texts = torch.eye(4), torch.eye(4)
    images[3] = torch.tensor([3.0, 2.0, 1.0, 0.0])
    for name, expected in (("median_rank", 1.0), ("mean_rank", 7 / 4), ("recall_at_4", 1.0), ("recall_at_3", 3 / 4)):
        metric = RetrievalMetric(name, "image_to_text")
        metric(images, texts)
        value = metric.aggregate()
        assert value.item() == pytest.approx(expected)
        assert value.dtype == torch.float64


def test_retrieval_without_ids_pairs_rows_in_batches_of_any_size():
    images, texts = torch.eye(6), torch.eye(6).roll(1, dims=0)
    metric = RetrievalMetric("mean_rank", "image_to_text")
    for rows in (slice(0, 1), slice(1, 3), slice(3, 6)):
        metric(images[rows], texts[rows])
    assert metric.aggregate() == 6  # the own text ties with the other wrong ones


def test_retrieval_takes_lists_with_ids():
    images, texts = embeddings(4)
    ids = ["a", "a", "b", "c"]
    whole, lists = RetrievalMetric("mean_rank"), RetrievalMetric("mean_rank")
    whole(images, texts, image_ids=ids, text_ids=ids)
    lists(list(images), list(texts), image_ids=ids, text_ids=ids)
    assert lists.aggregate() == whole.aggregate()
    with pytest.raises(ValueError, match=r"got \(4, 6\) and None\.$"):
        lists(list(images))


def test_ids_are_put_where_the_embeddings_are():
    embeds = torch.ones(2, 3, device="meta")
    assert [part.device.type for part in RetrievalMetric()(embeds, embeds)] == ["meta"] * 4
    ids = torch.arange(2)
    assert [part.device.type for part in RetrievalMetric()(embeds, embeds, image_ids=ids, text_ids=ids)] == ["meta"] * 4


def test_metrics_collect_plain_tensors():
    half = MetaTensor(torch.tensor([[1.0, 0.5], [0.25, 0.0]], dtype=torch.bfloat16))
    parts = RetrievalMetric()(half, half)
    assert [type(part) for part in parts] == [torch.Tensor] * 4
    assert [part.dtype for part in parts] == [torch.float32, torch.float32, torch.int64, torch.int64]
    parts = ZeroShotMetric()(half, MetaTensor(torch.tensor([[1, 0], [-1, 0]])))
    assert [type(part) for part in parts] == [torch.Tensor] * 2
    assert [part.dtype for part in parts] == [torch.float64, torch.float32]
    maps = MetaTensor(torch.rand(2, 1, 3, 3))
    assert type(GroundingMetric()(maps, maps > 0.5)) is torch.Tensor


@pytest.mark.parametrize("name", ["auroc", "auprc"])
def test_a_finding_needs_one_case_of_each_class(name):
    scores = torch.tensor([[0.9, 0.9, 0.9, 0.9], [0.8, 0.8, 0.8, 0.8], [0.1, 0.1, 0.1, 0.1]])
    labels = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    metric = ZeroShotMetric(name, reduction="none")
    metric(scores, labels)
    message = r"^2 of 4 findings have only one class and are left out: columns \[1, 2\]\.$"
    with pytest.warns(RuntimeWarning, match=message):
        values = metric.aggregate()
    torch.testing.assert_close(
        values, torch.tensor([1.0, torch.nan, torch.nan, 1.0], dtype=torch.float64), equal_nan=True
    )
    with pytest.warns(RuntimeWarning, match=message):
        assert metric.aggregate(reduction="mean").shape == ()


def test_zero_shot_values_are_float64():
    metric = ZeroShotMetric()
    metric(torch.tensor([[0.9], [0.5], [0.4], [0.3]]), torch.tensor([[1.0], [0.0], [1.0], [1.0]]))
    assert metric.aggregate().tolist() == 1 / 3


def test_grounding_has_thresholds_of_its_own():
    maps, masks = torch.tensor([[[[0.9, 0.5, 0.3, 0.1]]]]), torch.tensor([[[[1, 1, 0, 0]]]])
    for thresholds in ([0.2], [0.2, 0.4]):
        metric = GroundingMetric(thresholds=thresholds)
        metric(maps, masks)
        assert metric.aggregate() == mean_iou(maps[0], masks[0], thresholds=tuple(thresholds)).mean()
        default = GroundingMetric()
        default(maps, masks)
        assert metric.aggregate() != default.aggregate()


def test_the_warning_of_grounding_counts_the_maps():
    metric = GroundingMetric("pointing_game")
    metric(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]).reshape(3, 1, 1, 1) * torch.eye(2))
    message = "2 of 3 heat maps have no region (or no background), or an infinite contrast, and are left out."
    with pytest.warns(RuntimeWarning, match=f"^{re.escape(message)}$"):
        metric.aggregate()


@pytest.mark.parametrize("metric", [ZeroShotMetric(), GroundingMetric()])
def test_warnings_point_to_the_caller(metric):
    shape = (2, 1) if isinstance(metric, ZeroShotMetric) else (2, 1, 3, 3)
    metric(torch.ones(shape), torch.zeros(shape))
    with pytest.warns(RuntimeWarning) as caught:
        metric.aggregate()
    assert [warning.filename for warning in caught] == [__file__]
