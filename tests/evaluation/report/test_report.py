"""The HTML report: whole, self-contained, escaped, and laid out without overflow in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score

from medvl.evaluation import (
    BootstrapConfig,
    Embeddings,
    Evaluation,
    evaluate,
    grounding,
    segmentation,
    sentence_maps,
    write_report,
    zero_shot,
)
from medvl.evaluation.report.pictures import matrix_order

NAMES = ["No Finding", "Enlarged Cardiomediastinum", "Lung $x_1$ <i>Opacity</i>", "Pleural Effusion", "Pleural Other"]
HOSTILE = '<script>alert("text")</script><img src=x onerror=alert(1)>'
VOID = {"meta", "img", "br", "line", "circle", "path", "link", "input", "hr", "wbr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Checks that elements close in order, and collects what a test asks for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.attributes, self.words = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


class Patches:
    """A model whose heat maps rise to the right."""

    def encode_patches(self, image):
        column = torch.arange(3.0).repeat(len(image), 2) / 2
        return torch.stack([column, (1 - column.square()).sqrt()], dim=2), (2, 3)

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0]] * len(texts))


def with_pictures(evaluation):
    """The evaluation with segmentation and grounding, so that the page shows all its sections."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 1, 32, 32, generator=generator)
    masks = images[:, :1] > 0.7
    cases = {
        "image": images,
        "mask": masks,
        "patient_id": list("abcdefgh"),
        "study_id": [f"s{i} & <b>" for i in range(8)],
    }
    grounded = grounding(Patches(), [cases], {NAMES[2]: ["opacity"]}, bootstrap=BootstrapConfig(n_resamples=20))
    train = [{"image": image, "mask": image > 0.7, "patient_id": str(i)} for i, image in enumerate(images.flip(0))]
    segmented = segmentation(
        lambda image: image,
        train,
        [cases],
        names=["Lung <i>"],
        shots=[2, 8],
        seeds=1,
        steps=5,
        width=4,
        bootstrap=BootstrapConfig(n_resamples=20),
    )
    return replace(evaluation, results={**evaluation.results, "segmentation": segmented, "grounding": grounded})


def example(number=70, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, len(NAMES), generator=generator) < 0.3).float()
    labels[:, 0] = (labels[:, 1:].sum(dim=1) == 0).float()
    labels[:, 4] = 0
    axes = torch.randn(len(NAMES), 16, generator=generator)
    text = labels @ axes + torch.randn(number, 16, generator=generator)
    image = text + torch.randn(number, 16, generator=generator)
    texts = [f"FINDINGS: patient-text-{i} {HOSTILE} " + "The heart is not enlarged. " * (i % 20) for i in range(number)]
    pixels = np.random.default_rng(0).integers(0, 255, size=(12, 64, 48), dtype=np.uint8)
    embeddings = Embeddings(
        image,
        text,
        texts=texts,
        labels=labels,
        study_ids=[f"s{i} & <b>" for i in range(number)],
        patient_ids=[f"p{i // 2}" for i in range(number)],
        thumbnails=dict(enumerate(pixels)),
    )
    class_prompts = {name: {"present": [f"{name} is seen"], "absent": [f"no {name}"]} for name in NAMES}

    def encode_text(strings):
        rows = [(-1.0 if s.startswith("no ") else 1.0) * axes[[n in s for n in NAMES].index(True)] for s in strings]
        return torch.stack(rows)

    return embeddings, class_prompts, encode_text


@pytest.fixture(scope="module")
def material():
    embeddings, class_prompts, encode_text = example()
    with pytest.warns(RuntimeWarning, match="Pleural Other"):
        untrained = evaluate(
            example(seed=3)[0],
            encode_text,
            class_prompts=class_prompts,
            names=NAMES,
            bootstrap=BootstrapConfig(n_resamples=50),
        )
    with pytest.warns(RuntimeWarning, match="Pleural Other"):
        evaluation = evaluate(
            embeddings, encode_text, class_prompts=class_prompts, names=NAMES, bootstrap=BootstrapConfig(n_resamples=50)
        )
    return embeddings, replace(with_pictures(evaluation), untrained=with_pictures(untrained))


@pytest.fixture(scope="module")
def report(material, tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"), material)


def write(folder, material, **options):
    embeddings, evaluation = material
    return write_report(
        folder / "run" / "report.html",
        title=f"A run {HOSTILE}",
        evaluation=evaluation,
        embeddings=embeddings,
        names=NAMES,
        sentences=[
            sentence_maps(
                Patches(), torch.linspace(0, 1, 64 * 48).view(1, 64, 48), f"There is edema. {HOSTILE}", study_id="s0"
            )
        ],
        history=[{"epoch": e, "loss": 3 / e, "val_loss": 4 / e, "lr": 1e-4} for e in range(1, 9)],
        facts={"Data": f"table {HOSTILE}", "Studies": {"train": 100, "test": 70}, "Seconds": 12.34567},
        configuration={"recipe": "convirt", "comment": HOSTILE, "optimizer": {"lr": 1e-4}},
        environment={"versions": {"torch": "2"}, "address": "see https://example.org"},
        **options,
    )


def test_the_page_is_well_formed_whole_and_small(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert len(text) < 5e6
    assert not report.with_name("report.html.part").exists()
    anchors = {attributes["id"] for _, attributes in page.attributes if "id" in attributes}
    inside = [address for address in page.addresses if address.startswith("#")]
    assert {address[1:] for address in inside} <= anchors
    sections = [
        "run",
        "zero-shot",
        "retrieval",
        "segmentation",
        "grounding",
        "heat-maps",
        "sentences",
        "segmented",
        "roc",
    ]
    sections += ["calibration", "similarity", "cases", "gallery", "prompts", "configuration"]
    for section in sections:
        assert section in anchors
        assert f"#{section}" in inside
    # Tables first, then pictures: in the list of contents and on the page.
    places = [text.index(f'<section id="{section}"') for section in sections]
    assert places == sorted(places)
    assert [text.index(f'href="#{section}"') for section in sections] == sorted(
        text.index(f'href="#{section}"') for section in sections
    )


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_but_the_script_that_sorts(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    inside = ("#", "data:image/png;base64,", "data:image/jpeg;base64,", "data:text/csv;charset=utf-8,")
    assert all(address.startswith(inside) for address in page.addresses)
    assert not {"link", "iframe", "object", "i"} & set(page.tags)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert page.tags.count("script") == 1
    policies = [given["content"] for tag, given in page.attributes if given.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]
    assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_hostile_text_arrives_as_text(report):
    text = report.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "onerror=alert(1)>" not in text
    words = "".join(Page(text).words)
    assert words.count(HOSTILE) > 10
    assert "Lung $x_1$ <i>Opacity</i>" in words


def test_every_picture_says_what_it_shows(report):
    page = Page(report.read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in page.attributes if tag == "img"]
    # Six in the gallery, an image and a map of the sentence, three of the grounded finding, six segmented cases, and best and
    # worst cases.
    extremes = sum(image["alt"].endswith((", scored low", ", scored high")) for image in images)
    assert (
        sum(re.search("without .*, scored high|with .*, scored low", image["alt"]) is not None for image in images) >= 2
    )
    assert len(images) == 6 + 2 + 3 + 6 + extremes
    assert all(attributes["alt"].strip() for attributes in images)
    plots = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert all("aria-label" in attributes or attributes.get("aria-hidden") == "true" for attributes in plots)
    names = [attributes["aria-label"] for attributes in plots if "aria-label" in attributes]
    assert any(name.startswith("Loss by epoch: training loss from 3 at epoch 1 to 0.375 at epoch 8") for name in names)
    # Four of the five findings have both classes.
    assert sum(name.startswith("Calibration of") for name in names) == 4
    assert sum(name.startswith("ROC curve of") for name in names) == 4
    assert sum(name.startswith("Similarity of 60 images") for name in names) == 1


def test_the_figures_of_the_page_are_those_of_the_results(material, report):
    _, evaluation = material
    words = "".join(Page(report.read_text(encoding="utf-8")).words)
    content = json.loads(json.dumps(evaluation.to_dict()))
    shown = [part["zero_shot"]["macro"]["auroc"] for part in (content, content["untrained"])]
    shown += [content["retrieval"][way]["recall_at_10"] for way in ("image_to_text", "text_to_image")]
    for estimate in shown:
        assert f"{estimate['value']:.3f}" in words
        assert "{:.3f}–{:.3f}".format(*estimate["interval"]) in words
    assert "Left out of zero-shot's macro means, as their cases are of one class: Pleural Other." in words
    assert "train 100, test 70" in words


def test_right_and_wrong_are_marked_by_words_as_ranks_have_them(material, report):
    embeddings, evaluation = material
    text = report.read_text(encoding="utf-8")
    cases = text.split('<article class="card case"')[1:]
    direction = evaluation["retrieval"].image_to_text
    for case in cases:
        rank = int(re.search(r"on rank <b>(\d+)</b>", case).group(1))
        marks = re.findall(r'class="mark">(.) ', case)
        assert len(marks) == 3
        # With one right report a query, the mark stands at the rank.
        assert [place + 1 for place, mark in enumerate(marks) if mark == "✓"] == ([rank] if rank <= 3 else [])
    shown = [int(re.search(r"on rank <b>(\d+)</b>", case).group(1)) for case in cases]
    kept = sorted(direction.ranks[list(embeddings.thumbnails)])
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (kept[0], kept[-1])


def test_report_text_can_be_kept_out(material, report, tmp_path):
    page = write(tmp_path, material, show_text=False).read_text(encoding="utf-8")
    decoded = page + "".join(csv_texts(page))
    assert "patient-text" not in decoded
    assert "There is edema." not in decoded
    assert "Report of study s" in page
    # What the search would find otherwise.
    assert "patient-text" in report.read_text(encoding="utf-8")
    assert "There is edema." in report.read_text(encoding="utf-8")


def csv_texts(page):
    """The CSV files inside a page."""
    addresses = [address for address in Page(page).addresses if address.startswith("data:text/csv")]
    return [unquote(address.partition(",")[2]).removeprefix("\ufeff") for address in addresses]


def test_every_table_and_all_figures_can_be_saved_as_csv(material, report):
    _, evaluation = material
    whole, *single = csv_texts(report.read_text(encoding="utf-8"))
    assert whole == evaluation.to_csv()
    assert single == [table.to_csv() for _, table in evaluation.tables()]
    assert len(single) == 5
    names = [
        given["download"] for _, given in Page(report.read_text(encoding="utf-8")).attributes if "download" in given
    ]
    assert names[0] == "evaluation.csv"
    assert names[1] == "zero-shot.csv"
    # The first cell of a line is what a spreadsheet might run.
    assert all(line[:1] not in "=+-@" or not line for text in single for line in text.splitlines())


def test_no_sentence_of_the_page_stands_there_twice(report):
    text = report.read_text(encoding="utf-8")
    # Apart from the texts of the reports, the prompts and the configuration.
    own = re.sub(
        r'<div class="text.*?</div>|<div class="prompts">.*?</section>|<pre>.*?</pre>', "", text, flags=re.DOTALL
    )
    blocks = re.findall(
        r"<(?:p|dd|li|figcaption|caption|dt|span)[^>]*>(.*?)</(?:p|dd|li|figcaption|caption|dt|span)>", own
    )
    words = [re.sub(r"<[^>]+>", " ", block).replace(HOSTILE, "") for block in blocks]
    sentences = [part.strip() for block in words for part in re.split(r"(?<=[.?]) ", block)]
    sentences = [sentence for sentence in sentences if sentence.endswith((".", "?")) and sentence.count(" ") > 2]
    assert len(sentences) > 40
    assert [one for one in sentences if sentences.count(one) > 1] == []


def test_every_figure_is_explained_once_and_the_grid_of_the_maps_is_stated(report):
    page = report.read_text(encoding="utf-8")
    lines = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page)
    assert [name for name, _ in lines] == [
        "AUROC", "AUPRC", "Macro", "R@k", "Median rank", "Mean rank", "Dice", "Empty left empty",
        "CNR", "mIoU", "Pointing game",
    ]  # fmt: skip
    assert all(line.endswith(".") for _, line in lines)
    assert "The maps are 2 × 3 patches, each of about 16 × 11 pixels of the 32 × 32 image" in page
    assert page.count("2 × 3 patches, interpolated") == 2


def test_thresholds_of_the_curves_are_those_of_validation_or_none(material, tmp_path):
    embeddings, class_prompts, encode_text = example()
    others = example(seed=1)[0]
    others.patient_ids = [f"v{row}" for row in range(len(others))]
    with pytest.warns(RuntimeWarning, match="Pleural Other"):
        chosen = zero_shot(
            embeddings, class_prompts, encode_text, NAMES, validation=others, bootstrap=BootstrapConfig(n_resamples=5)
        )
    page = write_report(tmp_path / "a.html", title="A", evaluation=Evaluation({"zero_shot": chosen})).read_text()
    assert "The dot is the threshold chosen on the validation split." in page
    column, name = 3, NAMES[3]
    predicted = chosen.margins[:, column] >= chosen.settings["thresholds"][name]
    truth = chosen.targets[:, column] == 1
    rates = recall_score(truth, predicted), recall_score(~truth, ~predicted)
    assert (
        "AUROC {:.3f}</small><small>sensitivity {:.2f}</small><small>specificity {:.2f}</small>".format(
            chosen.findings[name].auroc.value, *rates
        )
        in page
    )
    assert "at the mark." in page
    # The evaluation of the fixture has no validation studies.
    none = write(tmp_path, material).read_text(encoding="utf-8")
    assert "No threshold is marked, since there were no validation cases to choose one on." in none
    assert "at the mark." not in none
    assert "<small>sensitivity" not in none


def test_parts_that_are_not_there_are_left_out(tmp_path):
    embeddings = Embeddings(torch.eye(4), torch.eye(4), texts=["a", "b", "c", "d"])
    with pytest.warns(RuntimeWarning, match="by definition"):
        evaluation = evaluate(
            embeddings, lambda texts: torch.ones(len(texts), 4), bootstrap=BootstrapConfig(n_resamples=5)
        )
    page = write_report(tmp_path / "report.html", title="Bare", evaluation=evaluation, embeddings=embeddings)
    text = page.read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "Retrieval" in text
    assert 'id="zero-shot"' not in text
    assert 'id="gallery"' not in text
    empty = write_report(tmp_path / "empty.html", title="Empty", evaluation=Evaluation())
    assert Page(empty.read_text(encoding="utf-8")).open == []


def test_the_same_material_gives_the_same_page(material, report, tmp_path):
    assert write(tmp_path, material).read_bytes() == report.read_bytes()


def test_the_matrix_is_ordered_by_the_rarest_finding():
    labels = torch.tensor([[0.0, 1, 1], [1.0, 0, 0], [0.0, 1, 0], [0.0, torch.nan, -1]])
    embeddings = Embeddings(torch.eye(4), torch.eye(4), texts=["a"] * 4, labels=labels)
    rows, groups = matrix_order(embeddings, ["No Finding", "Edema", "Fracture"], 10)
    assert rows == [2, 0, 1, 3]
    assert groups == ["Edema", "Fracture", "none of these", "none of these"]
    assert matrix_order(embeddings, [], 2) == ([0, 3], ["studies"] * 2)


def test_wrong_pictures_are_named(material, tmp_path):
    with pytest.raises(ValueError, match=r"images must be matrices \(H, W\) of uint8, got float64 \(3, 4\)"):
        write(tmp_path, material, images={0: np.zeros((3, 4))})


def test_importing_the_package_draws_in_no_plotting():
    code = "import medvl.evaluation, sys; print([m for m in ('matplotlib', 'jinja2', 'sklearn', 'monai') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_overflow_or_broken_pictures(report, tmp_path, width):
    # A frame of the width asked for, since a headless window is never narrower than about 500 pixels.
    (tmp_path / "report.html").write_bytes(report.read_bytes())
    (tmp_path / "frame.html").write_text(
        f"""<!DOCTYPE html><body><iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
        <script>window.addEventListener("load", () => {{
          const page = document.querySelector("iframe").contentDocument;
          const over = [...page.querySelectorAll("main *, header *")].filter(e => !e.closest("svg")
            && e.getClientRects().length && e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80));
          const pictures = [...page.images].map(i => [i.complete, i.naturalWidth]);
          const plots = [...page.querySelectorAll("svg.plot")].map(s => s.getBoundingClientRect().width);
          const letters = [...page.querySelectorAll("svg.plot text")].map(t => t.getBoundingClientRect().height);
          const head = [...page.querySelectorAll("#zero-shot th")].find(th => th.textContent === "AUROC");
          const values = () => [...page.querySelectorAll("#zero-shot tbody tr")].map(
            row => JSON.parse(row.cells[head.cellIndex].dataset.value || "null"));
          const before = values(), sorted = [1, 2, 3].map(() => {{ head.querySelector("button").click(); return values(); }});
          const out = document.createElement("pre");
          out.textContent = JSON.stringify({{over, pictures, plots, small: Math.min(...letters),
            buttons: page.querySelectorAll("th button").length, before, high: sorted[0], low: sorted[1], again: sorted[2],
            scroll: page.documentElement.scrollWidth}});
          document.body.append(out);
        }});</script>"""
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=8000", "--window-size=1400,1000", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    found = re.search(r"<pre>(\{.*\})</pre>", dom, re.DOTALL)
    assert found, "the browser ran no script"
    seen = json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["scroll"] <= width
    assert seen["over"] == []
    assert len(seen["pictures"]) > 6 + 2 + 3 + 6
    # The script has made the heads of tables buttons, which sort.
    assert seen["buttons"] > 5
    assert seen["before"] != seen["high"]
    assert seen["high"] == sorted(seen["high"], key=lambda value: (value is None, -(value or 0)))
    assert seen["low"] == sorted(seen["low"], key=lambda value: (value is None, value))
    assert seen["again"] == seen["before"]
    assert all(complete and size > 0 for complete, size in seen["pictures"])
    assert len(seen["plots"]) == 1 + 4 + 4 + 1
    assert min(seen["plots"]) > 120
    assert seen["small"] >= 7.5
