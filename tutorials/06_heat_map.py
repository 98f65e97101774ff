# %% [markdown]
# # Where does the model see what a sentence says?
#
# Heat maps of sentences over a radiograph, by matching patches with sentences. It runs in about two minutes on one CPU
# core and writes `heat-map.png`. The model is trained here on whole images with single sentences: nobody marks a
# finding. With a model of your own, keep the last part, and put your image and your sentences in (or type `medvl
# explain`).

# %%
import math
import random

import torch
from matplotlib import pyplot as plt

from medvl.data import SyntheticChestXRay
from medvl.evaluation import phrase_maps
from medvl.functional import pointing_game
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, SemanticSentenceLoss
from medvl.networks import medclip
from medvl.text import label_report, split_sentences
from medvl.transforms import LabelPolicy, train_tokenizer

SIZE, EPOCHS, BATCH, SENTENCES = 64, 10, 16, 3
torch.manual_seed(0)
draw = random.Random(0)
policy = LabelPolicy()  # present 1, absent -1, uncertain and not mentioned 0

# %% [markdown]
# ## Sentences
#
# Every sentence of every report, with the states of the findings that it speaks of.

# %%
data = SyntheticChestXRay(length=1200, size=SIZE)
studies = [data[index] for index in range(len(data))]
training = [study for study in studies if study["split"] == "train"]
for study in training:
    study["sentences"] = [study["report"][start:end] for start, end in split_sentences(study["report"])]
    study["sentence_labels"] = [policy(torch.from_numpy(label_report(text))) for text in study["sentences"]]
    study["labels"] = policy(torch.from_numpy(label_report(study["report"])))

# %% [markdown]
# ## Network and losses
#
# MedCLIP's small network: its ResNet gives 8 x 8 patches of 8 pixels. Patches and sentences get projections of their
# own.

# %%
tokenizer = train_tokenizer([study["report"] for study in training], vocab_size=1000)
model = medclip("small", image_size=SIZE, embed_dim=64, tokenizer=tokenizer, local_projections=True)
loss_function = CombinedLoss(
    {
        "sentences": SemanticSentenceLoss(temperature=0.1),  # every sentence looks for its patches in every image
        "reports": ImageTextContrastiveLoss(pool_texts=True),  # an image finds the sentences of its own report
    }
)

# %% [markdown]
# ## Training
#
# A plain PyTorch loop, to show that the parts need no trainer. A step has 16 images and three sentences of each
# report.

# %%
steps = EPOCHS * math.ceil(len(training) / BATCH)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
for epoch in range(EPOCHS):
    for rows in torch.randperm(len(training)).split(BATCH):
        batch = [training[row] for row in rows.tolist()]
        orders = [draw.sample(range(len(study["sentences"])), len(study["sentences"])) for study in batch]
        drawn = [(i, j) for i, order in enumerate(orders) for j in order[:SENTENCES]]
        output = model(
            torch.stack([study["image"] for study in batch]),
            **model.tokenize([batch[i]["sentences"][j] for i, j in drawn]),
        )
        targets = {
            "image_labels": torch.stack([study["labels"] for study in batch]),
            "text_labels": torch.stack([batch[i]["sentence_labels"][j] for i, j in drawn]),
            "image_ids": torch.arange(len(batch)),
            "text_ids": torch.tensor([i for i, _ in drawn]),
        }
        loss = loss_function(output, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.2f}")

# %% [markdown]
# ## Does it point at the finding?
#
# How often the highest patch lies on the finding (pointing game). A random point does in as many cases as the finding
# has of the area.

# %%
test = [study for study in studies if study["split"] == "test"]
hit_rates, chances = {}, {}
for name, sentence in {
    "Cardiomegaly": "The heart is enlarged.",
    "Consolidation": "There is a consolidation.",
    "Pleural Effusion": "There is a pleural effusion.",
}.items():
    cases = [s for s in test if s["mask"][data.drawable.index(name)].any()]
    masks = torch.stack([s["mask"][data.drawable.index(name)].bool() for s in cases])
    maps = phrase_maps(model, torch.stack([s["image"] for s in cases]), [sentence])
    hits = pointing_game(torch.nn.functional.interpolate(maps, (SIZE, SIZE), mode="bilinear")[:, 0], masks)
    hit_rates[name], chances[name] = float(hits.mean()), float(masks.float().mean())
    print(f"{name}: points at it in {hits.mean():.2f} of {len(cases)} cases; by chance {chances[name]:.2f}")
assert sum(hit_rates.values()) > 1.5 * sum(chances.values())

# %% [markdown]
# ## One test image
#
# Its findings are outlined in white. The map of the effusion, which points at its finding in two of three cases, is
# drawn to the enlarged heart in this one. The last sentence says what is not there: its map has a highest patch too,
# as every map has. A map says where, and not whether; that is the similarity's part.

# %%
wanted = {
    "Cardiomegaly": "The heart is markedly enlarged.",
    "Pleural Effusion": "There is a large {side} pleural effusion.",
}
study = next(s for s in test if set(wanted) <= {f["name"] for f in s["findings"]})
side = next(f["side"] for f in study["findings"] if f["name"] == "Pleural Effusion")
sentences = [text.format(side=side) for text in wanted.values()] + ["Acute rib fractures."]
heat = torch.nn.functional.interpolate(
    phrase_maps(model, study["image"][None], sentences), (SIZE, SIZE), mode="bilinear"
)
print("what is there:", ", ".join(f"{f['severity']} {f['side']} {f['name']}" for f in study["findings"]))
figure, axes = plt.subplots(1, 5, figsize=(13, 3.1), dpi=80, layout="constrained", width_ratios=[1, 1, 1, 1, 1.1])
for axis, title, layer, name in zip(
    axes, ["the radiograph", *sentences], [None, *heat[0]], [None, *wanted, None], strict=False
):
    axis.imshow(study["image"][0], cmap="gray")
    axis.set_title(title, fontsize=9)
    axis.axis("off")
    if layer is not None:
        strength = (layer - layer.min()) / (layer.max() - layer.min())
        axis.imshow(strength, cmap="inferno", alpha=0.65 * strength)
    if name is not None:
        axis.contour(study["mask"][data.drawable.index(name)], [0.5], colors="white", linewidths=1.5)
rows = range(len(hit_rates))
axes[4].barh([row - 0.2 for row in rows], hit_rates.values(), 0.35, color="#0072B2", label="highest patch")
axes[4].barh([row + 0.2 for row in rows], chances.values(), 0.35, color="#999999", label="random point")
axes[4].set(yticks=rows, yticklabels=[name.replace(" ", "\n") for name in hit_rates], xlim=(0, 1))
axes[4].set_title("on the finding, share of test cases", fontsize=9)
axes[4].invert_yaxis()
axes[4].legend(fontsize=8)
figure.savefig("heat-map.png")
