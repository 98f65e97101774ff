"""Unpaired data: images that have only labels, and reports of other patients, train one model (MedCLIP).

Runs in about a minute on one CPU core and writes the folder unpaired-data/. Swap the two tables for your own.
"""

import csv
from pathlib import Path

import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, UnifiedDataset, load_sources, text_corpus, unified_loader
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import audit_false_negatives, embed_studies, zero_shot
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


def write(name: str, rows: list[dict], without: tuple[str, ...]) -> Path:
    """Write a table beside the images, without some of its columns."""
    path = folder / "data" / name
    columns = [column for column in rows[0] if column not in without]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


# Half of the studies keep image and labels, the other half only the report: no pair is left.
images = write("images.csv", rows[:800], without=("report",))
texts = write("texts.csv", [{k: row[k] for k in ("study_id", "report")} for row in rows[800:]], without=())
manifest = load_sources(
    [f"image-label={images}", f"text-label={texts}"],
    text_unit="sentence",  # each sentence is a text, labeled by the library
    require_findings=True,
    label_cache=folder / "text_labels.npz",
)
print(manifest.summary())

# Why labels and not pairs: this fraction of the negatives in a batch of pairs would be false negatives.
labels = [study["label"] for study in manifest.subset("train").studies if "label" in study]
print(audit_false_negatives(labels, batch_size=32, names=manifest.names).table())

# Three chains of transforms: of images, of sentences, and of labels, which become a sentence.
train = manifest.subset("train").studies
corpus = text_corpus(train, manifest.names)
tokenizer = train_tokenizer(corpus.texts, vocab_size=1000, patients=corpus.patients)
tokens = [RandTextAugmentd("text", drop_prob=0.0), TokenizeTextd("text", tokenizer=tokenizer, max_length=32)]
dataset = UnifiedDataset(
    train,
    image_transform=[image_preprocessing(64), image_augmentation(64, flip_prob=0.0)],
    text_transform=tokens,
    prompt_transform=[LabelsToPromptd("label", names=manifest.names), *tokens],
    decoupled=True,  # any image against any text
    cache_bytes=10**9,
)
loader = unified_loader(dataset, batch_size=16, num_texts=32)
print("texts are drawn from", {name: len(pool) for name, pool in dataset.text_pools.items()}, "studies")

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

# It has seen no image with a report, and knows the findings of new images by sentences about them.
test = manifest.subset("test").studies
prepare = image_preprocessing(64)
tests = [
    {"image": prepare(study)["image"].unsqueeze(0), "label": study["label"][None]} for study in test if "image" in study
]
untrained = medclip("small", image_size=64, embed_dim=64, tokenizer=tokenizer)
prompts = make_class_prompts(["Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Consolidation", "Edema"])
for name, judge in (("trained", model), ("untrained", untrained)):
    result = zero_shot(embed_studies(judge, tests), prompts, judge, manifest.names)
    print(f"{name}: zero-shot AUROC {result.macro['auroc']} on {len(tests)} images")
