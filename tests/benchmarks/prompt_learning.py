"""What learned prompt tokens add to a trained dual encoder whose encoders are frozen.

    python tests/benchmarks/prompt_learning.py [--model FOLDER] [--quick]

Without ``--model``, the demonstration's ConVIRT is trained first (some five minutes on two cores). Then, on synthetic studies
that it has never seen, 16 tokens are learned for five findings, shared by all or of each class's own, from three seeds each;
the class names stand in wordings that are drawn at random in every step from half of WORDINGS. Scores are the cosines of an
image with a finding's prompt; AUROC is the mean of the five findings' on the test split. Hand-written prompts are the same
wordings without tokens, the best of them chosen on the validation split; "less absent" subtracts the cosine with "No NAME.".
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from medvl.data import SyntheticChestXRay
from medvl.losses import ImageTextLabelContrastiveLoss
from medvl.networks import DualEncoder
from medvl.transforms import image_preprocessing
from medvl.workflows import train

FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
WORDINGS = (
    "{}.",
    "There is {}.",
    "{} is present.",
    "{} is seen.",
    "Evidence of {}.",
    "Findings consistent with {}.",
    "The radiograph shows {}.",
    "A chest radiograph with {}.",
    "Signs of {}.",
    "X-ray of a patient with {}.",
    "{} in the lungs.",
    "Imaging features of {}.",
)
SEEN, UNSEEN = WORDINGS[::2], WORDINGS[1::2]
ABSENT = "No {}."


@dataclass
class Split:
    """Cached image embeddings (N, D) and labels (N, 5) of one split."""

    image_embeds: Tensor
    labels: Tensor

    def auroc(self, scores: Tensor) -> float:
        """Mean over the findings of the AUROC of scores (N, 5)."""
        pairs = zip(self.labels.T.tolist(), scores.T.tolist(), strict=True)
        return statistics.mean(roc_auc_score(truth, score) for truth, score in pairs)


def sentences(wording: str) -> list[str]:
    """The wording around each finding's name."""
    written = [wording.format(name.lower()) for name in FINDINGS]
    return [text[0].upper() + text[1:] for text in written]


def embed(model: DualEncoder, count: int, seed: int) -> dict[str, Split]:
    """Embeddings and labels of new studies by split; the encoders are frozen, so that once is enough."""
    data, prepare = SyntheticChestXRay(count, size=model.image_size, seed=seed), image_preprocessing(model.image_size)
    columns = [data.names.index(name) for name in FINDINGS]
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for study in data:
        image = torch.as_tensor(prepare(study)["image"]).as_subclass(Tensor)
        rows.setdefault(study["split"], []).append((image, study["label"][columns]))
    splits = {}
    with torch.inference_mode():
        for name, pairs in rows.items():
            images, labels = (torch.stack(column) for column in zip(*pairs, strict=True))
            splits[name] = Split(torch.cat([model.encode_image(part) for part in images.split(64)]), labels)
    return splits


def learn(model: DualEncoder, split: Split, per_class: bool, seed: int, steps: int) -> Callable[[str], Tensor]:
    """Learns 16 tokens and returns the prompt embeddings (5, D) of a wording; checks that nothing else has changed."""
    torch.manual_seed(seed)
    prompts = model.text_encoder.add_prompt_tokens(16, num_classes=len(FINDINGS) if per_class else None)
    classes = range(len(FINDINGS)) if per_class else None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(prompts.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # Every prompt ranks the images: those with its finding against those without.
    loss_function = ImageTextLabelContrastiveLoss(temperature=0.1, label_agreement="overlap", image_weight=0.0)
    for _ in range(steps):
        text_embeds = model.encode_with_prompt_tokens(sentences(SEEN[int(torch.randint(len(SEEN), ()))]), classes)
        batch = torch.randperm(len(split.labels))[:512]
        labels = split.labels[batch]
        loss = loss_function(split.image_embeds[batch], text_embeds, labels, torch.eye(len(FINDINGS)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    if changed != [name for name in before if name.endswith("prompt_tokens.vectors")]:
        raise RuntimeError(f"only the prompt vectors were to change, but {changed} did")
    return torch.no_grad()(lambda wording: model.encode_with_prompt_tokens(sentences(wording), classes))


def gain(split: Split, scores: Tensor, others: Tensor, resamples: int) -> str:
    """How much higher the AUROC of ``scores`` is, with the interval of 95 % over images drawn with replacement."""
    generator = torch.Generator().manual_seed(0)
    gains = []
    for _ in range(resamples):
        rows = torch.randint(len(scores), (len(scores),), generator=generator)
        part = Split(split.image_embeds[rows], split.labels[rows])
        gains.append(part.auroc(scores[rows]) - part.auroc(others[rows]))
    low, high = torch.tensor(gains).quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{split.auroc(scores) - split.auroc(others):+.3f} ({low:+.3f} to {high:+.3f})"


def row(name: str, chosen: float, gained: str, unseen: list[float]) -> str:
    """A line of the table."""
    spread = f"{statistics.mean(unseen):.3f} | {statistics.pstdev(unseen):.3f} | {min(unseen):.3f} to {max(unseen):.3f}"
    return f"| {name} | {chosen:.3f} | {gained} | {spread} |"


def hand_written(model: DualEncoder, splits: dict[str, Split]) -> Tensor:
    """Prints what the wordings reach by themselves; returns the better way's scores on the test split."""

    @torch.no_grad()
    def scores(wording: str, split: Split, less_absent: bool) -> Tensor:
        embeds = model.encode_text(sentences(wording))
        return split.image_embeds @ (embeds - less_absent * model.encode_text(sentences(ABSENT))).T

    candidates = []
    for name, less_absent in (("hand-written", False), ("hand-written, less absent", True)):
        table = {
            split: {w: splits[split].auroc(scores(w, splits[split], less_absent)) for w in WORDINGS}
            for split in ("val", "test")
        }
        best = max(WORDINGS, key=table["val"].__getitem__)
        print(row(f'{name}: "{best}"', table["test"][best], "", [table["test"][w] for w in UNSEEN]), flush=True)
        candidates.append((table["val"][best], scores(best, splits["test"], less_absent)))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a saved DualEncoder; without it one is trained")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    options = parser.parse_args()
    seeds, steps, count, resamples = (1, 5, 400, 20) if options.quick else (3, 300, 4000, 300)
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            short = {"synthetic_length": 200, "epochs": 1} if options.quick else {}
            options.model = train(["convirt", "demo"], {"output": folder, **short}) / "model"
        model = DualEncoder.from_pretrained(options.model).requires_grad_(False)
    splits = embed(model, count, seed=2026)
    print(
        f"{', '.join(f'{name} {len(split.labels)}' for name, split in splits.items())} studies, {len(FINDINGS)} findings"
    )
    print("| prompt | AUROC | gain | unseen wordings: mean | standard deviation | range |\n|" + " --- |" * 6)
    best = hand_written(model, splits)
    for per_class in (False, True):
        for seed in range(seeds):
            encode = learn(model, splits["train"], per_class, seed, steps)
            test = splits["test"]
            scores = {w: test.image_embeds @ encode(w).T for w in WORDINGS}
            name = f"16 tokens, {'each class its own' if per_class else 'shared'}, seed {seed}"
            gained = gain(test, scores["{}."], best, resamples)
            unseen = [test.auroc(scores[w]) for w in UNSEEN]
            print(row(name, test.auroc(scores["{}."]), gained, unseen), flush=True)
    print("Gain: over the better hand-written way. Nothing but the prompt vectors changed, bit for bit.")


if __name__ == "__main__":
    main()
