"""Continuous prompts: tokens in front of a prompt that are learned with the model, in place of words chosen by hand (UMCL).

Runs in under a minute on one CPU core and writes the folder continuous-prompts/.
"""

from pathlib import Path

import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, UnifiedDataset, load_sources, text_corpus, unified_loader
from medvl.engines import PrepareBatchImageText
from medvl.handlers import EpochSeed
from medvl.losses import CombinedLoss, ImageTextLabelContrastiveLoss
from medvl.networks import DualEncoder, umcl
from medvl.transforms import (
    AddPromptTokensd,
    LabelPolicy,
    LabelsToPromptd,
    TokenizeTextd,
    image_preprocessing,
    train_tokenizer,
)

TOKENS = 4

set_determinism(0)
folder = Path("continuous-prompts")
table = SyntheticChestXRay(length=300, size=64).save(folder / "data")

# The same studies twice: once as images with reports, once as images with labels, whose text is a prompt.
manifest = load_sources([f"image-text={table}", f"image-label={table}"])
train = manifest.subset("train").studies
corpus = text_corpus(train, manifest.names)
tokenizer = train_tokenizer(corpus.texts, vocab_size=1000, patients=corpus.patients)
model = umcl("small", image_size=64, embed_dim=64, tokenizer=tokenizer, num_prompt_tokens=TOKENS)
before = model.text_encoder.prompt_tokens().detach().clone()

# A label becomes a sentence, the sentence token ids, and the ids get four more in front: those of the learned tokens.
write = [
    LabelsToPromptd("label", names=manifest.names),
    TokenizeTextd("text", tokenizer=tokenizer, max_length=48),
    AddPromptTokensd("input_ids", num_tokens=TOKENS, vocab_size=model.text_encoder.vocab_size),
]
dataset = UnifiedDataset(
    train,
    image_transform=image_preprocessing(64),
    text_transform=TokenizeTextd("text", tokenizer=tokenizer, max_length=96),
    prompt_transform=write,
    cache_bytes=10**9,
)
loader = unified_loader(dataset, batch_size=32, sampling_weights={"image-text": 0.5, "image-label": 0.5})
batch = next(iter(loader))
is_prompt = (batch["input_ids"] >= model.text_encoder.vocab_size).any(1)
print(f"{int(is_prompt.sum())} of the {len(is_prompt)} texts of a batch are prompts; one of them:")
print(" ", batch["text"][int(is_prompt.nonzero()[0])], batch["input_ids"][is_prompt][0].tolist()[: TOKENS + 4])

trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=2,
    train_data_loader=loader,
    network=model,
    optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
    loss_function=CombinedLoss({"unified": ImageTextLabelContrastiveLoss(label_agreement="overlap")}),
    prepare_batch=PrepareBatchImageText(label_policy=LabelPolicy()),
    train_handlers=[EpochSeed(loader)],
    decollate=False,
)
trainer.run()

# The tokens have moved, and are saved with the model; encode_class_prompts puts them in front of any prompt.
moved = (model.text_encoder.prompt_tokens().detach() - before).norm(dim=-1)
print("each token moved by", [round(float(value), 3) for value in moved[0]])
assert float(moved.min()) > 0
model.save_pretrained(folder / "model")
again = DualEncoder.from_pretrained(folder / "model")
model.eval()
with torch.no_grad():
    texts = ["Pleural effusion.", "No pleural effusion."]
    assert torch.equal(model.encode_class_prompts(texts), again.encode_class_prompts(texts))
    print(
        "cosine with and without the tokens:",
        (model.encode_class_prompts(texts) * model.encode_text(texts)).sum(1).tolist(),
    )
