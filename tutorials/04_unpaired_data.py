# %% [markdown]
# # Images and reports of different patients
#
# Images that have only labels, and reports of other patients, train one model, which then knows findings by sentences
# (semantic matching, MedCLIP). It runs in about a minute on one CPU core and writes the folder `unpaired-data/`. Put
# your own two tables in.

# %%
import csv
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, UnifiedDataset, load_sources, text_corpus, unified_loader
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import audit_false_negatives, embed_studies, zero_shot
from medvl.functional import semantic_targets
from medvl.handlers import EpochSeed, MetricsLog, read_metrics
from medvl.losses import CombinedLoss, SemanticMatchingLoss
from medvl.networks import medclip
from medvl.text import make_class_prompts
from medvl.transforms import (
    LabelPolicy,
    LabelsToPromptd,
    RandTextAugmentd,
    TokenizeTextd,
    image_augmentation,
    image_preprocessing,
    train_tokenizer,
)

set_determinism(0)
folder = Path("unpaired-data")
with SyntheticChestXRay(length=1600, size=64).save(folder / "data").open() as file:
    rows = list(csv.DictReader(file))

# %% [markdown]
# ## Two tables without a pair
#
# Half of the studies keep image and labels, the other half only the report. Each sentence of a report is a text of its
# own, which the library labels.


# %%
def write(name: str, rows: list[dict], without: tuple[str, ...]) -> Path:
    """Write a table beside the images, without some of its columns."""
    path = folder / "data" / name
    columns = [column for column in rows[0] if column not in without]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


images = write("images.csv", rows[:800], without=("report",))
texts = write("texts.csv", [{k: row[k] for k in ("study_id", "report")} for row in rows[800:]], without=())
manifest = load_sources(
    [f"image-label={images}", f"text-label={texts}"],
    text_unit="sentence",
    require_findings=True,
    label_cache=folder / "text_labels.npz",
)
print(manifest.summary())

# %% [markdown]
# ## Why labels, even where there are pairs
#
# A contrast of pairs takes every other report of a batch for a negative. The audit counts those that state the same
# findings: the model would be taught to push them away (`medvl audit` on the command line).

# %%
labels = [study["label"] for study in manifest.subset("train").studies if "label" in study]
print(audit_false_negatives(labels, batch_size=32, names=manifest.names).table())

# %% [markdown]
# ## Three chains of transforms
#
# Of images, of sentences, and of labels, which become a sentence. `decoupled=True` draws any image against any text:
# 16 images and 32 texts are 512 pairs in a step.

# %%
train = manifest.subset("train").studies
corpus = text_corpus(train, manifest.names)
tokenizer = train_tokenizer(corpus.texts, vocab_size=1000, patients=corpus.patients)
tokens = [RandTextAugmentd("text", drop_prob=0.0), TokenizeTextd("text", tokenizer=tokenizer, max_length=32)]
dataset = UnifiedDataset(
    train,
    image_transform=[image_preprocessing(64), image_augmentation(64, flip_prob=0.0)],
    text_transform=tokens,
    prompt_transform=[LabelsToPromptd("label", names=manifest.names), *tokens],
    decoupled=True,
    cache_bytes=10**9,
)
loader = unified_loader(dataset, batch_size=16, num_texts=32)
print("texts are drawn from", {name: len(pool) for name, pool in dataset.text_pools.items()}, "studies")

# %% [markdown]
# ## Training

# %%
model = medclip("small", image_size=64, embed_dim=64, tokenizer=tokenizer)
trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=6,
    train_data_loader=loader,
    network=model,
    optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
    loss_function=CombinedLoss({"matching": SemanticMatchingLoss(target_temperature=0.1)}),
    prepare_batch=PrepareBatchImageText(label_policy=LabelPolicy()),
    train_handlers=[EpochSeed(loader), MetricsLog(folder / "metrics.jsonl")],
    decollate=False,  # there are twice as many texts as images
)
trainer.run()
losses = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
print("loss by epoch:", ", ".join(f"{loss:.3f}" for loss in losses))
assert losses[-1] < losses[0]

# %% [markdown]
# ## What it knows
#
# It has seen no image with a report, and tells the findings of new images by sentences about them.

# %%
test = [study for study in manifest.subset("test").studies if "image" in study]
prepare = image_preprocessing(64)
tests = [{"image": prepare(study)["image"].unsqueeze(0), "label": study["label"][None]} for study in test]
untrained = medclip("small", image_size=64, embed_dim=64, tokenizer=tokenizer)
prompts = make_class_prompts(["Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Consolidation", "Edema"])
results = {}
for name, judge in (("trained", model), ("untrained", untrained)):
    results[name] = zero_shot(embed_studies(judge, tests), prompts, judge, manifest.names)
    print(f"{name}: zero-shot AUROC {results[name].macro['auroc']} on {len(tests)} images")

# %% [markdown]
# Left, what semantic matching asks of six images and six texts with the same findings: texts that state the findings
# of an image share its target, where a contrast of pairs asks for the diagonal alone (orange: the false negatives of
# the pairs). Right, what that gave.

# %%
policy = LabelPolicy()
groups = ["edema", "effusion", "edema", "fracture", "effusion", "edema"]
columns = [manifest.names.index(name) for name in ("Edema", "Pleural Effusion", "Fracture")]
states = torch.full((6, len(manifest.names)), float("nan"))
for row, name in enumerate(groups):
    states[row, columns] = 0.0
    states[row, columns[("edema", "effusion", "fracture").index(name)]] = 1.0
targets = semantic_targets(policy(states), policy(states), temperature=0.1)[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), dpi=90, layout="constrained")
left.imshow(targets, cmap="Blues", vmin=0, vmax=1)
for i, row in enumerate(targets.tolist()):
    for j, value in enumerate(row):
        left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")
        if i != j and groups[i] == groups[j]:
            place = (j - 0.46, i - 0.46)
            left.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor="#E69F00", linewidth=2.5))
left.set(xticks=range(6), yticks=range(6), yticklabels=groups, xlabel="text", ylabel="image", title="targets")
left.set_xticklabels(groups, rotation=40, ha="right")
for offset, (name, color) in enumerate({"untrained": "#999999", "trained": "#0072B2"}.items()):
    for row, found in enumerate(results[name].findings.values()):
        place = row + 0.24 * offset - 0.12
        right.plot([found.auroc.low, found.auroc.high], [place, place], color=color)
        right.plot(found.auroc.value, place, "so"[offset], color=color, label=name if row == 0 else None)
right.axvline(0.5, color="#D55E00", linestyle="--", label="chance")
right.set(yticks=range(len(prompts)), yticklabels=prompts, xlim=(0, 1.02), xlabel="zero-shot AUROC, 95 % interval")
right.invert_yaxis()
right.legend(loc="lower left", fontsize=8)
figure.savefig(folder / "results.png")
