"""Text transforms: sections, sentences, a random sentence, augmentation, in MONAI's pipelines."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import Compose
from monai.utils import set_determinism

from medvl.transforms import (
    ExtractSections,
    ExtractSectionsd,
    LabelReportd,
    RandSentence,
    RandSentenceD,
    RandSentenced,
    RandSentenceDict,
    RandTextAugment,
    RandTextAugmentd,
    SplitSentences,
    SplitSentencesd,
)
from medvl.utils.errors import StudyError

REPORT = "INDICATION: Cough.\nFINDINGS: Small effusion. No edema. Heart is normal.\nIMPRESSION: Effusion."


def test_sections_and_fallbacks():
    assert ExtractSections()(REPORT) == "Small effusion. No edema. Heart is normal.\nEffusion."
    assert ExtractSections("impression")(REPORT) == "Effusion."
    assert ExtractSections(["impression", "findings"], separator=" | ")("FINDINGS: A. IMPRESSION: B.") == "B. | A."
    assert ExtractSections()("IMPRESSION: A.\nADDENDUM: x\nIMPRESSION: B.") == "A.\nB."
    assert ExtractSections()("No header.\n\nLast.") == "No header.\n\nLast."
    assert ExtractSections(fallback="last_paragraph")("No header.\n\nLast.\n") == "Last."
    with pytest.raises(
        ValueError, match=r"^report must have text in one of the sections \['findings', 'impression'\], got \[\]\.$"
    ):
        ExtractSections(fallback="error")("No header.")
    with pytest.raises(ValueError, match=r"^fallback must be one of 'all', 'last_paragraph', 'error', got 'none'\.$"):
        ExtractSections(fallback="none")


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ("Impression", "Effusion."),
        (["FINDINGS"], "Small effusion. No edema. Heart is normal."),
        (["finding"], "Small effusion. No edema. Heart is normal."),
        (["conclusion", "impression"], "Effusion."),
        (["Clinical history", "indications:"], "Cough."),
        (["impression 2"], "None."),
        (["Conclusion 2"], "None."),
        (["impression 2", "impression"], "None.\nEffusion."),
    ],
)
def test_a_section_is_named_as_reports_name_it(sections, text):
    report = REPORT if text == "Effusion." else f"{REPORT}\nIMPRESSION: None."
    assert ExtractSections(sections)(report) == text


@pytest.mark.parametrize(
    ("sections", "shown"),
    [
        (["summery"], "'summery'"),
        ("", "''"),
        (["findings", "lungs"], "'lungs'"),
        (["2"], "'2'"),
        ("Befund", "'Befund'"),
    ],
)
def test_what_is_no_section_is_refused_as_every_report_would_be_kept_whole(sections, shown):
    with pytest.raises(ValueError, match=rf"^sections must hold names of sections \('findings', .*\), got {shown}\.$"):
        ExtractSections(sections)


@pytest.mark.parametrize("sections", [[], ()])
def test_no_section_at_all_is_refused(sections):
    with pytest.raises(ValueError, match=r"^sections must be a list of at least one string, got"):
        ExtractSections(sections)


def test_dictionary_forms_leave_the_input_alone():
    study = {"report": REPORT, "study_id": "s1"}
    out = Compose([ExtractSectionsd(), SplitSentencesd(), LabelReportd()])(study)
    assert study == {"report": REPORT, "study_id": "s1"}
    assert out["sentences"] == ["Small effusion.", "No edema.", "Heart is normal.", "Effusion."]
    assert out["sentence_spans"][0].tolist() == [0, 15]
    assert out["text_label"].shape == (14,)
    assert SplitSentencesd(allow_missing_keys=True)({"x": 1}) == {"x": 1}
    assert SplitSentences()("A b. C d.")[0] == ["A b.", "C d."]


def test_rand_sentence_draws_all_sentences_with_content():
    draw = RandSentence().set_random_state(seed=0)
    report = "FINDINGS:\n1.\nNo effusion.\n___\nHeart is normal."
    drawn = [draw(report) for _ in range(400)]
    assert set(drawn) == {"1.\nNo effusion.", "Heart is normal."}
    counts = [drawn.count(sentence) for sentence in set(drawn)]
    assert min(counts) > 150
    assert draw(["No effusion.", " ", "FINDINGS:"]) == "No effusion."
    assert draw("FINDINGS:") == "FINDINGS:"
    assert RandSentence(min_words=3).set_random_state(seed=1)("No edema. Heart is normal.") == "Heart is normal."
    assert RandSentence(min_words=9)("No edema. Heart is normal.") == "Heart is normal."


@pytest.mark.parametrize("report", ["", "  \n", [], [" "]])
def test_an_empty_report_is_an_error(report):
    with pytest.raises(ValueError, match=r"^report must hold a sentence, got an empty text\.$"):
        RandSentence()(report)
    with pytest.raises(StudyError, match=r"study 's7', report: report must hold a sentence"):
        RandSentenced()({"report": report, "study_id": "s7"})


def test_a_sentence_that_is_not_text_is_named():
    with pytest.raises(TypeError, match=r"^each sentence of report must be a string, got NoneType\.$"):
        RandSentence()(["No edema.", None])
    with pytest.raises(ValueError, match=r"^min_words must be at least 1, got 0\.$"):
        RandSentence(min_words=0)


@pytest.mark.parametrize("report", [None, float("nan"), b"No effusion."])
@pytest.mark.parametrize("transform", [ExtractSectionsd(), SplitSentencesd(), LabelReportd(), RandTextAugmentd(prob=1)])
def test_bad_reports_name_the_study(transform, report):
    with pytest.raises(StudyError, match="study 's7', report: text must be a string, got"):
        transform({"report": report, "study_id": "s7"})


def test_two_keys_would_write_the_same_place():
    with pytest.raises(ValueError, match=r"keys must be a single key.*got \['a', 'b'\]"):
        SplitSentencesd(keys=["a", "b"])


def test_aliases():
    assert RandSentenceD is RandSentenced
    assert RandSentenceDict is RandSentenced


RANDOM = [RandSentenced(), RandTextAugmentd(prob=0.9)]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_seeds_repeat(transform):
    def run():
        transform.set_random_state(seed=5)
        return [transform({"report": REPORT}) for _ in range(10)]

    assert run() == run()
    assert len({str(out) for out in run()}) > 1


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_set_determinism_and_compose_reach_the_inner_transform(transform):
    pipeline = Compose([transform])

    def run():
        set_determinism(seed=3)
        pipeline.set_random_state(seed=3)
        return [pipeline({"report": REPORT}) for _ in range(5)]

    assert run() == run()
    set_determinism(None)


def pipeline():
    return Compose([RandTextAugmentd(prob=0.9), RandSentenced(), LabelReportd(keys="text")]).set_random_state(seed=1)


def test_transforms_pickle_with_their_state():
    transform = pipeline()
    copy = pickle.loads(pickle.dumps(transform))
    assert [copy({"report": REPORT})["text"] for _ in range(5)] == [
        transform({"report": REPORT})["text"] for _ in range(5)
    ]


def test_loaders_with_workers_repeat_and_vary():
    studies = [{"report": REPORT} for _ in range(16)]

    def epoch(workers):
        transform = pipeline()
        loader = DataLoader(Dataset(studies, transform), batch_size=4, num_workers=workers)
        set_determinism(seed=11)
        try:
            return [text for batch in loader for text in batch["text"]]
        finally:
            set_determinism(None)

    assert epoch(2) == epoch(2)
    assert len(set(epoch(2))) > 1
    assert len(set(epoch(0))) > 1


def test_datasets_that_cache(tmp_path):
    transform = Compose([ExtractSectionsd(), SplitSentencesd(), LabelReportd(), RandSentenced(keys="sentences")])
    studies = [{"report": REPORT}]
    cached = CacheDataset(studies, transform, progress=False)
    assert len({cached[0]["text"] for _ in range(50)}) == 4
    stored = PersistentDataset(studies, transform, cache_dir=tmp_path)
    assert len({stored[0]["text"] for _ in range(50)}) == 4


def test_bundle_configs_make_transforms():
    config = {
        "sections": {"_target_": "medvl.transforms.ExtractSectionsd", "keys": "report", "sections": ["impression"]},
        "draw": {"_target_": "medvl.transforms.RandSentenced", "min_words": 2},
        "augment": {"_target_": "medvl.transforms.RandTextAugmentd", "keys": "report", "prob": 0.5},
    }
    parser = ConfigParser(config)
    for key in config:
        parser.get_parsed_content(key)({"report": REPORT})


def test_augment_keeps_probability():
    augment = RandTextAugment(prob=0.5).set_random_state(seed=0)
    same = np.mean([augment(REPORT) == REPORT for _ in range(200)])
    assert 0.4 < same < 0.7
