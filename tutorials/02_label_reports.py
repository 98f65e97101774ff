"""Label reports with explanations: sections, sentences, findings with their cues, a custom vocabulary, a whole table.

Runs in a few seconds and writes the folder label-reports/. The reports are invented; replace them with your own table.
"""

import csv
import random
from pathlib import Path

from medvl.text import (
    augment_text,
    extract_sections,
    find_findings,
    label_report,
    load_prompt_templates,
    load_vocabulary,
    split_sentences,
)
from medvl.workflows import label_table

report = """INDICATION: Cough, rule out pneumonia.
COMPARISON: Film of ___ with a left pneumothorax.
FINDINGS: Heart size is at the upper limits of normal. Small left pleural effusion, no
pneumothorax or focal consolidation. The right effusion has resolved.
IMPRESSION:
1. Small left effusion
2. Left basilar opacity; pneumonia cannot be excluded"""

# Sections and sentences are spans into the text.
for name, (start, end) in extract_sections(report).items():
    print(f"{name:12} {report[start:end]!r}")
for start, end in split_sentences(report):
    print("-", " ".join(report[start:end].split()))

# Each mention has an assertion and the cue that decided it. The indication and the comparison are left out.
for mention in find_findings(report):
    words = report[mention.span.start : mention.span.end]
    cue = report[mention.cue.start : mention.cue.end] if mention.cue else "(the mention itself)"
    print(
        f"{mention.finding:18} {mention.assertion:10} {mention.side or '':10} {mention.severity or '':6} {words!r} by {cue!r}"
    )

# One state for each finding: present takes precedence over uncertain, and uncertain over absent. Index by name.
vocabulary = load_vocabulary("chexpert14")
states = dict(zip(vocabulary.names, label_report(report).tolist(), strict=True))
print({name: int(state) for name, state in states.items() if state == state})
assert states["Pleural Effusion"] == 1
assert states["Pneumothorax"] == 0
assert states["Pneumonia"] == -1

# A custom vocabulary is a small file; the cues of negation, uncertainty and history are built in.
folder = Path("label-reports")
folder.mkdir(exist_ok=True)
custom = folder / "vocabulary.yaml"
custom.write_text(
    """version: 1
name: line-positions
findings:
  Malpositioned Line:
    terms:
      - (catheter|tube|line) (is)? (malpositioned|coiled|kinked)
      - (malpositioned|malpositioning of (the)?) (catheter|tube|line)
"""
)
print(label_report("No malpositioned catheter.", custom), label_report("The feeding tube is coiled.", custom))

# A whole table, row by row in constant memory, as with `medvl label`; explain=True adds the words behind each state.
table = folder / "reports.csv"
with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["study_id", "text"])
    writer.writerows([["s1", report], ["s2", "No acute cardiopulmonary abnormality."], ["s3", ""]])
summary = label_table(table, "text", folder / "labels.csv", explain=True)
print(f"{summary.rows} reports, {summary.empty} empty")
with (folder / "labels.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        print(row["study_id"], "No Finding:", row["No Finding"] or "blank", "| Pneumonia:", row["Pneumonia cue"] or "-")

# The reverse: prompts from class names, and augmentation of a report without a change of its states.
templates = load_prompt_templates("chexpert14")
print(templates.present("Pleural Effusion")[:3], templates.absent("No Finding")[:2])
print(augment_text("No pleural effusion. Trachea is midline. Heart is normal.", random.Random(12)))
