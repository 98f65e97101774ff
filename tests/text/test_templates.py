"""Sentences of known finding and state, made from templates: every finding, present, absent and uncertain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import numpy as np

from medvl.text import label_report, load_vocabulary

NAMES = load_vocabulary("chexpert14").names
# Noun phrases of each finding, with their number.
NOUNS = {
    "Enlarged Cardiomediastinum": ["mediastinal widening", "widened mediastinum"],
    "Cardiomegaly": ["cardiomegaly", "cardiac enlargement", "enlarged heart"],
    "Lung Opacity": ["opacity", "airspace opacity", "infiltrate", "airspace disease"],
    "Lung Lesion": ["lung nodule", "pulmonary mass", "nodule"],
    "Edema": ["pulmonary edema", "interstitial edema", "edema"],
    "Consolidation": ["consolidation", "lobar consolidation", "airspace consolidation"],
    "Pneumonia": ["pneumonia", "bronchopneumonia", "lung infection"],
    "Atelectasis": ["atelectasis", "subsegmental atelectasis", "lobar collapse"],
    "Pneumothorax": ["pneumothorax", "apical pneumothorax", "tension pneumothorax"],
    "Pleural Effusion": ["pleural effusion", "effusion", "hemothorax"],
    "Pleural Other": ["pleural thickening", "pleural plaque", "apical pleural scarring"],
    "Fracture": ["rib fracture", "clavicle fracture", "compression fracture"],
    "Support Devices": ["endotracheal tube", "chest tube", "pacemaker", "central line"],
}
TEMPLATES = {
    1: [
        "There is {a}.",
        "{A} is present.",
        "{A} is again seen.",
        "Stable {x}.",
        "Findings show {a} on the right.",
        "{A} has increased since the prior study.",
        "Unchanged {x}, as before.",
        "The study demonstrates {a}.",
        "FINDINGS: Redemonstration of {a}.",
        "{A} is noted; clinical correlation is suggested.",
        "{X}: present",
        "{X} persists.",
    ],
    0: [
        "No {x}.",
        "There is no evidence of {x}.",
        "No {x} is seen.",
        "{A} is not identified.",
        "Without {x}.",
        "The chest is negative for {x}.",
        "{A} has resolved.",
        "{X}: none",
        "No sign of {x} on either side.",
        "There isn't {a}.",
        "No definite {x} is demonstrated.",
        "Neither {x} nor any other change is seen.",
    ],
    -1: [
        "Possible {x}.",
        "{A} cannot be excluded.",
        "Findings may represent {x}.",
        "Questionable {x}.",
        "This could be {a}.",
        "Probable {x} at the base.",
        "{A} is possible.",
        "Suspicious for {x}.",
        "It is unclear if there is {a}.",
        "{A} is suspected.",
        "Concern for {x}.",
        "Appearances raise the possibility of {x}.",
    ],
}
# A sentence in front changes nothing.
CONTEXTS = ["", "The trachea is midline. ", "INDICATION: Cough.\nFINDINGS: "]


def sentences() -> Iterator[tuple[str, int, str]]:
    """Finding, state and sentence."""
    for name, nouns in NOUNS.items():
        for state, templates in TEMPLATES.items():
            for noun, template in product(nouns, templates):
                article = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
                text = template.format(a=article, A=article.capitalize(), x=noun, X=noun.capitalize())
                for context in CONTEXTS:
                    yield name, state, context + text


# "No Finding" of reports that call the study normal, that find something, and that leave something open.
NORMALITY = [
    (1, "{}", ["Normal chest.", "No acute cardiopulmonary abnormality.", "Heart size is normal. Lungs are clear."]),
    (None, "Heart size is normal. There is {}.", [noun for nouns in NOUNS.values() for noun in nouns[:1]]),
    (None, "Lungs are clear. Possible {}.", [noun for nouns in NOUNS.values() for noun in nouns[:1]]),
]


def test_sentences_of_templates_have_their_state():
    right, total, wrong = defaultdict(int), defaultdict(int), []
    for name, state, text in sentences():
        states = dict(zip(NAMES, label_report(text).tolist(), strict=True))
        total[name, state] += 1
        others = {other for other, found in states.items() if found == found} - {name, "No Finding"}
        is_right = states[name] == state and not others
        right[name, state] += is_right
        wrong += [] if is_right else [text]
    for place, (state, template, fillers) in enumerate(NORMALITY):
        for filler in fillers:
            if place and filler in NOUNS["Support Devices"]:
                continue  # a device does not count against a normal study
            found = label_report(template.format(filler)).tolist()[NAMES.index("No Finding")]
            total["No Finding", place] += 1
            right["No Finding", place] += found == 1 if state else found != found
    assert len(total) == 3 * len(NAMES) == 42
    accuracies = {cell: right[cell] / count for cell, count in total.items()}
    assert np.mean(list(accuracies.values())) >= 0.99, sorted(wrong, key=len)[:40]
    assert min(accuracies.values()) >= 0.95, {cell: value for cell, value in accuracies.items() if value < 0.95}
