# %% [markdown]
# # Learned prompts, with both encoders frozen
#
# Zero-shot results depend on how the name of a finding is worded. Here sixteen tokens beside the name are learned from
# labels in place of the wording (continuous prompts), while no weight of the two encoders changes. It runs in about a
# minute and a half on one CPU core and writes the folder `continuous-prompts/`.

# %%
import torch
from matplotlib import pyplot as plt
from sklearn.metrics import roc_auc_score

from medvl.data import SyntheticChestXRay
from medvl.losses import ImageTextLabelContrastiveLoss
from medvl.networks import DualEncoder
from medvl.transforms import image_preprocessing
from medvl.workflows import train

FINDINGS = ["Atelectasis", "Cardiomegaly", "Edema", "Pleural Effusion", "Pneumothorax"]

# %% [markdown]
# ## A trained model, frozen
#
# Any saved `DualEncoder` will do, yours too; this one is trained for the purpose, by one call.

# %%
run = train(
    "convirt",
    {
        "synthetic_length": 1200,
        "image_size": 64,
        "epochs": 6,
        "learning_rate": 0.001,
        "vocab_size": 1000,
        "network_def#image_encoder": "resnet10",
        "flip_prob": 0.0,
        "device": "cpu",
        "progress": False,
        "resume": True,
        "output": "continuous-prompts/run",
    },
)
model = DualEncoder.from_pretrained(run / "model").requires_grad_(False)

# %% [markdown]
# ## Images once
#
# The image encoder does not change, so that 1,200 other images pass it once. A step of the learning then encodes five
# short texts.

# %%
data, prepare = SyntheticChestXRay(1200, size=64, seed=1), image_preprocessing(64)
columns = [data.names.index(name) for name in FINDINGS]
studies = [data[index] for index in range(len(data))]
split = {}
for name in ("train", "test"):
    part = [study for study in studies if study["split"] == name]
    images = torch.stack([torch.as_tensor(prepare(study)["image"]) for study in part])
    with torch.no_grad():
        embeds = torch.cat([model.encode_image(chunk) for chunk in images.split(64)])
    split[name] = embeds, torch.stack([study["label"][columns] for study in part])
    print(name, tuple(embeds.shape))


def auroc(text_embeds: torch.Tensor) -> float:
    """Mean AUROC of the cosines of the test images with each finding's text."""
    embeds, labels = split["test"]
    scores = embeds @ text_embeds.T
    return sum(roc_auc_score(labels[:, k], scores[:, k]) for k in range(len(FINDINGS))) / len(FINDINGS)


# %% [markdown]
# ## Wordings by hand
#
# Twelve that one could choose. The spread is what choosing costs. Half of them serve in learning; the other half are
# kept for the end.

# %%
WORDINGS = [
    "{}.", "There is {}.", "{} is present.", "{} is seen.", "Evidence of {}.", "Findings consistent with {}.",
    "The radiograph shows {}.", "A chest radiograph with {}.", "Signs of {}.", "X-ray of a patient with {}.",
    "{} in the lungs.", "Imaging features of {}.",
]  # fmt: skip
seen, unseen = WORDINGS[::2], WORDINGS[1::2]


def texts(wording: str) -> list[str]:
    return [wording.format(name if wording.startswith("{}") else name.lower()) for name in FINDINGS]


with torch.no_grad():
    by_hand = {wording: auroc(model.encode_text(texts(wording))) for wording in WORDINGS}
for wording, value in by_hand.items():
    print(f"{value:.3f}  {wording}")

# %% [markdown]
# ## The tokens
#
# Sixteen vectors, shared by all findings, in front of the name. The loss lets every prompt rank a batch of training
# images: those with its finding before those without.

# %%
torch.manual_seed(0)
before = {name: value.clone() for name, value in model.state_dict().items()}
prompt_tokens = model.text_encoder.add_prompt_tokens(16)
optimizer = torch.optim.Adam(prompt_tokens.parameters(), lr=0.01)
loss_function = ImageTextLabelContrastiveLoss(temperature=0.1, label_agreement="overlap", image_weight=0.0)
embeds, labels = split["train"]
losses = []
for _ in range(200):
    wording = seen[int(torch.randint(len(seen), ()))]
    rows = torch.randperm(len(labels))[:512]
    text_embeds = model.encode_with_prompt_tokens(texts(wording))
    loss = loss_function(embeds[rows], text_embeds, labels[rows], torch.eye(len(FINDINGS)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.3f}, then {sum(losses[-20:]) / 20:.3f}")

# %% [markdown]
# Nothing else has changed, bit for bit, and the saved model holds the tokens.

# %%
after = model.state_dict()
changed = [name for name, value in before.items() if name in after and not torch.equal(value, after[name])]
print("changed:", changed or "nothing", "| new:", [name for name in after if name not in before])
assert not changed
model.save_pretrained("continuous-prompts/prompted")
again = DualEncoder.from_pretrained("continuous-prompts/prompted")
with torch.no_grad():
    assert torch.equal(model.encode_class_prompts(["Edema."]), again.encode_class_prompts(["Edema."]))

# %% [markdown]
# ## What it gives
#
# On the test images, for the six wordings that the learning has not seen: by hand, the AUROC depends on the wording;
# with the tokens in front it hardly does, and is about that of the best wording by hand, which one would have to find
# first.

# %%
with torch.no_grad():
    learned = {wording: auroc(model.encode_with_prompt_tokens(texts(wording))) for wording in unseen}
hand = [by_hand[wording] for wording in unseen]
print(f"by hand {min(hand):.3f} to {max(hand):.3f}, learned {min(learned.values()):.3f} to {max(learned.values()):.3f}")
assert min(learned.values()) > sum(hand) / len(hand)
assert max(learned.values()) - min(learned.values()) < (max(hand) - min(hand)) / 2
figure, axis = plt.subplots(figsize=(8, 3.4), dpi=90, layout="constrained")
for row, wording in enumerate(unseen):
    axis.plot([by_hand[wording], learned[wording]], [row, row], color="#999999", linewidth=1)
axis.plot(hand, range(len(unseen)), "s", color="#D55E00", label="the wording alone")
axis.plot(list(learned.values()), range(len(unseen)), "o", color="#0072B2", label="with learned tokens in front")
axis.set(yticks=range(len(unseen)), yticklabels=[wording.format("...") for wording in unseen])
axis.set_xlabel("mean AUROC of five findings on test images")
axis.invert_yaxis()
figure.legend(loc="outside upper center", ncols=2)
figure.savefig("continuous-prompts/wordings.png")
