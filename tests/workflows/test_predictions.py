"""Scores and heat maps of new images by a trained run."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medvl.evaluation.thumbnails import thumbnail
from medvl.utils.errors import StudyError
from medvl.workflows import TrainedRun, explain, image_manifest, predict, train
from medvl.workflows.explanations import Explanation, heat_on_image


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    settings = {"synthetic_length": 60, "image_size": 32, "epochs": 1, "batch_size": 16, "embed_dim": 16}
    return train("medvl", {**settings, "progress": False, "output": str(tmp_path_factory.mktemp("trained") / "run")})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 60), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def test_scores_are_those_of_the_prompts(trained, images):
    run = TrainedRun(trained)
    found = predict(run, image_manifest(images), ["Edema", "Scoliosis"], batch_size=2)
    assert found.study_ids == [str(path) for path in images]
    assert found.scores.shape == (3, 2)
    prompts = run.class_prompts(["Edema"])["Edema"]
    prepare, unit = run.image_preprocessing(), torch.nn.functional.normalize
    run.model.eval()
    with torch.inference_mode():
        image = unit(run.model.encode_image(prepare({"image": str(images[1])})["image"][None]), dim=1)
        present, absent = (
            unit(unit(run.model.encode_text(prompts[key]), dim=1).mean(0), dim=0) for key in ("present", "absent")
        )
        logit = (image @ (present - absent)).item() * float(run.model.logit_scale())
    assert found.scores[1, 0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
    assert predict(run, image_manifest(images)).findings == run.finding_names


def test_files_hold_what_was_found(trained, images, tmp_path):
    found = predict(TrainedRun(trained), image_manifest(images), ["Edema"])
    rows = list(csv.DictReader(found.save(tmp_path / "scores.csv").open()))
    assert [row["study_id"] for row in rows] == found.study_ids
    assert [float(row["Edema"]) for row in rows] == pytest.approx(found.scores[:, 0].tolist(), abs=1e-6)
    read = json.loads(found.save(tmp_path / "scores.json").read_text())
    assert [row["scores"]["Edema"] for row in read] == pytest.approx(found.scores[:, 0].tolist(), abs=1e-6)
    with pytest.raises(ValueError, match=r"--output must end in \.csv, \.json, got .*scores\.txt"):
        found.save(tmp_path / "scores.txt")


def test_bad_images_are_named(trained, images, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png does not exist"):
        image_manifest(["nothing.png"])
    with pytest.raises(ValueError, match="images must name each file once"):
        image_manifest([images[0], images[0]])
    with pytest.raises(ValueError, match="images must name at least one file"):
        image_manifest([])
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:100])
    run = TrainedRun(trained)
    with pytest.raises(StudyError, match=r"broken\.png"):
        predict(run, image_manifest([broken, *images]), ["Edema"])
    found = predict(run, image_manifest([broken, *images]), ["Edema"], on_error="skip")
    assert found.study_ids == [str(path) for path in images]
    assert [error.study_id for error in found.skipped] == [str(broken)]


@pytest.mark.parametrize(("cell", "place"), [((0, 2), (3, 19)), ((3, 3), (28, 28)), ((1, 1), (12, 12))])
def test_the_highest_place_is_the_center_of_a_patch(cell, place):
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0][cell] = 1.0
    heat = heat_on_image(maps, (32, 32), (32, 32))[0].numpy()
    found = Explanation(["Edema."], np.zeros((32, 32)), heat, np.zeros(1), (4, 4)).peak(0)
    assert np.abs(np.subtract(found, place)).max() <= 1  # a center lies between pixels


def test_maps_lie_on_the_image_as_it_is(trained, images, tmp_path):
    run = TrainedRun(trained)
    texts = ["The heart is enlarged.", "No effusion."]
    found = explain(run, images[0], texts)
    assert found.picture.shape == (40, 60)
    assert found.heat.shape == (2, 40, 60)
    assert 0 <= found.picture.min() < found.picture.max() <= 1
    assert found.heat[0].max() == found.heat[0][found.peak(0)]
    assert np.abs(found.similarity).max() <= 1
    size = found.save(tmp_path / "map.png").stat().st_size
    assert size > 5000
    with pytest.raises(ValueError, match="texts must hold at least one sentence"):
        explain(run, images[0], [" "])


@pytest.mark.parametrize(("sides", "resized"), [((40, 60), (32, 48)), ((60, 40), (48, 32)), ((30, 30), (48, 48))])
def test_a_cell_goes_back_to_the_pixels_that_it_was_made_of(sides, resized):
    square = torch.zeros(1, 1, 48, 48)
    offset = [(48 - side) // 2 for side in resized]
    row, column = resized[0] // 4, 3 * resized[1] // 4  # of the resized image
    square[0, 0, offset[0] + row, offset[1] + column] = 1
    heat = heat_on_image(square, sides, resized)[0, 0]
    place = np.unravel_index(int(heat.argmax()), heat.shape)
    expected = ((row + 0.5) * sides[0] / resized[0] - 0.5, (column + 0.5) * sides[1] / resized[1] - 0.5)
    assert np.abs(np.array(place) - expected).max() <= 1


def test_a_finding_in_another_spelling_has_the_saved_prompts(trained, images, caplog):
    run = TrainedRun(trained)
    assert (
        run.class_prompts(["pleural_effusion"])["pleural_effusion"]
        == run.class_prompts(["Pleural Effusion"])["Pleural Effusion"]
    )
    found = predict(run, image_manifest(images), ["EDEMA ", "Edema"])
    np.testing.assert_array_equal(found.scores[:, 0], found.scores[:, 1])
    assert not caplog.records
    predict(run, image_manifest(images[:1]), ["Edma"])
    assert [record.getMessage() for record in caplog.records] == [
        "'Edma' is no finding of the training or of the built-in prompts (did you mean 'Edema'?); its prompts are made of its "
        "name."
    ]


def test_a_slice_is_drawn_with_the_right_of_the_patient_on_the_left_and_anterior_at_the_top():
    volume = np.zeros((4, 6, 5), dtype=np.float32)  # RAS: from the left to the right, from posterior to anterior
    volume[3, :, 2], volume[:, 5, 2] = 0.5, 1.0
    heat = np.zeros((1, 4, 6, 5), dtype=np.float32)
    heat[0, 3, 5, 2] = 1.0
    found = Explanation(["Edema."], volume, heat, np.zeros(1), (4, 6, 5))
    drawn = [np.asarray(axis.images[-1].get_array()) for axis in found._figure().axes[:2]]
    assert [image.shape for image in drawn] == [(6, 4), (6, 4)]
    assert drawn[0][0].tolist() == [1.0] * 4
    assert drawn[0][1:, 0].tolist() == [0.5] * 5
    assert np.argwhere(drawn[1]).tolist() == [[0, 0]]
    assert thumbnail(torch.from_numpy(volume)[None])[0].tolist() == [255] * 4, "as the report shows it"


def test_a_run_without_findings_asks_for_them(trained, images, monkeypatch):
    monkeypatch.setattr(TrainedRun, "finding_names", property(lambda self: []))
    run = TrainedRun(trained)
    with pytest.raises(ValueError, match=r"^findings must be given \(--finding of medvl predict\), .*, got none\.$"):
        predict(run, image_manifest(images))


@pytest.mark.parametrize("text", ["$x^{", "a $b$ _c_", r"\frac{", "#1 @2 %3", "<script>alert(1)</script>", "é ü"])
def test_a_sentence_is_drawn_as_it_stands(trained, images, tmp_path, text):
    found = explain(TrainedRun(trained), images[0], [text])
    for suffix in (".svg", ".png"):
        found.save(tmp_path / f"maps{suffix}")
    assert "<script" not in (tmp_path / "maps.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.png", "maps.svg"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(trained, images, tmp_path, monkeypatch):
    found = explain(TrainedRun(trained), images[0], ["Edema."])
    (tmp_path / "maps.png").write_bytes(b"old")
    monkeypatch.setattr("medvl.utils.io.os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match=r"maps\.png"):
        found.save(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes() == b"old"


def test_texts_that_are_no_unicode_are_named(trained, images):
    run = TrainedRun(trained)
    with pytest.raises(ValueError, match=r"^each of texts must be valid Unicode, got 'caf\\udce9'\.$"):
        explain(run, images[0], ["caf\udce9"])
    with pytest.raises(ValueError, match=r"^each of findings must be valid Unicode, got '\\udcff'\.$"):
        predict(run, image_manifest(images), ["\udcff"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessing.json", {"image": 3, "report": [], "problems": {}}),
        ("preprocessing.json", {"image": [1], "report": [], "problems": {}}),
        ("preprocessing.json", {"image": [{"_target_": 1}], "report": [], "problems": {}}),
        ("preprocessing.json", {"image": None, "report": [], "problems": {}}),
        ("preprocessing.json", {"image": None, "report": [], "problems": 7}),
        ("preprocessing.json", {"image": [], "report": [], "problems": {}, "text_unit": ["report"]}),
        ("preprocessing.json", {"image": [], "report": [], "problems": {}, "max_length": "9"}),
        ("prompts.json", {"a": 1}),
        ("prompts.json", {"a": {"present": [], "absent": []}}),
        ("prompts.json", {"a": {"present": [1], "absent": [None]}}),
        ("prompts.json", {"a": {"present": "xy", "absent": "zz"}}),
        ("prompts.json", {"a": {"present": ["x"]}}),
        ("prompts.json", {"a": {"present": ["\ud800"], "absent": ["x"]}}),
    ],
)
def test_content_of_another_kind_in_the_models_folder_is_named(trained, images, tmp_path, name, content):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "model" / "SHA256SUMS").unlink()
    (run / "model" / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"model/{name.replace('.', '[.]')} is damaged: .*\.$"):
        predict(TrainedRun(run), image_manifest(images))


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "x"), ("studies", [1]), ("data_summary", 7), ("tables_sha256", None)]
)
def test_records_of_another_type_are_damage(trained, tmp_path, key, value):
    run = shutil.copytree(trained, tmp_path / "run")
    record = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**record, key: value}))
    (run / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=rf"environment\.json is damaged: {key} is of another type than was saved\.$"):
        TrainedRun(run)


@pytest.mark.parametrize(("key", "value"), [("data", [1]), ("columns", [1]), ("sources", "x"), ("data", None)])
def test_settings_of_another_type_are_damage(trained, tmp_path, key, value):
    run = shutil.copytree(trained, tmp_path / "run")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings, key: value}))
    (run / "SHA256SUMS").unlink()
    said = "names no table; give one" if value is None else f"is damaged: {key} is of another type than was saved"
    with pytest.raises(ValueError, match=rf"config\.yaml {said}"):
        TrainedRun(run).studies()
