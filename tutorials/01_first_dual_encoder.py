# %% [markdown]
# # A first dual encoder
#
# Images with reports in; a trained and evaluated dual encoder out, composed by hand from MONAI's trainer and parts of
# medvl. It runs in about a minute on two CPU cores and writes the folder `first-dual-encoder/`. The studies are
# synthetic: give `read_manifest` your own table instead.

# %%
import torch
from matplotlib import pyplot as plt
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, SelectItemsd
from monai.utils import set_determinism

from medvl.data import StudyDataset, StudyLoader, SyntheticChestXRay, read_manifest
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import embed_studies, evaluate
from medvl.handlers import EpochSeed, MetricsLog, ProgressBar, read_metrics
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import convirt
from medvl.text import make_class_prompts
from medvl.transforms import RandSentenced, TokenizeTextd, image_augmentation, image_preprocessing, train_tokenizer

set_determinism(0)
table = SyntheticChestXRay(length=800, size=64).save("first-dual-encoder/data")
manifest = read_manifest(table)
print(manifest.summary())

# %% [markdown]
# ## Data
#
# One random sentence of the report a step, as in ConVIRT, as tokens of a vocabulary learned from the training reports.

# %%
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

# %% [markdown]
# ## Model, loss, trainer
#
# The trainer is MONAI's own. `CombinedLoss` finds the arguments of each loss by name, in the network's output and the
# batch.

# %%
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

# %% [markdown]
# ## Evaluation
#
# On patients that the model has not seen: zero-shot classification by sentences such as "There is edema." and "No
# edema.", and retrieval of each image's report.

# %%
keys = ["image", "report", "label", "study_id", "patient_id"]
test = StudyDataset(manifest.subset("test").studies, Compose([image_preprocessing(image_size=64), SelectItemsd(keys)]))
embeddings = embed_studies(model, StudyLoader(test, batch_size=64))
results = evaluate(embeddings, model, class_prompts=make_class_prompts(manifest.names), names=manifest.names)
print(results.table())

# %% [markdown]
# The bars are 95 % intervals over patients. A finding whose interval crosses the line of chance, as that of
# pneumothorax does, has not been shown to be learned in four epochs; `medvl demo` trains on more studies for longer.

# %%
losses = [line["loss"] for line in read_metrics("first-dual-encoder/metrics.jsonl")]
found = {name: result.auroc for name, result in results["zero_shot"].findings.items() if result.auroc.has_interval}
found["mean"] = results["zero_shot"].macro["auroc"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), dpi=90, layout="constrained")
left.plot(range(1, len(losses) + 1), losses, marker="o", color="#0072B2")
left.set(xlabel="epoch", ylabel="training loss", xticks=range(1, len(losses) + 1))
for row, (name, auroc) in enumerate(found.items()):
    right.plot([auroc.low, auroc.high], [row, row], color="#0072B2", linewidth=3 if name == "mean" else 1.5)
    right.plot(auroc.value, row, "o", color="#0072B2")
right.axvline(0.5, color="#D55E00", linestyle="--", label="chance")
right.set(yticks=range(len(found)), yticklabels=found, xlabel="zero-shot AUROC on test patients", xlim=(0, 1.02))
right.invert_yaxis()
right.legend(loc="lower left")
figure.savefig("first-dual-encoder/results.png")
