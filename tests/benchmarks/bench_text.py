"""Benchmark of report language: speed, linear time, sentence ends, agreement with codes, challenge suite, augmentation.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_text.py [--quick] [--data ../shared/data] [--disagreements]

Reads the real reports at ``--data`` (see tests/conftest.py). pysbd and NLTK are measured too if they are installed, medspaCy
with ``--medspacy-python``. Rates are medians of processor time on one thread, in one run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "text")]

import test_findings  # noqa: E402
from test_findings import MESH, challenge, is_right  # noqa: E402
from test_sentences import marked_texts  # noqa: E402

from medvl.data import OpenIReports  # noqa: E402
from medvl.text import augment_text, label_report, load_vocabulary, split_sentences  # noqa: E402

# The baseline: a keyword is a finding unless its sentence has a word of negation.
KEYWORDS = {
    "Cardiomegaly": r"cardiomegaly|enlarged heart|heart is enlarged|cardiac enlargement|enlarged cardiac",
    "Pleural Effusion": r"effusion",
    "Pneumothorax": r"pneumothora",
    "Atelectasis": r"atelecta",
    "Consolidation": r"consolidat",
    "Edema": r"edema",
    "Fracture": r"fracture",
    "Support Devices": r"catheter|tube|pacemaker|picc|\bport\b|stent|device|\blead|\bline\b",
}
SPACY_WORDS = (
    *("cardiomegaly", "effusion", "pneumothorax", "atelectasis", "consolidation", "edema", "fracture", "pneumonia"),
    *("opacity", "nodule", "mass", "catheter", "tube", "pacemaker"),
)
NEGATION = re.compile(r"\b(?:no|not|without|negative|free|clear of|resolved)\b", re.IGNORECASE)


def baseline(report: str) -> dict[str, bool]:
    sentences = [s for s in re.split(r"[.\n]", report) if not NEGATION.search(s)]
    return {name: any(re.search(word, s, re.IGNORECASE) for s in sentences) for name, word in KEYWORDS.items()}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def texts_per_second(
    functions: dict[str, Callable[[str], object]], texts: Sequence[str], rounds: int, few: int
) -> dict[str, float]:
    """The median over rounds of texts per second; other systems are measured on the first ``few`` texts."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            batch = texts if name.startswith("medvl") else texts[:few]
            if name == "medvl":  # what sentences said that were read before is forgotten
                load_vocabulary().readings.clear()
            begin = time.process_time()  # not wall time, since other work runs on the machine
            for text in batch:
                function(text)
            times[name].append(len(batch) / (time.process_time() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def other_splitters() -> dict[str, Callable[[str], list[tuple[int, int]]]]:
    """The other sentence splitters that are installed, as functions from text to spans."""
    found: dict[str, Callable[[str], list[tuple[int, int]]]] = {}
    try:
        import pysbd

        segmenter = pysbd.Segmenter(language="en", clean=False, char_span=True)
        found["pysbd"] = lambda text: [(s.start, s.end) for s in segmenter.segment(text)]
    except ImportError:
        pass
    try:
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        punkt = PunktSentenceTokenizer()
        found["NLTK Punkt"] = lambda text: list(punkt.span_tokenize(text))
    except ImportError:
        pass
    return found


MEDSPACY = """
import json, sys, time, statistics, medspacy
from medspacy.ner import TargetRule
words, texts, rounds = json.load(sys.stdin)
pipeline = medspacy.load()
pipeline.get_pipe("medspacy_target_matcher").add([TargetRule(word, "FINDING") for word in words])
rates = []
for _ in range(rounds):
    begin = time.process_time()
    for text in texts:
        pipeline(text)
    rates.append(len(texts) / (time.process_time() - begin))
print(statistics.median(rates))
"""


def medspacy_rate(python: str, texts: Sequence[str], rounds: int) -> float:
    """Reports per second of medspaCy's own pipeline with a few of our terms, in an environment where it is installed."""
    job = json.dumps([SPACY_WORDS, texts, rounds])
    out = subprocess.run([python, "-c", MEDSPACY], input=job, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def trimmed_ends(text: str, spans: Sequence[tuple[int, int]]) -> set[int]:
    return {start + len(text[start:end].rstrip()) for start, end in spans if text[start:end].strip()}


def boundaries(data: Path) -> None:
    systems = {"medvl": split_sentences, **other_splitters()}
    counts = {name: np.zeros(3) for name in systems}
    for text, ends in marked_texts(data):
        for name, split in systems.items():
            mine = trimmed_ends(text, split(text))
            counts[name] += len(mine & ends), len(mine), len(ends)
    rows = [[name, r / f, r / m, 2 * r / (f + m)] for name, (r, f, m) in counts.items()]
    table(f"Sentence ends marked by hand ({int(counts['medvl'][2])})", ["", "precision", "recall", "F1"], rows)


def speed(texts: list[str], quick: bool, medspacy_python: str | None) -> None:
    rounds, few = (3, 150) if quick else (5, 400)
    sentences = texts_per_second({"medvl": split_sentences, **other_splitters()}, texts, rounds, few)
    labels = texts_per_second({"medvl": label_report, "medvl, known sentences": label_report}, texts, rounds, few)
    if medspacy_python:
        labels["medspaCy"] = medspacy_rate(medspacy_python, texts[:few], rounds)
    for title, measured in (("Sentences", sentences), ("Labels", labels)):
        rows = [[name, round(rate), f"{measured['medvl'] / rate:.1f}"] for name, rate in measured.items()]
        table(f"{title}, reports per second", ["", "per second", "medvl is faster by"], rows)


def linearity(texts: list[str]) -> None:
    """The ratio of the times per character of one long text and of short ones."""
    joined = " ".join(texts)
    rows = []
    for name, function in {"split_sentences": split_sentences, "label_report": label_report}.items():
        ratios = []
        for _ in range(5):
            short = time_per_character(function, [joined[i : i + 1000] for i in range(0, 1_000_000, 1000)])
            ratios.append(time_per_character(function, [joined[:1_000_000]]) / short)
        rows.append([name, f"{statistics.median(ratios):.2f}"])
    table("Time per character, one text of 1 MB relative to texts of 1 kB", ["", "ratio"], rows)


def time_per_character(function: Callable[[str], object], texts: Sequence[str]) -> float:
    begin = time.process_time()
    for text in texts:
        function(text)
    return (time.process_time() - begin) / sum(map(len, texts))


def agreement(studies: list[dict], title: str) -> None:
    labels = np.array([label_report(study["report"]) for study in studies])
    crude = [baseline("\n".join(study["sections"].get(k, "") for k in ("findings", "impression"))) for study in studies]
    rows, mean, last = test_findings.agreement(studies, labels)
    baselines = []
    for row in rows:
        found = np.array([states[row[0]] for states in crude])
        baselines.append(test_findings.scores(found, test_findings.coded(studies, MESH[row[0]]))[2])
        row.append(baselines[-1])
    rows += [["mean", "", "", "", mean, float(np.mean(baselines))], [*last, ""]]
    table(title, ["finding", "coded", "precision", "recall", "F1", "baseline F1"], rows)


def disagreements(studies: list[dict]) -> None:
    """Count the disagreements of codes and states, by finding and kind."""
    labels = np.array([label_report(study["report"]) for study in studies])
    rows = [[count, *kind] for kind, count in test_findings.disagreements(studies, labels).most_common()]
    table("Disagreements on the first half", ["reports", "finding", "human codes", "medvl"], rows)


def suite() -> None:
    total, right, wrong = Counter(), Counter(), []
    for phenomenon, text, expected in challenge():
        total[phenomenon] += 1
        right[phenomenon] += (good := is_right(text, expected))
        if not good:
            wrong.append(text)
    rows = [[name, f"{right[name]} of {total[name]}"] for name in total]
    share = f"{sum(right.values())} of {sum(total.values())} ({100 * sum(right.values()) / sum(total.values()):.1f} %)"
    table("Challenge suite", ["phenomenon", "correct"], [*rows, ["all", share]])
    print("\nwrong:", *wrong, sep="\n- ")


def augmentation(texts: list[str], seeds: int) -> None:
    done = changed = flipped = 0
    for text in texts:
        states = label_report(text)
        for seed in range(seeds):
            new = augment_text(text, random.Random(seed))
            done += 1
            changed += new != text
            flipped += not np.array_equal(label_report(new), states, equal_nan=True)
    table("Augmentation", ["texts", "changed", "with a different label"], [[done, changed, flipped]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and augmentation on a tenth with two seeds")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--disagreements", action="store_true", help="count the kinds of disagreement on the first half"
    )
    parser.add_argument("--medspacy-python", help="the Python of an environment with medspaCy, to measure it too")
    arguments = parser.parse_args()
    studies = list(OpenIReports(arguments.data / "openi-reports.tgz"))
    half = len(studies) // 2
    texts = [study["report"] for study in studies]
    if arguments.disagreements:
        disagreements(studies[:half])
        return
    speed(texts, arguments.quick, arguments.medspacy_python)
    linearity(texts)
    boundaries(arguments.data)
    agreement(studies[:half], f"Agreement, first half (developed on): {half} reports")
    agreement(studies[half:], f"Agreement, second half: {len(studies) - half} reports")
    suite()
    augmentation(texts[:: 10 if arguments.quick else 1], 2 if arguments.quick else 20)


if __name__ == "__main__":
    main()
