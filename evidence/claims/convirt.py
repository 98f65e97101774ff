"""ConVIRT: Zhang et al. 2022, https://arxiv.org/abs/2010.00747."""

from __future__ import annotations

from evidence.claim import Claim, Comparison

CLAIMS = [
    Claim(
        name="convirt-labels",
        title="ConVIRT: a tenth of the labels is enough",
        says="Fine-tuned on 10 % of the labels, the pre-trained image encoder matches or beats one with ImageNet's weights "
        "that is fine-tuned on all of them, on four classification tasks.",
        source="abstract",
        checked=True,
        done="The whole encoder is fine-tuned on the labels of 10 and of 100 % of the training patients, from the weights of "
        "convirt, from random weights, and from those of a supervised training on the same images (there are no "
        "ImageNet weights here), in 16 epochs on a tenth of the labels and in four on all. “As good” means at most 0.01 AUROC "
        "below.",
        arms=("convirt", "medvl"),
        figures=("fine_tune/10", "fine_tune/100"),
        comparisons=(
            Comparison("convirt", "untrained", "fine_tune/10", "fine_tune/100", margin=0.01),
            Comparison("convirt", "untrained", "fine_tune/10"),
            Comparison("convirt", "untrained", "fine_tune/100"),
        ),
        remarks="The number of steps suffices for medvl, which has the same images and labels besides, and holds the claim; "
        "convirt was not tried in more. Random filters lose little here, as the generated findings are simple shapes; the "
        "probes of the next claim show it too.",
    ),
    Claim(
        name="convirt-representation",
        title="ConVIRT: a representation that labels are easily learned from",
        says="Linear classifiers on the frozen pre-trained encoder are better than on those of other initializations.",
        source="linear classification, beside fine-tuning",
        checked=False,
        done="Linear probes on the frozen embeddings, on the labels of 1, 10 and 100 % of the training patients.",
        arms=("convirt",),
        figures=("probe/1", "probe/10", "probe/100"),
        comparisons=tuple(Comparison("convirt", "untrained", f"probe/{percent}") for percent in (1, 10, 100)),
        remarks="With few labels pre-training helps. With all of them a linear classifier on random filters does as well, so "
        "that the generated findings are easy for it; medclip and medvl, with the same images and steps, are above both.",
    ),
    Claim(
        name="convirt-retrieval",
        title="ConVIRT: an image finds its text",
        says="The representations considerably outperform strong baselines in most settings, of two zero-shot retrieval tasks "
        "among others.",
        source="abstract",
        checked=True,
        done="The report of a test image among all distinct test reports, and the reverse.",
        arms=("convirt",),
        figures=("retrieval/image_to_text_r10", "retrieval/text_to_image_r10", "zero_shot/auroc"),
        comparisons=(
            Comparison("convirt", "untrained", "retrieval/image_to_text_r10"),
            Comparison("convirt", "untrained", "retrieval/text_to_image_r10"),
        ),
    ),
]
