# %% [markdown]
# # Evaluate any model, and compare two
#
# A protocol takes every object with `encode_image` and `encode_text`; nothing is inherited from medvl. Here a model of
# plain PyTorch learns twice from the same studies, with pairs as targets and with labels as targets, and the question
# is whether the one is better than the other on these patients, or whether the difference is chance. It runs in about
# a minute on one CPU core and writes the folder `compare-models/`.

# %%
import itertools
import re
from collections import Counter
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import nn

from medvl.data import SyntheticChestXRay
from medvl.evaluation import compare, embed_studies, retrieval, zero_shot
from medvl.losses import ImageTextContrastiveLoss, SemanticMatchingLoss
from medvl.text import make_class_prompts
from medvl.transforms import LabelPolicy

torch.manual_seed(0)
folder = Path("compare-models")
folder.mkdir(exist_ok=True)
data = SyntheticChestXRay(length=1200, size=64)
studies = [data[index] for index in range(len(data))]
split = {name: [study for study in studies if study["split"] == name] for name in ("train", "test")}
print({name: f"{len(part)} studies" for name, part in split.items()})

# %% [markdown]
# ## A model of plain PyTorch
#
# Five convolutions, and a bag of words and word pairs that knows nothing of grammar but that "no effusion" is another
# pair than "large effusion". Your model goes here: `HuggingFaceModel` wraps CLIP and SigLIP, `FunctionModel` two
# functions, such as open_clip's ([your own model](../docs/evaluation/own_model.md)).


# %%
class PlainModel(nn.Module):
    def __init__(self, texts: list[str], width: int = 24, dim: int = 64) -> None:
        super().__init__()
        counts = Counter(term for text in texts for term in set(self.terms(text)))
        self.rows = {term: row for row, (term, _) in enumerate(counts.most_common(4000))}
        layers = []
        for before, after in ((1, 1), (1, 2), (2, 4), (4, 4), (4, 4)):
            channels = width * before if layers else 1
            layers += [nn.Conv2d(channels, width * after, 3, 2, 1), nn.BatchNorm2d(width * after), nn.ReLU()]
        self.image = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 4 * 4, dim))
        self.text = nn.EmbeddingBag(len(self.rows) + 1, dim, mode="mean")

    @staticmethod
    def terms(text: str) -> list[str]:
        words = re.findall(r"[a-z]+", text.lower())
        return [*words, *(f"{one} {other}" for one, other in itertools.pairwise(words))]

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return self.image(image - 0.5)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        rows = [
            [self.rows.get(term, len(self.rows)) for term in self.terms(text)] or [len(self.rows)] for text in texts
        ]
        starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        return self.text(torch.tensor([row for part in rows for row in part]), starts)


# %% [markdown]
# ## Trained twice
#
# The same initial weights, studies and order; only the targets differ.

# %%
policy = LabelPolicy()
images = torch.stack([study["image"] for study in split["train"]])
reports = [study["report"] for study in split["train"]]
image_labels = policy(torch.stack([study["label"] for study in split["train"]]))
text_labels = policy(torch.stack([study["text_label"] for study in split["train"]]))
losses = {"pairs": ImageTextContrastiveLoss(temperature=0.1), "labels": SemanticMatchingLoss(temperature=0.1)}
models = {}
for name, loss_function in losses.items():
    torch.manual_seed(0)
    model = models[name] = PlainModel(reports)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        for rows in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            embeds = model.encode_image(images[rows]), model.encode_text([reports[row] for row in rows])
            labels = () if name == "pairs" else (image_labels[rows], text_labels[rows])
            loss = loss_function(*embeds, *labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"{name}: last loss {loss.item():.3f}")

# %% [markdown]
# ## Evaluated
#
# Two protocols, on the test patients. A batch is a dictionary; a `StudyLoader` or any iterable of such dictionaries
# will do.

# %%
names = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Pneumothorax"]
prompts = make_class_prompts(names)
test = {
    "image": torch.stack([study["image"] for study in split["test"]]),
    "report": [study["report"] for study in split["test"]],
    "label": torch.stack([study["label"] for study in split["test"]]),
    "study_id": [study["study_id"] for study in split["test"]],
    "patient_id": [study["patient_id"] for study in split["test"]],
}
results = {}
for name, model in models.items():
    embeddings = embed_studies(model, [test])
    results[name] = zero_shot(embeddings, prompts, model, data.names), retrieval(embeddings)
    print(f"{name}: zero-shot AUROC {results[name][0].macro['auroc']}")

# %% [markdown]
# ## Compared
#
# The intervals of two models may overlap although the one is better: hard cases are hard for both. `compare` draws the
# same patients for both models, and gives the interval of the difference and a p-value (`medvl compare` does so for
# two runs). Nothing is corrected for the number of figures: decide before which one counts. And it is two trainings
# that are compared, not two methods: for these, train each with several seeds.

# %%
(zero_labels, found_labels), (zero_pairs, found_pairs) = results["labels"], results["pairs"]
aurocs = ["auroc", *(f"auroc/{name}" for name in names)]
difference = compare(zero_labels, zero_pairs, names=aurocs)
print(difference.table(names=("labels", "pairs")))
recalls = compare(found_labels, found_pairs, names=["image_to_text/recall_at_5", "image_to_text/recall_at_10"])
print(recalls.table(names=("labels", "pairs")))

# %% [markdown]
# Each line is a difference, labels minus pairs, with its 95 % interval. Lines that do not touch 0 (filled) are
# differences that other patients of this kind would show too; of the others this test set cannot tell. Which targets
# are better depends on the question: here labels tell findings better, and pairs find the report again.

# %%
shown = {"AUROC, mean": difference.differences["auroc"]}
shown |= {f"AUROC, {name}": difference.differences[f"auroc/{name}"] for name in names}
shown |= {f"R@{k} of the report": recalls.differences[f"image_to_text/recall_at_{k}"] for k in (5, 10)}
figure, axis = plt.subplots(figsize=(8, 3.8), dpi=90, layout="constrained")
for row, found in enumerate(shown.values()):
    value = found.difference
    clear = found.p_value < 0.05
    axis.plot([value.low, value.high], [row, row], color="#0072B2", linewidth=2)
    axis.plot(value.value, row, "o", color="#0072B2", markerfacecolor="#0072B2" if clear else "white")
    axis.annotate(f"p = {found.p_value:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
axis.axvline(0, color="#D55E00", linestyle="--")
axis.set(yticks=range(len(shown)), yticklabels=shown, xlabel="better with pairs  <  difference  >  better with labels")
axis.invert_yaxis()
figure.savefig(folder / "differences.png")
