"""Continuous prompts: tokens in front of a prompt that are learned with the model, in place of words chosen by hand (UMCL).

Runs in about a minute on one CPU core and writes the folder continuous-prompts/.
"""

from pathlib import Path

import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, UnifiedDataset, load_sources, prompt_studies, text_corpus, unified_loader
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import embed_studies, zero_shot
from medvl.handlers import EpochSeed
from medvl.losses import CombinedLoss, ImageTextLabelContrastiveLoss
from medvl.networks import DualEncoder, umcl
from medvl.text import make_class_prompts
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
table = SyntheticChestXRay(length=900, size=64).save(folder / "data")

# The same studies twice: once as images with reports, once as images with labels, whose text is a prompt.
manifest = load_sources([f"image-text={table}", f"image-label={table}"], text_unit="sentence")
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
    [*train, *prompt_studies(make_class_prompts(manifest.names), manifest.names)],
    image_transform=image_preprocessing(64),
    text_transform=TokenizeTextd("text", tokenizer=tokenizer, max_length=96),
    prompt_transform=write,
    prompts_per_study=1,  # labels write what is present; these prompts deny findings too
    cache_bytes=10**9,
)
loader = unified_loader(dataset, batch_size=32, sampling_weights={"image-text": 0.5, "image-label": 0.5})
batch = next(iter(loader))
is_prompt = (batch["input_ids"] >= model.text_encoder.vocab_size).any(1)
print(f"{int(is_prompt.sum())} of the {len(is_prompt)} texts of a batch are prompts; one of them:")
print(" ", batch["text"][int(is_prompt.nonzero()[0])], batch["input_ids"][is_prompt][0].tolist()[: TOKENS + 4])

trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=4,
    train_data_loader=loader,
    network=model,
    optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
    loss_function=CombinedLoss(
        {"unified": ImageTextLabelContrastiveLoss(label_agreement="soft", agreement_temperature=0.1)}
    ),
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
texts = ["Pleural effusion.", "No pleural effusion."]
with torch.no_grad():
    assert torch.equal(model.encode_class_prompts(texts), again.encode_class_prompts(texts))

# Two words a finding as the whole prompt, with the learned tokens in front of them and without: the text encoder has learned
# with both, so that neither needs words of a report around the name.
names = ["Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Consolidation", "Edema"]
prompts = {name: {"present": [f"{name}."], "absent": [f"No {name.lower()}."]} for name in names}
prepare = image_preprocessing(64)
test = [study for study in manifest.subset("test").studies if study["kind"] == "image-label"]
batches = [{"image": prepare(study)["image"].unsqueeze(0), "label": study["label"][None]} for study in test]
embeddings = embed_studies(model, batches)
for way, encode in (("with the tokens", model), ("without them", model.encode_text)):
    result = zero_shot(embeddings, prompts, encode, manifest.names)
    print(f"zero-shot AUROC {way}: {result.macro['auroc']} on {len(test)} images")
