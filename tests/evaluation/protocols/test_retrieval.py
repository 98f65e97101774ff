"""Pair-match retrieval against a loop, its controls and its traps; and the embedding of studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medvl.evaluation import BootstrapConfig, Embeddings, embed_studies, retrieval


def paired(number, seed=0, noise=1.0, width=32, **columns):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(number, width, generator=generator)
    return Embeddings(image, image + noise * torch.randn(number, width, generator=generator), **columns)


def test_figures_equal_a_loop_over_distinct_reports():
    texts = [f"Report {i % 17}." for i in range(40)]
    studies = [f"s{i // 2}" for i in range(40)]
    generator = torch.Generator().manual_seed(0)
    by_text = torch.randn(17, 8, generator=generator)
    text = by_text[[i % 17 for i in range(40)]]
    image = text + 1.5 * torch.randn(40, 8, generator=generator)
    studies[3] = studies[2] = "shared"
    embeddings = Embeddings(image, text, texts=texts, study_ids=studies)
    result = retrieval(embeddings, bootstrap=BootstrapConfig(n_resamples=10), shuffles=1)
    distinct = list(dict.fromkeys(texts))
    group = connected(texts, studies)
    ranks = []
    for i in range(40):
        scores = [float(embeddings.image[i].double() @ embeddings.text[texts.index(t)].double()) for t in distinct]
        right = [group[i] == group[texts.index(t)] for t in distinct]
        best = max(s for s, r in zip(scores, right, strict=True) if r)
        ranks.append(1 + sum(s >= best - 1e-7 and not r for s, r in zip(scores, right, strict=True)))
    figures = result.image_to_text
    assert figures.ranks.tolist() == ranks
    assert figures.values["recall_at_5"].value == pytest.approx(np.mean(np.array(ranks) <= 5))
    assert figures.values["median_rank"].value == np.median(ranks)
    assert figures.values["mean_rank"].value == pytest.approx(np.mean(ranks))


def connected(texts, studies):
    """Groups of rows joined by an equal text or study, by brute force."""
    group = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for i in range(len(texts)):
            for j in range(len(texts)):
                if group[i] != group[j] and (texts[i] == texts[j] or studies[i] == studies[j]):
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    return group


def test_identical_reports_are_right_answers_up_to_case_and_white_space():
    # Each image lies nearest to the other study's copy of its own report.
    image = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]])
    text = torch.tensor([[0.99, 0.1], [1.0, 0.0], [0.0, 1.0]])
    same = Embeddings(image, text, texts=["No  effusion.", "no effusion.\n", "Effusion."])
    for distinct in (True, False):
        result = retrieval(same, ks=[1], distinct_texts=distinct, bootstrap=BootstrapConfig(n_resamples=10))
        assert result.image_to_text.values["recall_at_1"].value == 1
        assert result.text_to_image.values["recall_at_1"].value == 1
        assert len(result.image_to_text.candidate_rows) == (2 if distinct else 3)
    apart = retrieval(
        Embeddings(image, text, texts=["A.", "B.", "C."]), ks=[1], bootstrap=BootstrapConfig(n_resamples=10)
    )
    assert apart.image_to_text.values["recall_at_1"].value == pytest.approx(1 / 3)


def test_views_of_one_study_are_right_answers():
    image = torch.tensor([[1.0, 0.0], [0.9, 0.3], [0.0, 1.0]])
    text = torch.tensor([[0.9, 0.3], [1.0, 0.0], [0.0, 1.0]])
    result = retrieval(
        Embeddings(image, text, texts=["A.", "B.", "C."], study_ids=["s", "s", "t"]),
        bootstrap=BootstrapConfig(n_resamples=5),
        ks=[1],
    )
    assert result.image_to_text.values["recall_at_1"].value == 1
    assert result.text_to_image.values["recall_at_1"].value == 1


def test_a_collapsed_model_does_not_win_by_ties():
    image = torch.ones(50, 37)
    result = retrieval(
        Embeddings(image, image, texts=[f"r{i}" for i in range(50)]),
        bootstrap=BootstrapConfig(n_resamples=5),
        shuffles=2,
    )
    for direction in result.directions.values():
        assert direction.values["recall_at_10"].value == 0
        assert direction.values["median_rank"].value == 50


@pytest.mark.parametrize("copies", [1, 3])
def test_shuffled_pairs_and_an_untrained_model_score_at_chance(copies):
    number = 600
    texts = [f"report {i // copies}" for i in range(number)]
    trained = paired(number, noise=0.2, texts=texts)
    trained.text = trained.text[torch.arange(number) // copies * copies]
    result = retrieval(trained, shuffles=40, bootstrap=BootstrapConfig(n_resamples=10))
    blind = paired(number, texts=texts)
    blind.text = torch.nn.functional.normalize(
        torch.randn(number // copies, 32, generator=torch.Generator().manual_seed(5)), dim=1
    ).repeat_interleave(copies, dim=0)
    untrained = retrieval(blind, shuffles=0, bootstrap=BootstrapConfig(n_resamples=10))
    for key, direction in result.directions.items():
        assert direction.values["recall_at_10"].value > 5 * direction.chance["recall_at_10"]
        for k in (1, 5, 10):
            name = f"recall_at_{k}"
            chance = direction.chance[name]
            noise = 4 * math.sqrt(chance / number * copies)
            assert direction.shuffled[name].value == pytest.approx(chance, abs=noise / math.sqrt(40) + 1e-9)
            assert untrained.directions[key].values[name].value == pytest.approx(chance, abs=noise)
        assert direction.shuffled["median_rank"].value == pytest.approx(direction.chance["median_rank"], rel=0.05)
        assert direction.shuffled["mean_rank"].value == pytest.approx(direction.chance["mean_rank"], rel=0.05)
        assert math.isnan(untrained.directions[key].shuffled["recall_at_1"].value)


def test_chance_by_hand():
    result = retrieval(paired(4, texts=["a", "a", "b", "c"]), ks=[1, 2], bootstrap=BootstrapConfig(n_resamples=5))
    assert result.image_to_text.chance == {
        "recall_at_1": pytest.approx(1 / 3),
        "recall_at_2": pytest.approx(2 / 3),
        "median_rank": 2.0,
        "mean_rank": pytest.approx(2.0),
    }
    # Two of four reports have two right images among four: 1/2 and 1 - 1/6; the others one: 1/4 and 1/2.
    assert result.text_to_image.chance["recall_at_1"] == pytest.approx((2 * 0.5 + 2 * 0.25) / 4)
    assert result.text_to_image.chance["recall_at_2"] == pytest.approx((2 * 5 / 6 + 2 * 0.5) / 4)
    assert result.text_to_image.chance["mean_rank"] == pytest.approx((2 * 5 / 3 + 2 * 5 / 2) / 4)


def test_key_figures_are_recall_in_both_directions_and_the_median_rank():
    result = retrieval(
        paired(12, texts=[f"r{i}" for i in range(12)]), ks=[1, 5], bootstrap=BootstrapConfig(n_resamples=5)
    )
    recall_of_reports, recall_of_images, rank = result.key_figures()
    assert [figure.name for figure in (recall_of_reports, recall_of_images, rank)] == [
        "Image to report R@5",
        "Report to image R@5",
        "Median rank of the right report",
    ]
    assert recall_of_images.cell.value == result.text_to_image.values["recall_at_5"].value
    assert recall_of_images.cell.chance == result.text_to_image.chance["recall_at_5"]
    assert (rank.cell.value, rank.cell.note) == (result.image_to_text.values["median_rank"].value, "of 12 reports")


def test_figures_under_weights_and_the_table_of_cases_are_those_of_the_ranks():
    embeddings = paired(30, noise=3.0, texts=[f"r{i % 20}" if i % 7 else "" for i in range(30)])
    result = retrieval(embeddings, ks=[1, 5], bootstrap=BootstrapConfig(n_resamples=5), shuffles=0)
    table = result.case_table()
    weights = np.random.default_rng(0).integers(0, 3, size=(4, len(table))).astype(np.float32)
    figures = result.statistics(weights)
    for key in ("image_to_text", "text_to_image"):
        for row in range(4):
            ranks = np.repeat(table[f"{key}_rank"].to_numpy(), weights[row].astype(int))
            assert figures[f"{key}/recall_at_5"][row] == pytest.approx((ranks <= 5).mean())
            assert figures[f"{key}/median_rank"][row] == np.median(ranks)
            assert figures[f"{key}/mean_rank"][row] == pytest.approx(ranks.mean())
    assert table.study_id.tolist() == [str(i) for i in range(30) if i % 7]


def test_studies_without_a_report_take_no_part_and_are_counted():
    embeddings = paired(30, texts=[f"r{i}" if i % 3 else "  " for i in range(30)])
    result = retrieval(embeddings, bootstrap=BootstrapConfig(n_resamples=5))
    assert result.without_text == 10
    assert result.image_to_text.query_rows.tolist() == [i for i in range(30) if i % 3]
    assert result.to_dict()["image_to_text"]["queries"] == 20
    with pytest.raises(ValueError, match="at least one study with a report, got none"):
        retrieval(Embeddings(torch.eye(2), torch.eye(2), texts=["", ""]))


def test_fewer_candidates_than_k_is_one_by_definition_with_a_warning():
    with pytest.warns(RuntimeWarning, match="Recall at 5, 10 is 1 by definition among 3 candidates"):
        result = retrieval(paired(3, texts=["a", "b", "c"]), bootstrap=BootstrapConfig(n_resamples=5))
    assert result.image_to_text.values["recall_at_10"].value == 1
    assert result.image_to_text.chance["recall_at_10"] == 1


def test_intervals_are_by_patient_and_hold_the_value():
    embeddings = paired(
        80, noise=3.0, texts=[f"r{i}" for i in range(80)], patient_ids=[f"p{i // 4}" for i in range(80)]
    )
    first, second = (retrieval(embeddings, seed=4, bootstrap=BootstrapConfig(n_resamples=300)) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    for estimate in first.image_to_text.values.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high
    single = Embeddings(embeddings.image, embeddings.text, texts=embeddings.texts, patient_ids=["p"] * 80)
    assert (
        not retrieval(single, bootstrap=BootstrapConfig(n_resamples=20))
        .image_to_text.values["recall_at_10"]
        .has_interval
    )


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"ks must be depths of at least 1, got \[0\]"):
        retrieval(paired(3), ks=[0])
    with pytest.raises(ValueError, match=r"image embeddings must be finite, got 1 of 2 rows that are not"):
        Embeddings(torch.tensor([[1.0], [torch.nan]]), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"text must have the shape \(2, 2\) of image, .* got \(3, 2\)"):
        Embeddings(torch.eye(2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="patient_ids must have one entry for each of the 2 images, got 1"):
        Embeddings(torch.eye(2), torch.eye(2), patient_ids=["p"])


class CountingModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)
        self.texts = []

    def encode_image(self, images):
        return self.dropout(images.flatten(1))

    def encode_text(self, texts):
        self.texts.append(texts)
        return torch.tensor([[float(len(text)), 1.0, 0.0, 2.0] for text in texts])


def test_studies_are_embedded_in_evaluation_mode_with_their_columns():
    model = CountingModel().train()
    batches = [
        {
            "image": torch.rand(2, 1, 2, 2) + 0.1,
            "report": ["Clear.", "Clear."],
            "label": torch.tensor([[1.0, torch.nan], [0.0, -1.0]]),
            "study_id": ["a", "b"],
            "patient_id": ["p", "p"],
        },
        {
            "image": torch.rand(1, 1, 2, 2) + 0.1,
            "report": [None],
            "label": torch.zeros(1, 2),
            "study_id": ["c"],
            "patient_id": ["q"],
        },
    ]
    steps = []
    embeddings = embed_studies(model, batches, keep_images=2, progress=steps.append)
    expected = torch.cat([batch["image"] for batch in batches]).flatten(1)
    torch.testing.assert_close(embeddings.image, expected / expected.norm(dim=1, keepdim=True))
    assert embeddings.has_text.tolist() == [True, True, False]
    assert torch.equal(embeddings.text[0], embeddings.text[1])
    assert model.texts == [["Clear."]]
    assert model.training
    assert steps == [2, 1]
    assert embeddings.study_ids == ["a", "b", "c"]
    assert embeddings.patient_ids == ["p", "p", "q"]
    assert embeddings.labels.shape == (3, 2)
    assert sorted(embeddings.thumbnails) == [0, 1]
    assert embeddings.thumbnails[0].dtype == np.uint8


def test_chosen_rows_keep_all_their_columns():
    embeddings = paired(4, texts=list("abcd"), study_ids=list("stuv"), patient_ids=list("pqqr"), labels=torch.eye(4))
    embeddings.thumbnails = {2: np.zeros((1, 1), np.uint8)}
    chosen = embeddings.rows([3, 2])
    torch.testing.assert_close(chosen.image, embeddings.image[[3, 2]])
    torch.testing.assert_close(chosen.text, embeddings.text[[3, 2]])
    assert (chosen.texts, chosen.study_ids, chosen.patient_ids) == (["d", "c"], ["v", "u"], ["r", "q"])
    assert torch.equal(chosen.labels, torch.eye(4)[[3, 2]])
    assert list(chosen.thumbnails) == [1]


def test_batches_that_disagree_are_refused():
    image = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match="label must be in every batch or in none, got 2 for 4 images"):
        embed_studies(CountingModel(), [{"image": image, "label": torch.zeros(2, 1)}, {"image": image}])
    with pytest.raises(ValueError, match="at least one batch of studies, got none"):
        embed_studies(CountingModel(), [])
    with pytest.raises(ValueError, match=r"encode_text must give shape \(1, 8\) for 1 texts, got \(1, 4\)"):
        embed_studies(CountingModel(), [{"image": torch.rand(1, 1, 2, 4), "report": ["x"]}])


def test_embeddings_are_saved_with_ids_and_without_text(tmp_path):
    embeddings = paired(3, texts=["secret", "", "b"], labels=torch.zeros(3, 2), patient_ids=["p", "p", "q"])
    path = embeddings.save(tmp_path / "out" / "embeddings.npz")
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive) == {
            "image_embeds", "text_embeds", "study_id", "patient_id", "split", "label", "findings"
        }  # fmt: skip
        np.testing.assert_array_equal(archive["image_embeds"], embeddings.image.numpy())
        assert archive["patient_id"].tolist() == ["p", "p", "q"]
    assert b"secret" not in path.read_bytes()
