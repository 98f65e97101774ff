"""The card of a trained model: written with it, filled by its evaluation, and left alone where people wrote."""

from __future__ import annotations

import json
import logging
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from medvl.workflows import TrainedRun, evaluate_run, train, write_model_card
from medvl.workflows.model_card import END, START, read_front_matter, update_model_card
from medvl.workflows.model_card_facts import count_parameters, loss_names, threshold_note, weights_text

SMALL = {"image_size": 32, "batch_size": 16, "epochs": 1, "embed_dim": 8, "vocab_size": 200, "progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run as training leaves it."""
    output = tmp_path_factory.mktemp("card") / "first"
    return train(
        "convirt", {**SMALL, "data": "synthetic", "synthetic_length": 60, "output": str(output), "num_workers": 0}
    )


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A copy of it that was evaluated in its own folder."""
    run = TrainedRun(shutil.copytree(trained, tmp_path_factory.mktemp("card") / "second"))
    manifest = run.studies()
    evaluate_run(run, manifest, run.loader(manifest), run.path, protocols=["zero-shot", "label-agreement", "grounding"])
    return run.path


@pytest.fixture
def copy(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / "third")


def card_of(run):
    return (run / "model" / "README.md").read_text()


def test_a_new_model_has_a_card_in_the_layout_of_the_hub(trained):
    text = card_of(trained)
    card = ModelCard(text)
    assert card.data.library_name == "medvl"
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert {"medical", "vision-language"} <= set(card.data.tags)
    assert card.data.license is None
    assert card.data.eval_results is None
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    assert titles == [
        "first", "How to load it", "Evaluation", "Data", "Training", "What the model is fed", "Intended use", "Limits"
    ]  # fmt: skip
    assert "Not evaluated yet: `medvl evaluate RUN` writes its figures here." in text
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["data_summary"] in text
    assert f"{environment['studies']['train']} training" in text
    assert "no patient is in them" in text
    assert "| Epochs | 1 |" in text
    assert "| Loss | ImageTextContrastiveLoss |" in text
    parameters = sum(value.numel() for value in TrainedRun(trained).model.state_dict().values())
    assert count_parameters(trained / "model" / "model.safetensors") == parameters
    assert f"| Parameters | {parameters:,} |" in text
    assert "@" not in text
    assert "words of the reports that occur in those of at least 5 patients" in text


def test_the_code_of_the_card_runs(trained):
    (code,) = re.findall(r"```python\n(.*?)```", card_of(trained), re.DOTALL)
    image = next((trained / "data" / "images").iterdir())
    code = code.replace("path/to/this/folder", str(trained / "model")).replace("image.png", str(image))
    names: dict = {}
    exec(compile(code, "card", "exec"), names)
    assert names["image"].shape == (1, 1, 32, 32)
    assert names["image_embeds"].shape == names["text_embeds"].shape == (1, 8)
    assert names["scores"].shape == (1, len(names["prompts"]))


def test_an_evaluation_adds_its_figures_with_intervals(trained, evaluated):
    content, text = json.loads((evaluated / "evaluation.json").read_text()), card_of(evaluated)
    part = text.partition(START)[2].partition(END)[0]
    auroc = content["zero_shot"]["macro"]["auroc"]
    low, high = auroc["interval"]
    untrained = content["untrained"]["zero_shot"]["macro"]["auroc"]["value"]
    row = f"| Zero-shot macro AUROC | {auroc['value']:.3f} | [{low:.3f}, {high:.3f}] | 0.500 | {untrained:.3f} |"
    assert row in part
    assert f"On {content['evaluated_on']['studies']} studies of cases.csv." in part
    assert "the middle 95 % of bootstrap resamples" in part
    for name, finding in content["zero_shot"]["findings"].items():
        assert f"| {name} | {finding['positives']} | {finding['negatives']} | " in part
    grid = " × ".join(map(str, content["grounding"]["settings"]["grid"]))
    assert f"The heat maps of grounding have {grid} patches." in part
    results = ModelCard(text).data.eval_results
    assert {result.metric_name: result.metric_value for result in results}["Zero-shot macro AUROC"] == round(
        auroc["value"], 4
    )
    assert results[0].metric_args == {"interval": [round(low, 4), round(high, 4)]}
    assert (results[0].dataset_name, results[0].task_type) == ("cases.csv", "zero-shot-image-classification")
    # All else is as training left it.
    outside = [
        re.sub(rf"{START}.*{END}", "", card_of(run).partition("\n# ")[2], flags=re.DOTALL)
        for run in (trained, evaluated)
    ]
    assert outside[0] == outside[1]


def test_key_figures_are_in_the_evaluation_with_what_they_are_compared_with(evaluated):
    content = json.loads((evaluated / "evaluation.json").read_text())
    (figure,) = content["zero_shot"]["key_figures"]
    assert (figure["name"], figure["chance"]) == ("Zero-shot macro AUROC", 0.5)
    assert (figure["value"], figure["interval"]) == tuple(content["zero_shot"]["macro"]["auroc"].values())
    assert figure["untrained"]["value"] == content["untrained"]["zero_shot"]["macro"]["auroc"]["value"]


def test_what_people_wrote_stays(copy):
    path = copy / "model" / "README.md"
    text = path.read_text()
    edited = text.replace("library_name: medvl\n", "library_name: medvl\nlicense: mit\nlanguage: de\n")
    edited = edited.replace("## Data\n", "## Our data\n\nFrom our hospital.\n\n## Data\n")
    edited = edited.replace("## Limits", "## What to beware of")
    edited = re.sub(rf"{START}.*{END}", f"{START}\nold\n{END}", edited, flags=re.DOTALL)
    path.write_text(edited)
    assert update_model_card(copy)
    new = path.read_text()
    front = read_front_matter(path)
    assert (front["license"], front["language"]) == ("mit", "de")
    assert new.partition(END)[2] == edited.partition(END)[2]
    assert "From our hospital." in new
    assert "Zero-shot macro AUROC" in new.partition(START)[2]
    assert "\nold\n" not in new


def test_a_card_without_a_place_for_figures_is_left_alone(copy, caplog):
    path = copy / "model" / "README.md"
    for text in (path.read_text().replace(END, ""), "Our own card.\n", f"---\n[\n---\n{START}\n{END}\n"):
        path.write_text(text)
        with caplog.at_level(logging.INFO):
            assert not update_model_card(copy)
        assert path.read_text() == text
        assert "has no place for the figures of the evaluation" in caplog.text
        caplog.clear()
    path.unlink()
    assert not update_model_card(copy)
    assert not path.exists()


def test_figures_of_other_weights_are_not_on_the_card(copy):
    content = json.loads((copy / "evaluation.json").read_text())
    content["evaluated_on"]["model_sha256"] = "0" * 64
    (copy / "evaluation.json").write_text(json.dumps(content))
    (copy / "SHA256SUMS").unlink()  # changed on purpose
    assert update_model_card(copy)
    assert "Not evaluated yet" in card_of(copy)
    assert "model-index" not in read_front_matter(copy / "model" / "README.md")


def test_an_evaluation_elsewhere_leaves_the_card(copy, tmp_path):
    before = card_of(copy)
    run = TrainedRun(copy)
    manifest = run.studies()
    evaluate_run(run, manifest, run.loader(manifest), tmp_path / "out", protocols=["retrieval"], untrained=False)
    assert card_of(copy) == before


def test_the_command_sets_a_license_and_keeps_it(copy, medvl, tmp_path):
    code, out, err = medvl("card", copy, "--license", "cc-by-4.0")
    assert code == 0, err
    assert f"Card: {copy / 'model' / 'README.md'}" in out
    text = card_of(copy)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "cc-by-4.0"
    assert "Zero-shot macro AUROC" in text
    write_model_card(copy)
    assert ModelCard(card_of(copy)).data.license == "cc-by-4.0"
    code, _, err = medvl("card", tmp_path)
    assert code == 2
    assert f"{tmp_path / 'model'} holds no trained model." in err


def test_training_studies_are_said_to_be_such(copy):
    run = TrainedRun(copy)
    manifest = run.studies(split="train")
    evaluate_run(run, manifest, run.loader(manifest), copy, protocols=["retrieval"], untrained=False)
    part = card_of(copy).partition(START)[2].partition(END)[0]
    assert "were in the training split of this run" in part
    assert "Zero-shot" not in part  # the figures of the other studies are kept elsewhere


@pytest.mark.parametrize(
    ("agreement", "note"),
    [
        ({}, ""),
        ({"findings": {"A": {}, "B": {}}, "without_threshold": []}, "maximizes F1 on the validation split."),
        (
            {"findings": {"A": {}, "B": {}}, "without_threshold": ["B"]},
            "validation split; that of B is a probability of 0.5",
        ),
        ({"findings": {"A": {}, "B": {}}, "without_threshold": ["A", "B"]}, "specificity: a probability of 0.5"),
    ],
)
def test_the_source_of_thresholds_is_stated(agreement, note):
    assert note in threshold_note(agreement)
    assert bool(threshold_note(agreement)) == bool(note)


def test_records_are_read_as_far_as_they_are_plain():
    terms = {"a": {"_target_": "medvl.losses.A"}, "b": [{"_target_": "x.B"}, 0.5], "c": "@other", "d": []}
    assert loss_names({"loss": {"_target_": "medvl.losses.CombinedLoss", "losses": terms}}) == ["A", "B"]
    assert loss_names({"loss": {"_target_": "medvl.losses.A"}}) == ["A"]
    assert loss_names({"loss": "@other"}) == loss_names({}) == []
    assert weights_text({"epoch": 7, "chosen_by": "val_loss"}) == "of epoch 7, the best by val_loss"
    assert weights_text({"epoch": "last"}) == "of the last epoch"
    assert weights_text({}) is None


def test_names_arrive_as_text(copy):
    environment = json.loads((copy / "environment.json").read_text())
    environment["data_summary"] = "<script>alert(1)</script> a.csv\n# Heading"
    (copy / "environment.json").write_text(json.dumps(environment))
    content = json.loads((copy / "evaluation.json").read_text())
    content["evaluated_on"] |= {"data": "<img src=x onerror=alert(2)>", "warnings": ["<b>\n- one"]}
    name, finding = "<script>alert(3)</script>\n## F", next(iter(content["zero_shot"]["findings"].values()))
    content["zero_shot"]["findings"] = {name: finding}
    (copy / "evaluation.json").write_text(json.dumps(content))
    (copy / "SHA256SUMS").unlink()
    hostile = copy.rename(copy.with_name("<svg onload=alert(4)>"))
    write_model_card(hostile)
    text = re.sub(r"\A---\n.*?\n---\n", "", card_of(hostile), flags=re.DOTALL)
    assert not re.search(r"<(script|img|svg|b)\\b", text)
    assert "&lt;script>alert(1)&lt;/script> a.csv # Heading" in text
    assert "&lt;svg onload" in text
    assert "\n# Heading" not in text
    assert "\n## F" not in text


def test_a_card_that_is_a_link_leads_to_no_other_file(trained, tmp_path):
    """A folder that somebody else made may not say which file of the reader is written over."""
    run = shutil.copytree(trained, tmp_path / "run")
    own = tmp_path / "own.md"
    for write in (write_model_card, update_model_card):
        own.write_bytes((run / "model" / "README.md").read_bytes())
        before = own.read_bytes()
        (run / "model" / "README.md").unlink()
        (run / "model" / "README.md").symlink_to(own)
        write(run)
        assert own.read_bytes() == before
        assert not (run / "model" / "README.md").is_symlink()
