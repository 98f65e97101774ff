"""MLIP: Liu et al. 2024, https://arxiv.org/abs/2401.01591. The paper publishes no code: the formulas are ours."""

from __future__ import annotations

from evidence.claim import Claim, Comparison

COMMON = ("zero_shot/auroc", "retrieval/image_to_text_r10", "grounding/cnr", "grounding/pointing", "few_shot/dice_10")
VIT = ("supervised", "untrained-vit")

CLAIMS = [
    Claim(
        name="mlip-parts",
        title="MLIP: each part adds",
        says="The local matching, the masks and the semantic integrity each improve on the global contrast.",
        source="ablation (table number not checked)",
        checked=False,
        done="The global loss alone; with the matching of patches and sentences; with half of the patches masked and "
        "predicted; and with images weighted by semantic integrity, which is the whole method.",
        arms=("mlip-global", "mlip-local", "mlip-mask", "mlip"),
        figures=COMMON,
        comparisons=(
            Comparison("mlip", "mlip-global", "grounding/cnr"),
            Comparison("mlip", "mlip-global", "few_shot/dice_10"),
            Comparison("mlip-local", "mlip-global", "grounding/cnr"),
            Comparison("mlip-mask", "mlip-local", "zero_shot/auroc"),
            Comparison("mlip", "mlip-mask", "zero_shot/auroc"),
        ),
        baselines=VIT,
    ),
    Claim(
        name="mlip-segmentation",
        title="MLIP: few-shot segmentation",
        says="It outperforms earlier methods in few-shot segmentation.",
        source="abstract",
        checked=True,
        done="A decoder on the frozen encoder learns from 5 and 10 cases: findings of the synthetic set, and lungs on real "
        "chest X-rays, which no arm was trained on.",
        arms=("mlip", "mlip-global", "convirt"),
        figures=("few_shot/dice_5", "few_shot/dice_10", "lungs/dice_5", "lungs/dice_10"),
        comparisons=(
            Comparison("mlip", "untrained-vit", "few_shot/dice_10"),
            Comparison("mlip", "mlip-global", "few_shot/dice_10"),
            Comparison("mlip", "untrained-vit", "lungs/dice_10"),
        ),
        baselines=(*VIT, "untrained"),
    ),
    Claim(
        name="mlip-alignment",
        title="MLIP: optimal transport in place of attention or the maximum",
        says="Patches and sentences, many to many, are matched by optimal transport.",
        source="method; the comparison is ours",
        checked=False,
        done="mlip with each of three alignments.",
        arms=("mlip", "mlip-attention", "mlip-max"),
        figures=COMMON,
        comparisons=(
            Comparison("mlip", "mlip-attention", "grounding/cnr"),
            Comparison("mlip", "mlip-max", "grounding/cnr"),
        ),
        baselines=("untrained-vit",),
    ),
    Claim(
        name="mlip-masks",
        title="MLIP: half of the patches may be hidden",
        says="Masked images cost less and teach as much.",
        source="method (figure not checked)",
        checked=False,
        done="mlip with 25, 50 and 75 % of the patches hidden, against none hidden. “As much” means at most 0.01 AUROC below.",
        arms=("mlip-local", "mlip-ratio-25", "mlip", "mlip-ratio-75"),
        figures=COMMON,
        comparisons=(Comparison("mlip", "mlip-local", "zero_shot/auroc", margin=0.01),),
        baselines=("untrained-vit",),
    ),
]
