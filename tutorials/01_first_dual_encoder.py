"""A first dual encoder, composed by hand: reports and images in, a trained and evaluated model out.

Runs in about a minute on two CPU cores and writes the folder first-dual-encoder/. Swap the synthetic table for your own.
"""

import torch
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, SelectItemsd
from monai.utils import set_determinism

from medvl.data import StudyDataset, StudyLoader, SyntheticChestXRay, read_manifest
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import embed_studies, evaluate
from medvl.handlers import EpochSeed, MetricsLog, ProgressBar
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import convirt
from medvl.text import make_class_prompts
from medvl.transforms import RandSentenced, TokenizeTextd, image_augmentation, image_preprocessing, train_tokenizer

set_determinism(0)
table = SyntheticChestXRay(length=800, size=64).save("first-dual-encoder/data")
manifest = read_manifest(table)
print(manifest.summary())

# Text: one random sentence of the report a step, as tokens of a vocabulary learned from the training reports.
train_studies = manifest.subset("train").studies
tokenizer = train_tokenizer([study["report"] for study in train_studies], vocab_size=2000)
transform = Compose(
    [
        image_preprocessing(image_size=64),
        image_augmentation(image_size=64),
        RandSentenced(keys="report"),
        TokenizeTextd(keys="text", tokenizer=tokenizer, max_length=64),
        SelectItemsd(["image", "input_ids", "attention_mask", "study_id"]),
    ]
)
dataset = StudyDataset(train_studies, transform, cache_bytes=10**9)
loader = StudyLoader(dataset, batch_size=32, shuffle=True, drop_last=True)

# Model and loss, trained by MONAI's own trainer.
model = convirt("small", image_size=64, embed_dim=128, tokenizer=tokenizer)
trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=4,
    train_data_loader=loader,
    network=model,
    optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
    loss_function=CombinedLoss({"contrastive": ImageTextContrastiveLoss(image_weight=0.75)}),
    prepare_batch=PrepareBatchImageText(),
    train_handlers=[EpochSeed(loader), MetricsLog("first-dual-encoder/metrics.jsonl"), ProgressBar()],
    decollate=False,  # images and texts may differ in number
)
trainer.run()
model.save_pretrained("first-dual-encoder/model")

# Evaluation on patients the model has not seen.
keys = ["image", "report", "label", "study_id", "patient_id"]
test = StudyDataset(manifest.subset("test").studies, Compose([image_preprocessing(image_size=64), SelectItemsd(keys)]))
embeddings = embed_studies(model, StudyLoader(test, batch_size=64))
print(evaluate(embeddings, model, class_prompts=make_class_prompts(manifest.names), names=manifest.names).table())
