"""UMCL: Wang 2023, https://arxiv.org/abs/2307.05920. The paper publishes no code: the formulas are ours."""

from __future__ import annotations

from evidence.claim import Claim, Comparison

COMMON = ("zero_shot/auroc", "probe/1", "retrieval/image_to_text_r10")

CLAIMS = [
    Claim(
        name="umcl-kinds",
        title="UMCL: every kind of data helps",
        says="Images, texts and labels in one framework greatly expand the data that a model can use, which should be better "
        "than any kind alone.",
        source="abstract; the comparisons are ours",
        checked=True,
        done="The training patients in thirds: one has images with reports, one images with labels, one reports alone. "
        "umcl learns from one, two and three of these, always in the same number of steps.",
        arms=("umcl-pairs", "umcl-labels", "umcl-pairs-labels", "umcl-all"),
        figures=COMMON,
        comparisons=(
            Comparison("umcl-all", "umcl-pairs", "zero_shot/auroc"),
            Comparison("umcl-all", "umcl-labels", "zero_shot/auroc"),
            Comparison("umcl-pairs-labels", "umcl-pairs", "zero_shot/auroc"),
            Comparison("umcl-all", "umcl-pairs-labels", "zero_shot/auroc"),
        ),
        remarks="In one number of steps each further kind takes steps from the others, and the score falls. It falls "
        "in three times as many too (the next claim).",
    ),
    Claim(
        name="umcl-kinds-long",
        title="UMCL: every kind of data helps, in three times the steps",
        says="As before.",
        source="abstract; the comparisons are ours",
        checked=True,
        done="As before, but all in three times as many steps: the arm of three kinds sees each of them as often as the "
        "shorter arm that has that kind alone.",
        arms=("umcl-pairs-long", "umcl-labels-long", "umcl-all-long", "umcl-pairs", "umcl-labels"),
        figures=COMMON,
        comparisons=(
            Comparison("umcl-all-long", "umcl-pairs-long", "zero_shot/auroc"),
            Comparison("umcl-all-long", "umcl-labels-long", "zero_shot/auroc"),
        ),
        remarks="The labeled images gain more by the longer training than the three kinds together, and the pairs as much, so "
        "that a lack of steps is not the reason that the three are below in equal steps. Where each kind is seen as often, "
        "which is against the shorter arms of one kind, the three together are above both in zero-shot classification and "
        "with the probe: a further kind does add, but less than as many steps on one kind. In the next claim each kind has as "
        "many places in a batch as it has alone.",
    ),
    Claim(
        name="umcl-kinds-wide",
        title="UMCL: every kind of data helps, with three times the batch",
        says="As before.",
        source="abstract; the comparisons are ours",
        checked=True,
        done="The arms of one kind are those of the first of these claims, with batches of 32. The arm of three kinds has "
        "batches of 96 and the same number of steps: each kind has as many places in a batch as it has alone, and is seen "
        "as often.",
        arms=("umcl-pairs", "umcl-labels", "umcl-all-wide"),
        figures=COMMON,
        comparisons=(
            Comparison("umcl-all-wide", "umcl-pairs", "zero_shot/auroc"),
            Comparison("umcl-all-wide", "umcl-labels", "zero_shot/auroc"),
            Comparison("umcl-all-wide", "umcl-pairs", "probe/1"),
            Comparison("umcl-all-wide", "umcl-labels", "probe/1"),
        ),
        remarks="With as many places and passes for each kind as alone, the three together are above labeled images in "
        "zero-shot classification and above pairs with the probe; the other two differences are above 0 and not decided. So "
        "what costs the three in the first of these claims is that they share places and steps, and not that they "
        "are mixed. An image's own report is still found less often than by pairs alone.",
    ),
    Claim(
        name="umcl-convirt",
        title="UMCL: labels beside pairs are better than pairs",
        says="The unified contrast is better than one of image-text pairs alone.",
        source="results",
        checked=False,
        done="umcl against convirt on one table with images, reports and labels, in the same number of steps.",
        arms=("convirt", "umcl"),
        figures=COMMON,
        comparisons=(
            Comparison("umcl", "convirt", "zero_shot/auroc"),
            Comparison("umcl", "convirt", "probe/1"),
            Comparison("umcl", "convirt", "retrieval/image_to_text_r10"),
        ),
    ),
    Claim(
        name="umcl-prompts",
        title="UMCL: learned prompts are better than written ones",
        says="Performance depends on the wording of prompts written by hand; continuous prompts, learned in pre-training, "
        "take that away.",
        source="abstract; the comparisons are ours",
        checked=True,
        done="umcl on the three kinds of data with learned tokens before every prompt, and without. Zero-shot by the "
        "templates of the training, and by each of eight other wordings, whose standard deviation is the spread.",
        arms=("umcl-all", "umcl-written"),
        figures=("zero_shot/auroc", "wording/mean", "wording/spread"),
        comparisons=(
            Comparison("umcl-all", "umcl-written", "zero_shot/auroc"),
            Comparison("umcl-written", "umcl-all", "wording/spread"),
        ),
        remarks="The tokens are learned together with both encoders here, which can fit the written prompts as well; "
        "[](prompts.md) learns tokens before encoders that stay as they are.",
    ),
    Claim(
        name="umcl-negatives",
        title="UMCL: fewer false negatives",
        says="Medical images are much alike, so that a contrast of pairs has many false negatives; "
        "the unified one mitigates that.",
        source="abstract",
        checked=True,
        done="umcl against convirt on one table: are reports of other patients with the image's own diagnosis closer to it "
        "than those with another?",
        arms=("convirt", "umcl"),
        figures=("same_diagnosis/auroc",),
        comparisons=(Comparison("umcl", "convirt", "same_diagnosis/auroc"),),
    ),
]
