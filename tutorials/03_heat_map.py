"""Where does the model see what a sentence says? Draws heat maps of sentences over a radiograph.

Runs in about two minutes on one CPU core and writes heat-map.png. The model is trained here for a few epochs on synthetic
radiographs and their reports, whole pictures with single sentences: nobody marks a finding. With a model of your own, keep the
last part, and put your image and your sentences in.
"""

import math
import random

import numpy as np
import torch
from PIL import Image

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

# Every sentence of every report, with the states of the findings that it speaks of.
data = SyntheticChestXRay(length=1200, size=SIZE)
studies = [data[index] for index in range(len(data))]
training = [study for study in studies if study["split"] == "train"]
for study in training:
    study["sentences"] = [study["report"][start:end] for start, end in split_sentences(study["report"])]
    study["sentence_labels"] = [policy(torch.from_numpy(label_report(text))) for text in study["sentences"]]
    study["labels"] = policy(torch.from_numpy(label_report(study["report"])))

# MedCLIP's small network: its ResNet gives 8 x 8 patches of 8 pixels. Patches and sentences get projections of their own.
tokenizer = train_tokenizer([study["report"] for study in training], vocab_size=1000)
model = medclip("small", image_size=SIZE, embed_dim=64, tokenizer=tokenizer, local_projections=True)
loss_function = CombinedLoss(
    {
        "sentences": SemanticSentenceLoss(temperature=0.1),  # every sentence looks for its patches in every image
        "reports": ImageTextContrastiveLoss(pool_texts=True),  # an image finds the sentences of its own report
    }
)
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

# How often does the highest patch lie on the finding? A random point does in as many cases as the finding has of the area.
test = [study for study in studies if study["split"] == "test"]
for name, sentence in {"Cardiomegaly": "The heart is enlarged.", "Consolidation": "There is a consolidation."}.items():
    cases = [s for s in test if s["mask"][data.drawable.index(name)].any()]
    masks = torch.stack([s["mask"][data.drawable.index(name)].bool() for s in cases])
    maps = phrase_maps(model, torch.stack([s["image"] for s in cases]), [sentence])
    hits = pointing_game(torch.nn.functional.interpolate(maps, (SIZE, SIZE), mode="bilinear")[:, 0], masks)
    print(f"{name}: points at it in {hits.mean():.2f} of {len(cases)} cases; by chance {masks.float().mean():.2f}")

# The maps of one test image.
wanted = {"Cardiomegaly", "Pleural Effusion"}
study = next(s for s in test if wanted <= {f["name"] for f in s["findings"]})
side = next(f["side"] for f in study["findings"] if f["name"] == "Pleural Effusion")
sentences = ["The heart is markedly enlarged.", f"There is a large {side} pleural effusion.", "Acute rib fractures."]
maps = phrase_maps(model, study["image"][None], sentences)
heat = torch.nn.functional.interpolate(maps, (SIZE, SIZE), mode="bilinear")[0]  # (sentences, H, W)
heat = (heat - heat.amin((1, 2), keepdim=True)) / (heat.amax((1, 2), keepdim=True) - heat.amin((1, 2), keepdim=True))

# The picture: the radiograph, then the upper half of each map in red over it.
gray = study["image"][0].numpy()
panels = [np.stack([gray] * 3, axis=-1)]
for layer in heat.numpy():
    strength = 0.7 * np.clip(2 * layer[..., None] - 1, 0, 1)
    panels.append(panels[0] * (1 - strength) + np.array([1.0, 0.2, 0.1]) * strength)
picture = Image.fromarray((np.concatenate(panels, axis=1) * 255).round().astype(np.uint8))
picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.BILINEAR).save("heat-map.png")
print("what is there:", ", ".join(f"{f['severity']} {f['side']} {f['name']}" for f in study["findings"]))
print("heat-map.png: the radiograph; then", "; ".join(sentences))
