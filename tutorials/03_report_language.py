# %% [markdown]
# # Findings of reports, and why
#
# Sections, sentences and findings with the words that decided them; a vocabulary of your own; a whole table; and how
# much the reading of negation matters. `medvl.text` needs neither torch nor a model. It runs in seconds and writes the
# folder `report-language/`. The reports are invented.

# %%
import csv
import random
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from medvl.data import SyntheticChestXRay
from medvl.text import (
    augment_text,
    explain_findings,
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

# %% [markdown]
# ## Sections and sentences
#
# They are spans into the text: nothing is lost or changed.

# %%
for name, (start, end) in extract_sections(report).items():
    print(f"{name:12} {report[start:end]!r}")
for start, end in split_sentences(report):
    print("-", " ".join(report[start:end].split()))

# %% [markdown]
# ## Mentions
#
# Each has an assertion and the cue that decided it. The indication and the comparison are left out: they are not
# observations of this image.

# %%
for mention in find_findings(report):
    words = report[mention.span.start : mention.span.end]
    cue = report[mention.cue.start : mention.cue.end] if mention.cue else "(the mention itself)"
    place = f"{mention.side or '':6} {mention.severity or '':5}"
    print(f"{mention.finding:18} {mention.assertion:10} {place} {words!r} by {cue!r}")

# %% [markdown]
# The same with its reasons, for one sentence. Where a label is not what you expect, begin here.

# %%
print(explain_findings("Small left pleural effusion, no pneumothorax or focal consolidation.")[0])

# %% [markdown]
# ## States
#
# One for each finding: present (1) takes precedence over uncertain (-1), and uncertain over absent (0); not mentioned
# is NaN. Projects disagree about the order of the findings, so always go by name.

# %%
vocabulary = load_vocabulary("chexpert14")
states = dict(zip(vocabulary.names, label_report(report).tolist(), strict=True))
print({name: int(state) for name, state in states.items() if state == state})
assert states["Pleural Effusion"] == 1
assert states["Pneumothorax"] == 0
assert states["Pneumonia"] == -1

# %% [markdown]
# ## A vocabulary of your own
#
# A small file; the cues of negation, uncertainty and history are built in. `extends: chexpert14` would add to the
# fourteen.

# %%
folder = Path("report-language")
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

# %% [markdown]
# ## A whole table
#
# Row by row in constant memory, as with `medvl label`; `explain=True` adds the words behind each state.

# %%
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

# %% [markdown]
# ## The other way
#
# Prompts from the names of classes, and a report in other words with the same states.

# %%
templates = load_prompt_templates("chexpert14")
print(templates.present("Pleural Effusion")[:3], templates.absent("No Finding")[:2])
print(augment_text("No pleural effusion. Trachea is midline. Heart is normal.", random.Random(12)))

# %% [markdown]
# ## What it is for
#
# The states of 300 generated reports against a search for one word of each finding, both beside what the generator
# meant. Many reports name a finding in order to deny it, so that the search calls healthy patients ill. On generated
# reports the states are nearly always right; on 1,978 reports that radiologists wrote, their F1 is 0.85 to 0.93
# ([report language](../docs/report_language.md)).

# %%
words = {"Cardiomegaly": "cardiomegaly", "Pleural Effusion": "effusion", "Pneumothorax": "pneumothorax"}
words |= {"Consolidation": "consolidation", "Edema": "edema", "Fracture": "fracture"}
names = list(words)
counts = Counter()
data = SyntheticChestXRay(length=300)
for study in map(data.get_metadata, range(len(data))):  # without drawing the images
    truth = dict(zip(vocabulary.names, study["label"].tolist(), strict=True))
    read = dict(zip(vocabulary.names, label_report(study["report"]).tolist(), strict=True))
    for name in names:
        counts["search", name] += words[name] in study["report"].lower() and truth[name] != 1
        counts["states", name] += read[name] == 1 and truth[name] != 1
        counts["present", name] += truth[name] == 1
rows = np.arange(len(names))
figure, axis = plt.subplots(figsize=(8, 3.6), dpi=90, layout="constrained")
axis.barh(rows - 0.27, [counts["present", name] for name in names], 0.25, color="#999999", label="have the finding")
wrong = [counts["search", name] for name in names]
axis.barh(rows, wrong, 0.25, color="#D55E00", label="wrongly said to, by a search for the word")
wrong = [counts["states", name] for name in names]
bars = axis.barh(rows + 0.27, wrong, 0.25, color="#0072B2", label="wrongly said to, by the states")
axis.bar_label(bars, color="#0072B2", padding=3)
axis.set(yticks=rows, yticklabels=names, xlabel="of 300 reports")
axis.invert_yaxis()
figure.legend(loc="outside upper center", ncols=3)
figure.savefig(folder / "negation.png")
