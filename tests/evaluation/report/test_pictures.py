"""The report's pictures: outlines that can be told apart without color, sentences, failures in their order."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from medvl.evaluation import BootstrapConfig, Embeddings, retrieval, sentence_maps, zero_shot
from medvl.evaluation.report.examples import ReportTexts, clearest_cases, failure_cases, report_queries
from medvl.evaluation.report.overlays import WIDTH, overlay
from medvl.evaluation.thumbnails import thumbnail


def pixels(address):
    data = address.removeprefix("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)


def region(size=32):
    mask = np.zeros((size, size), bool)
    mask[8:20, 10:24] = True
    return mask


def test_a_bare_picture_is_itself_larger():
    gray = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (20, 1))
    shown = pixels(overlay(gray))
    assert shown.shape == (WIDTH // 2, WIDTH, 3)
    assert abs(shown[:, :10].mean()) < 12
    assert abs(shown[:, -10:].mean() - 255) < 12


def test_heat_is_brightest_where_the_map_is_highest():
    heat = np.array([[0.0, 0.1], [0.2, 1.0]])
    shown = pixels(overlay(np.full((40, 40), 60, np.uint8), heat)).sum(axis=2)
    middle = WIDTH // 4
    corners = {(y, x): shown[y * middle, x * middle] for y in (1, 3) for x in (1, 3)}
    assert max(corners, key=corners.get) == (3, 3)
    # A flat map has no highest place and must not divide by zero.
    assert np.isfinite(pixels(overlay(np.zeros((8, 8), np.uint8), np.full((2, 2), 0.3)))).all()


def test_outlines_lie_on_the_region_and_differ_by_more_than_colour():
    gray = np.full((32, 32), 90, np.uint8)
    bare = pixels(overlay(gray))
    true = np.abs(pixels(overlay(gray, truth=region())) - bare).max(axis=2) > 40
    predicted = np.abs(pixels(overlay(gray, predicted=region())) - bare).max(axis=2) > 40
    scale = WIDTH / 32
    for marked in (true, predicted):
        rows, columns = np.nonzero(marked)
        assert abs(rows.min() - 8 * scale) < 5
        assert abs(rows.max() - 20 * scale) < 5
        assert abs(columns.min() - 10 * scale) < 5
        assert abs(columns.max() - 24 * scale) < 5
        inner = marked[int(11 * scale) : int(17 * scale), int(13 * scale) : int(21 * scale)]
        assert not inner.any()
    # The dashed line leaves about half of the solid one free.
    assert 0.3 < predicted.sum() / true.sum() < 0.75
    single = np.zeros((256, 256), bool)
    single[100, 100] = True
    assert (np.abs(pixels(overlay(gray, truth=single)) - bare).max(axis=2) > 40).any()


def test_wrong_pictures_are_named():
    with pytest.raises(ValueError, match=r"images must be matrices \(H, W\) of uint8, got float64 \(2, 3\)"):
        overlay(np.zeros((2, 3)))


class Model:
    def encode_patches(self, image):
        return torch.eye(4).expand(len(image), -1, -1), (2, 2)

    def encode_text(self, texts):
        return torch.stack([torch.eye(4)[len(text) % 4] for text in texts])


def test_sentences_that_state_a_finding_are_shown_once_and_others_not():
    report = (
        "FINDINGS: There is a left pneumothorax. No pleural effusion. Possible edema.\n"
        "There is a left pneumothorax. The heart is enlarged. No acute disease."
    )
    shown = sentence_maps(Model(), torch.rand(1, 16, 16), report, study_id="a")
    assert [sentence.removeprefix("FINDINGS: ") for sentence in shown.sentences] == [
        "There is a left pneumothorax.",
        "The heart is enlarged.",
    ]
    assert shown.maps.shape == (2, 2, 2)
    assert shown.maps[1].max() == 1
    assert sentence_maps(Model(), torch.rand(1, 16, 16), "Clear lungs. No effusion.") is None
    said = "There is edema. There is a nodule."
    shown = sentence_maps(Model(), torch.rand(1, 16, 16), said, exclude={"There is edema."})
    assert shown.sentences == ["There is a nodule."]
    assert sentence_maps(Model(), torch.rand(1, 16, 16), "There is edema.", exclude={"There is edema."}) is None


def test_failures_are_the_worst_of_both_kinds_each_image_once():
    # Scores rise with the first coordinate: study 0 is a miss of the worst kind, study 5 a false alarm.
    angles = torch.tensor([0.1, 1.2, 1.0, 0.3, 0.2, 1.4]) / 1.4
    images = torch.stack([angles, 1 - angles], dim=1)
    labels = torch.tensor([[1.0], [1.0], [1.0], [0.0], [0.0], [0.0]])
    thumbnails = {row: np.full((4, 4), row, np.uint8) for row in range(6)}
    embeddings = Embeddings(images, images, labels=labels, texts=list("abcdef"), thumbnails=thumbnails)

    def encode(texts):
        return torch.tensor([[0.0, 1.0] if text.startswith("no") else [1.0, 0.0] for text in texts])

    result = zero_shot(
        embeddings,
        {"Edema": {"present": ["x"], "absent": ["no"]}},
        encode,
        ["Edema"],
        bootstrap=BootstrapConfig(n_resamples=5),
    )
    cases = failure_cases(result, embeddings, None)
    assert [(case["study"], case["missed"], case["share"]) for case in cases] == [
        ("0", True, "100 %"),
        ("5", False, "100 %"),
    ]
    assert failure_cases(result, embeddings, {}) == []
    assert failure_cases(None, embeddings, None) == []
    # Study 1 has the finding and scores high, but study 5 without it scores higher: nothing is ahead.
    assert clearest_cases(result, embeddings, None) == []


def test_the_clearest_cases_have_the_finding_and_are_ahead_of_all_without_it():
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.9], [0.3, 0.85], [0.1, 0.6], [0.2, 0.1]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    images = torch.cat([scores, torch.sqrt(2 - scores.square().sum(dim=1, keepdim=True))], dim=1)
    thumbnails = {row: np.full((4, 4), row, np.uint8) for row in range(5)}
    embeddings = Embeddings(images, images, labels=labels, texts=list("abcde"), thumbnails=thumbnails)
    sides = {name: {"present": [name], "absent": [f"no {name}"]} for name in ("A", "B")}

    def encode(texts):
        rows = {"A": [1.0, 0.0, 0.0], "B": [0.0, 1.0, 0.0], "no A": [-1.0, 0.0, 0.0], "no B": [0.0, -1.0, 0.0]}
        return torch.tensor([rows[text] for text in texts])

    result = zero_shot(embeddings, sides, encode, ["A", "B"], bootstrap=BootstrapConfig(n_resamples=5))
    cases = clearest_cases(result, embeddings, None)
    assert {case["name"]: case["study"] for case in cases} == {"A": "0", "B": "1"}
    # B leads by more standard deviations of those without it.
    assert [case["name"] for case in cases] == ["B", "A"]
    # An image that is shown already leaves its place to the next.
    no_zero = {row: thumbnails[row] for row in (1, 2, 3)}
    assert {case["name"]: case["study"] for case in clearest_cases(result, embeddings, no_zero)} == {"A": "1", "B": "2"}
    assert clearest_cases(result, embeddings, {}) == clearest_cases(None, embeddings, None) == []


def test_a_report_is_shown_once_and_then_named():
    texts = ["Clear lungs.", "Edema. " * 60, "Clear lungs. "]
    embeddings = Embeddings(torch.eye(3), torch.eye(3), texts=texts, study_ids=["a", "b", "c"])
    reports = ReportTexts(embeddings, show_text=True)
    assert [reports.is_shown(row) for row in range(3)] == [False] * 3
    assert reports.show(0) == {"excerpt": "Clear lungs.", "rest": "", "above": "", "anchor": "report-1"}
    assert reports.show(2) == {"excerpt": "", "rest": "", "above": "a", "anchor": "report-1"}
    long = reports.show(1)
    assert (long["excerpt"] + long["rest"], long["anchor"]) == (texts[1].strip(), "report-2")
    assert 240 < len(long["excerpt"]) <= 260
    assert [reports.is_shown(row) for row in range(3)] == [True] * 3
    hard = Embeddings(
        torch.eye(1), torch.eye(1), texts=["FINDINGS\n\nThe heart\nis normal.\n- No\n  effusion\n- Clear"]
    )
    assert (
        ReportTexts(hard, show_text=True).show(0)["excerpt"]
        == "FINDINGS\n\nThe heart is normal.\n- No\n  effusion\n- Clear"
    )
    hidden = ReportTexts(embeddings, show_text=False)
    assert [hidden.show(0)["excerpt"] for _ in range(2)] == ["Report of study a"] * 2
    assert not hidden.is_shown(0)


def test_nearest_images_mark_right_and_wrong_as_ranks_have_them():
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(12, 6, generator=generator)
    image = text + 0.8 * torch.randn(12, 6, generator=generator)
    thumbnails = {row: np.full((4, 4), row, np.uint8) for row in range(12)}
    texts = [f"report {i}" for i in range(12)]
    embeddings = Embeddings(image, text, texts=texts, thumbnails=thumbnails)
    result = retrieval(embeddings, ks=[1], bootstrap=BootstrapConfig(n_resamples=5))
    cases = report_queries(result, embeddings, None, ReportTexts(embeddings, show_text=True))
    assert [case["rank"] for case in cases] == sorted(case["rank"] for case in cases)
    for case in cases:
        right = [place for place, hit in enumerate(case["hits"], start=1) if hit["right"]]
        assert right == ([case["rank"]] if case["rank"] <= 4 else [])
    hidden = report_queries(result, embeddings, None, ReportTexts(embeddings, show_text=False))
    assert all(case["report"]["excerpt"].startswith("Report of study") for case in hidden)
    # Reports that stand on the page already are not shown again.
    reports = ReportTexts(embeddings, show_text=True)
    for row in range(11):
        reports.show(row)
    assert [case["report"]["excerpt"] for case in report_queries(result, embeddings, None, reports)] == ["report 11"]
    assert report_queries(result, embeddings, None, reports) == []


def test_a_volume_is_seen_from_the_feet():
    """Bright on the patient's right (greatest x) and dim at the front (greatest y) of the middle slice."""
    volume = torch.zeros(1, 8, 6, 5)
    volume[:, -1, :, 2] = 1.0
    volume[:, :-1, -1, 2] = 0.5
    picture = thumbnail(volume)
    assert picture.shape == (6, 8)
    assert (picture[:, 0] == 255).all()
    assert (picture[0, 1:] == 128).all()
    assert not picture[1:, 1:].any()
