"""The recipes that learn from labels, on sources of every kind, by the command and by MONAI's own runner."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.bundle import run as run_bundle
from PIL import Image
from safetensors.numpy import load_file

from medvl.data import load_sources
from medvl.workflows import RecipeWorkflow, TrainedRun, config_files, train

TEXTS = [
    "Large left pneumothorax.",
    "No pneumothorax. The heart is enlarged.",
    "Edema is seen. No effusion.",
    "Clear lungs.",
]
FINDINGS = ["Pneumothorax", "Cardiomegaly", "Edema", "No Finding"]
SMALL = {
    "epochs": 2,
    "image_size": 32,
    "batch_size": 8,
    "embed_dim": 8,
    "vocab_size": 300,
    "max_length": 24,
    "device": "cpu",
    "progress": False,
    "network_def#image_encoder": "resnet10",
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8
    },
}  # fmt: skip
OWN = {"medclip": {"num_texts": 12}, "umcl": {"num_prompt_tokens": 2}, "medvl": {"texts_per_study": 2}}


def write_image(path, kind, number):
    pixels = np.random.default_rng(number).integers(0, 60, (16, 16), dtype=np.uint8)
    pixels[8 * (kind // 2) :, 8 * (kind % 2) :][:7, :7] += 150
    Image.fromarray(pixels).save(path)


@pytest.fixture
def sources(tmp_path):
    """Three tables: 24 images with a label, 12 with a report, 40 reports alone; equal ids in all of them."""
    rows = {"labeled": ["image,study_id,finding"], "paired": ["image,study_id,report"], "texts": ["study_id,report"]}
    for i in range(24):
        write_image(tmp_path / f"a{i}.png", i % 4, i)
        rows["labeled"].append(f"a{i}.png,s{i},{FINDINGS[i % 4]}")
    for i in range(12):
        write_image(tmp_path / f"b{i}.png", i % 4, 100 + i)
        rows["paired"].append(f"b{i}.png,s{i},{TEXTS[i % 4]}")
    rows["texts"] += [f"s{i},{TEXTS[i % 4]}" for i in range(40)]
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    kinds = {"labeled": "image-label", "paired": "image-text", "texts": "text-label"}
    return [f"{kind}={tmp_path / name}.csv" for name, kind in kinds.items()]


def arguments(recipe, sources, output, *more, **settings):
    line = ["train", recipe, "--output", output, "--label-column", "finding", *more]
    line += [part for source in sources for part in ("--source", source)]
    for key, value in {**SMALL, **OWN[recipe], **settings}.items():
        line += ["--set", f"{key}={json.dumps(value)}"]
    return line


@pytest.mark.parametrize("recipe", OWN)
def test_both_roads_give_the_same_numbers(medvl, sources, tmp_path, recipe):
    code, _, err = medvl(*arguments(recipe, sources, tmp_path / "command"))
    assert code == 0, err
    run_bundle(
        config_file=[str(path) for path in config_files(recipe)],
        sources=sources,
        columns={"label_column": "finding"},
        output=str(tmp_path / "bundle"),
        **SMALL,
        **OWN[recipe],
    )
    weights = [load_file(tmp_path / road / "model" / "model.safetensors") for road in ("command", "bundle")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    lines = [
        [json.loads(line) for line in (tmp_path / road / "metrics.jsonl").read_text().splitlines()]
        for road in ("command", "bundle")
    ]
    for first, second in zip(*lines, strict=True):
        assert {k: v for k, v in first.items() if k != "seconds"} == {k: v for k, v in second.items() if k != "seconds"}
    assert len(lines[0]) == 2

    run = TrainedRun(tmp_path / "command")
    assert run.environment["label_policy"] == {"_target_": "medvl.transforms.LabelPolicy"}
    assert len(run.environment["tables_sha256"]) == 3
    splits = {split: {s["study_id"] for s in run.studies(split=split).studies} for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 36
    trained_on = load_sources(sources, columns={"label_column": "finding"})
    assert splits["test"] == {s["study_id"] for s in trained_on.subset("test").studies if "image" in s}
    code, out, err = medvl("evaluate", tmp_path / "command", "--split", "all", "--output", tmp_path / "evaluation")
    assert code == 0, err
    assert "Pneumothorax" in out


@pytest.mark.parametrize("recipe", OWN)
def test_killed_and_resumed_ends_with_the_same_weights(sources, tmp_path, killed_at, recipe):
    settings = {**SMALL, **OWN[recipe], "sources": sources, "columns": {"label_column": "finding"}, "epochs": 3}
    whole = train(recipe, {**settings, "output": str(tmp_path / "whole")})
    settings |= {"output": str(tmp_path / "broken"), "resume": True}
    steps = [json.loads(line)["iteration"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for iteration in (steps[0] + 2, steps[1] + 1):  # in the second epoch and, resumed, in the third
        with killed_at(iteration):
            train(recipe, settings)
    assert not (tmp_path / "broken" / "model").exists()
    broken = train(recipe, settings)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, broken))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    lines = [json.loads(line) for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == steps


def test_prompt_tokens_of_umcl_are_learned_and_used(medvl, sources, tmp_path):
    for rate in (0.0, 0.01):
        code, _, err = medvl(*arguments("umcl", sources, tmp_path / str(rate), learning_rate=rate, epochs=1))
        assert code == 0, err
    still, learned = (TrainedRun(tmp_path / str(rate)).model for rate in (0.0, 0.01))
    vectors = [model.text_encoder.prompt_tokens().detach().numpy() for model in (still, learned)]
    assert vectors[0].shape == (1, 2, 8)
    assert np.abs(vectors[0] - vectors[1]).min() > 0
    plain, prompted = (encode(["Edema."]) for encode in (learned.encode_text, learned.encode_class_prompts))
    assert not np.allclose(plain.detach(), prompted.detach(), atol=1e-4)


def test_medvl_contrasts_reports_with_their_own_images_and_no_prompt(sources, tmp_path):
    workflow = RecipeWorkflow("medvl")
    settings = {**SMALL, **OWN["medvl"], "sources": sources, "columns": {"label_column": "finding"}, "batch_size": 60}
    workflow.parser.update({**settings, "output": str(tmp_path / "run"), "network_def#image_encoder": None})
    batch = next(iter(workflow.parser.get_parsed_content("train#dataloader")))
    kinds = [str(study_id).partition("/")[0] for study_id in batch["study_id"]]
    assert {"labeled", "paired", "texts"} <= set(kinds)
    paired = batch["image_ids"][:, None] == batch["text_ids"]
    assert paired.any(1).sum() == len({own for own in batch["study_id"] if str(own).startswith("paired")})
    assert paired.sum(1).max() == 2, "two sentences of a report"
    image, targets, _, tokens = workflow.parser.get_parsed_content("prepare_batch")(batch)
    output = workflow.parser.get_parsed_content("network")(image, **tokens)
    assert output["patch_embeds"].shape == (len(image), 16, 8), "cells of 8 pixels"
    loss = workflow.parser.get_parsed_content("loss")
    assert torch.isfinite(loss(output, targets))
    before = dict(loss.terms)
    assert set(before) == {"matching", "pairs", "local"}
    assert all(term > 0 for term in before.values())
    # What is no pair may be anything for the term of the pairs, and is what the others learn from.
    for side, rows in (("image", ~paired.any(1)), ("text", ~paired.any(0))):
        output[f"{side}_embeds"] = output[f"{side}_embeds"].where(~rows[:, None], 1.0)
    loss(output, targets)
    assert torch.equal(before["pairs"], loss.terms["pairs"])
    assert not torch.equal(before["matching"], loss.terms["matching"])


def test_umcl_without_labeled_images_has_no_tokens_that_would_never_learn(sources, tmp_path):
    settings = {**SMALL, **OWN["umcl"], "sources": sources[1:], "batch_size": 36}
    for prompts in (0, 1):
        run = train("umcl", {**settings, "output": str(tmp_path / str(prompts)), "prompts_per_study": prompts})
        assert (TrainedRun(run).model.text_encoder.prompt_embedding is None) == (prompts == 0)


@pytest.mark.parametrize("recipe", OWN)
def test_bad_studies_of_every_source(medvl, sources, tmp_path, recipe):
    train = {name: [] for name in ("labeled", "paired", "texts")}
    for study in load_sources(sources, columns={"label_column": "finding"}).subset("train").studies:
        train[study["source"]].append(study)
    unreadable, nan_image = (tmp_path / study["image"] for study in train["labeled"][:2])
    unreadable.write_bytes(unreadable.read_bytes()[:40])
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(nan_image, format="TIFF")
    table = tmp_path / "texts.csv"
    lines = table.read_text().splitlines()
    empty = train["texts"][0]["row"]
    lines[empty] = lines[empty].split(",")[0] + ",  "
    table.write_text("\n".join(lines) + "\n")
    labeled = tmp_path / "labeled.csv"
    wrong = train["labeled"][2]["row"]
    rows = labeled.read_text().splitlines()
    states = [",".join(["1" if name in row else "0" for name in FINDINGS]) for row in rows[1:]]
    states[wrong - 1] = "1,7,0,0"
    header = rows[0].replace("finding", ",".join(FINDINGS))
    labeled.write_text(
        "\n".join([header, *(f"{row.rsplit(',', 1)[0]},{s}" for row, s in zip(rows[1:], states, strict=True))])
    )

    line = [
        part
        for part in arguments(recipe, sources, tmp_path / "run", epochs=1)
        if part not in ("--label-column", "finding")
    ]
    code, _, err = medvl(*line)
    assert code == 2
    assert (
        f"Error: study 's{wrong - 1}', {FINDINGS[1]}: labeled.csv, row {wrong} (line {wrong + 1}): expected 1 (present)"
        in err
    )
    code, _, err = medvl(*line, "--on-error", "skip")
    assert code == 0, err
    skipped = [json.loads(text) for text in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    ids = {entry["study_id"] for entry in skipped}
    assert ids == {
        f"s{wrong - 1}",
        train["texts"][0]["study_id"].removeprefix("texts/"),
        *(study["study_id"] for study in train["labeled"][:2]),
    }
    assert "4 studies were skipped for an error" in err


def test_recipes_of_pairs_take_no_sources(medvl, sources):
    code, _, err = medvl("train", "convirt", "--source", sources[0])
    assert code == 2
    assert err.strip().splitlines()[-1] == (
        "Error: convirt learns from images paired with their reports, one table given as --data; "
        "--source is for medclip, medvl, mlip and umcl."
    )
    code, _, err = medvl("train", "medclip", "--source", "labels=x.csv")
    assert code == 2
    assert (
        "source must be KIND=LOCATION with KIND one of image-text, image-label, text-label, got 'labels=x.csv'" in err
    )


def test_audit(medvl, sources, tmp_path):
    table = sources[0].partition("=")[2]
    code, out, err = medvl(
        "audit", "--data", table, "--label-column", "finding", "--batch-size", 8, "--output", tmp_path / "o"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "o" / "audit.json").read_text())
    assert found["shares"]["all"] == pytest.approx(5 / 23)
    assert "Of the 56 off-diagonal pairs of a batch of 8" in out
    assert (tmp_path / "o" / "audit.png").is_file()
    code, out, err = medvl("audit", "--source", sources[2], "--batch-size", 80, "--output", tmp_path / "small")
    assert code == 0, err
    assert "The batches are of all 40 studies, as there are fewer than 80 (--batch-size)." in out
    assert "off-diagonal pairs of a batch of 40" in out
