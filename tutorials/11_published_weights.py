# %% [markdown]
# # Start from published weights
#
# An image encoder that begins from a file as torchvision publishes it, in a dual encoder that learns from few reports.
# Nothing is downloaded here: the file is a stand-in with torchvision's names and layout, made in the first part, which
# learns the findings of other synthetic X-rays. With `resnet50-11ad3fa6.pth` or any file of [the table of
# layouts](../docs/published_weights.md), leave that part out. It runs in about a minute and a half on one CPU core and
# writes the folder `published-weights/`.

# %%
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from monai.networks.nets import resnet10

from medvl.data import SyntheticChestXRay
from medvl.evaluation import embed_studies, zero_shot
from medvl.losses import ImageTextContrastiveLoss
from medvl.networks import DualEncoder, ImageEncoder, convirt
from medvl.text import make_class_prompts
from medvl.transforms import train_tokenizer

SIZE = 64
folder = Path("published-weights")
folder.mkdir(exist_ok=True)
file = folder / "resnet10-standin.pth"

# %% [markdown]
# ## The stand-in
#
# A ResNet of three channels, trained on color images that are normalized by ImageNet's mean and deviation, and saved
# as torchvision saves one: a dictionary of tensors, with the classifier `fc` that nobody needs.

# %%
torch.manual_seed(0)
other = SyntheticChestXRay(length=1200, size=SIZE, seed=1)
studies = [other[index] for index in range(len(other))]
images = torch.stack([study["image"] for study in studies]).expand(-1, 3, -1, -1)
mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
columns = [other.names.index(name) for name in other.drawable]
labels = torch.stack([study["label"][columns] for study in studies]).nan_to_num()
network = resnet10(
    n_input_channels=3,
    num_classes=len(columns),
    conv1_t_stride=2,
    widen_factor=0.5,
    bias_downsample=False,
    spatial_dims=2,
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
for _ in range(6):
    for rows in torch.randperm(len(images)).split(32):
        logits = network((images[rows] - mean) / std)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"the stand-in's last loss: {loss.item():.3f}")
torch.save(network.state_dict(), file)

# %% [markdown]
# ## Read it
#
# The file completes the options (width, blocks, shortcuts) and brings its normalization along: X-rays of one channel
# go in with values from 0 to 1. The report says what became of every weight; a file of another layout is refused,
# never half loaded.

# %%
encoder = ImageEncoder("resnet10", weights=file, image_size=SIZE)
print(encoder.load_report)
assert not encoder.load_report.missing

# %% [markdown]
# ## Learn from few reports, twice
#
# 300 studies with reports, once from the weights and once from random ones, everything else being equal. In a recipe
# it is `--set "network_def#image_encoder={backbone: resnet50, weights: resnet50-11ad3fa6.pth}"`.

# %%
data = SyntheticChestXRay(length=1000, size=SIZE)
studies = [data[index] for index in range(len(data))]
train = [study for study in studies if study["split"] == "train"][:300]
test = [study for study in studies if study["split"] == "test"]
tokenizer = train_tokenizer([study["report"] for study in train], vocab_size=800)
names = ["Cardiomegaly", "Edema", "Pleural Effusion", "Pneumothorax", "Consolidation"]
prompts = make_class_prompts(names)
batch = {
    "image": torch.stack([study["image"] for study in test]),
    "label": torch.stack([study["label"] for study in test]),
}


def learn(image_encoder: ImageEncoder, epochs: int = 6) -> list:
    """Zero-shot AUROC, the mean of five findings, before the training and after each epoch."""
    torch.manual_seed(0)
    model: DualEncoder = convirt("small", image_encoder=image_encoder, embed_dim=64, tokenizer=tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function, found = ImageTextContrastiveLoss(), []
    for epoch in range(epochs + 1):
        model.train()
        for rows in torch.randperm(len(train))[:288].split(32) if epoch else ():
            part = [train[row] for row in rows.tolist()]
            inputs = model.tokenize([study["report"] for study in part])
            output = model(torch.stack([study["image"] for study in part]), **inputs)
            loss = loss_function(output["image_embeds"], output["text_embeds"], logit_scale=output["logit_scale"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(zero_shot(embed_studies(model, [batch]), prompts, model, data.names).macro["auroc"])
    return found


torch.manual_seed(0)
curves = {
    "random weights": learn(ImageEncoder("resnet10", image_size=SIZE, width=0.5)),
    "published layout, loaded": learn(encoder),
}
for name, curve in curves.items():
    print(f"{name}: {', '.join(f'{point.value:.3f}' for point in curve)}; at last {curve[-1]}")

# %% [markdown]
# The bands are 95 % intervals over the test patients. The stand-in has learned the same findings from labels of the
# same kind of image, so that nothing follows from this for other weights; the picture shows that the weights arrive.

# %%
figure, axis = plt.subplots(figsize=(7, 3.6), dpi=90, layout="constrained")
for (name, curve), color, marker in zip(curves.items(), ("#E69F00", "#0072B2"), "so", strict=True):
    epochs = range(len(curve))
    axis.fill_between(epochs, [p.low for p in curve], [p.high for p in curve], color=color, alpha=0.2, linewidth=0)
    axis.plot(epochs, [point.value for point in curve], color=color, marker=marker, label=name)
axis.axhline(0.5, color="#999999", linestyle="--", label="chance")
axis.set(xlabel="epochs on 300 studies with reports", ylabel="zero-shot AUROC of five findings")
axis.legend()
figure.savefig(folder / "start.png")
