"""MedCLIP: Wang et al. 2022, https://arxiv.org/abs/2210.10163."""

from __future__ import annotations

from evidence.claim import Claim, Comparison

COMMON = ("zero_shot/auroc", "probe/1", "retrieval/image_to_text_r10")

CLAIMS = [
    Claim(
        name="medclip-tasks",
        title="MedCLIP: better at zero-shot, with labels, and at retrieval",
        says="It outperforms earlier methods in zero-shot prediction, supervised classification and image-text retrieval.",
        source="abstract",
        checked=True,
        done="medclip against convirt: the same images and reports, the same number of steps. medclip also reads the labels "
        "of the images.",
        arms=("convirt", "medclip"),
        figures=(
            "zero_shot/auroc",
            "probe/1",
            "probe/10",
            "probe/100",
            "same_diagnosis/auroc",
            "retrieval/image_to_text_r10",
        ),
        comparisons=tuple(
            Comparison("medclip", "convirt", figure)
            for figure in ("zero_shot/auroc", "probe/1", "probe/100", "same_diagnosis/auroc")
        ),
        remarks="The paper's retrieval counts every report of the image's class as found (precision at K on CheXpert 5x200), "
        "so that reports of the same diagnosis are compared here. R@10 asks for the image's own report, which a method that "
        "matches by labels has no reason to tell from others of the same diagnosis.",
    ),
    Claim(
        name="medclip-negatives",
        title="MedCLIP: targets by meaning in place of pairs",
        says="Soft targets by the similarity of label vectors take away the false negatives of a contrast of pairs, where two "
        "patients with one diagnosis are pushed apart.",
        source="abstract and method",
        checked=True,
        done="medclip with soft targets against the same network on the same sentences with hard targets: only the image's "
        "own study is positive. Beside them targets that are sharper and, as in the paper, flatter, in two seeds.",
        arms=("medclip", "medclip-ids", "medclip-sharp", "medclip-paper"),
        figures=("same_diagnosis/auroc", *COMMON),
        comparisons=(
            Comparison("medclip", "medclip-ids", "same_diagnosis/auroc"),
            Comparison("medclip", "medclip-ids", "zero_shot/auroc"),
        ),
        remarks="The temperature of the targets matters more than their kind: sharper and flatter ones than the "
        "default recognize the same diagnosis worse than hard targets do. Hard targets find the image's own report more often.",
    ),
    Claim(
        name="medclip-unpaired",
        title="MedCLIP: a tenth of the images, unpaired",
        says="With 20,000 images it beats the best earlier method, which used about 200,000 pairs.",
        source="abstract",
        checked=True,
        done="medclip on the images and labels of 20 % of the patients and the reports of the other 80 %, so that no image "
        "has its report, against convirt on the pairs of all patients, and of 20 %. All have the same number of steps.",
        arms=("convirt", "convirt-20", "medclip-unpaired-20", "medclip"),
        figures=COMMON,
        comparisons=(
            Comparison("medclip-unpaired-20", "convirt", "zero_shot/auroc"),
            Comparison("medclip-unpaired-20", "convirt-20", "zero_shot/auroc"),
        ),
        remarks="A fifth of the images without a pair is a little better than all pairs, as the paper says, and no better "
        "than convirt on a fifth of the pairs, which loses nothing by having fewer: the number of steps is the limit here and "
        "not the number of images. With 1 % of the labels the probe of medclip's fifth is better than that of all pairs.",
    ),
]
