"""Where does the model see what a sentence says? Draws heat maps of sentences over a radiograph.

Runs in about 40 seconds on one CPU core and writes heat-map.png. The model is trained here for a few epochs on synthetic
radiographs and their reports, whole pictures with whole texts: nobody marks a finding. With a model of your own, keep the last
part, and put your image and your sentences in.
"""

import math

import numpy as np
import torch
from PIL import Image

from medvl.data import SyntheticChestXRay
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, PatchSentenceMatchingLoss
from medvl.networks import ImageEncoder, PatchSentenceAligner, mlip
from medvl.transforms import train_tokenizer

SIZE, EPOCHS, BATCH = 64, 5, 16
torch.manual_seed(0)

# A ResNet whose last feature map is an eighth of the image: 8 x 8 patches. MLIP's network gives patches and sentences
# projections of their own; its masking is left out here.
data = SyntheticChestXRay(length=600, size=SIZE)
studies = [data[index] for index in range(len(data))]
training = [study for study in studies if study["split"] == "train"]
model = mlip(
    "small",
    image_encoder=ImageEncoder("resnet10", image_size=SIZE, width=0.25, no_max_pool=True, conv1_t_stride=1),
    embed_dim=64,
    tokenizer=train_tokenizer([study["report"] for study in training], vocab_size=1000),
    patch_decoder=None,
    semantic_integrity=None,
)
loss_function = CombinedLoss(
    {
        "sentences": PatchSentenceMatchingLoss(alignment="attention"),  # every sentence looks for its patches
        "reports": ImageTextContrastiveLoss(),
    }
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
steps = EPOCHS * math.ceil(len(training) / BATCH)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
for epoch in range(EPOCHS):
    for rows in torch.randperm(len(training)).split(BATCH):
        batch = [training[row] for row in rows.tolist()]
        output = model(torch.stack([study["image"] for study in batch]), **model.tokenize([s["report"] for s in batch]))
        loss = loss_function(output, {})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.2f}")

# The maps: patches of one test image against sentences, one at a time so that no sentence takes another's patches.
model.eval()
wanted = {"Cardiomegaly", "Pleural Effusion"}
study = next(s for s in studies if s["split"] == "test" and wanted <= {f["name"] for f in s["findings"]})
side = next(f["side"] for f in study["findings"] if f["name"] == "Pleural Effusion")
sentences = [
    "The heart is markedly enlarged.",
    f"There is a large {side} pleural effusion.",
    "Large left pneumothorax.",
]
with torch.inference_mode():
    patches, grid = model.encode_patches(study["image"].unsqueeze(0))
    aligner = PatchSentenceAligner()
    maps = [aligner(patches, model.encode_sentences(sentence)[0], grid)["maps"] for sentence in sentences]
    heat = aligner.heatmaps(torch.cat(maps, dim=1), (SIZE, SIZE))[0]  # (sentences, H, W), each from 0 to 1

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
