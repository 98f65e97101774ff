"""Claims on real images and texts, which are read where they are and not distributed with medvl."""

from __future__ import annotations

from evidence.claim import Claim, Comparison

CLAIMS = [
    *(
        Claim(
            name=f"real-pneumonia-{recipe}",
            title=f"Real images: pneumonia without a single pair, {recipe}",
            says="Images with labels and the reports of another hospital suffice for zero-shot detection.",
            source="after MedCLIP's and UMCL's abstracts; the threshold of 0.95 is ours",
            checked=True,
            done="Chest X-rays of 28 pixels with a label (MedMNIST's PneumoniaMNIST: 388 without and 3,494 with pneumonia) "
            "and the reports of OpenI, four epochs (chosen on the validation split of medclip among two, four and eight). "
            "Zero-shot detection on the official 624 test images.",
            arms=(f"real-{recipe}",),
            figures=("pneumonia/auroc",),
            comparisons=(
                Comparison(f"real-{recipe}", 0.95, "pneumonia/auroc", every_seed=True),
                Comparison(f"real-{recipe}", "real-untrained", "pneumonia/auroc"),
            ),
            baselines=("real-supervised", "real-untrained"),
        )
        for recipe in ("medclip", "umcl")
    ),
    Claim(
        name="real-lungs",
        title="Real images: lungs from a few cases",
        says="A pre-trained encoder needs fewer labeled cases than random filters.",
        source="this library, after MLIP's few-shot segmentation",
        checked=True,
        done="Lungs of 137 real frontal chest X-rays with masks drawn by people, split by patient. A decoder on the frozen "
        "encoder learns from 5 and 10 of them, drawn six times, for every arm and seed the same. The encoders were trained on "
        "synthetic images only. Four of the test images are in the set twice, under two patients.",
        arms=("medvl", "convirt", "medclip"),
        figures=("real_lungs/dice_5", "real_lungs/dice_10"),
        comparisons=tuple(
            Comparison(arm, "untrained", f"real_lungs/dice_{shots}")
            for arm in ("medvl", "convirt", "medclip", "supervised")
            for shots in (5, 10)
        ),
        remarks="No pre-training on texts or labels differs from random filters by more than 0.02, either way, as far as five "
        "seeds tell: every interval holds 0. The next claims examine the reason.",
    ),
    Claim(
        name="real-lungs-masks",
        title="Real images: lungs from a few cases, after pre-training on masks",
        says="An encoder pre-trained with dense supervision, on masks of generated images, is above random filters and above "
        "one that learned labels, in the same steps.",
        source="this library",
        checked=True,
        done="The encoder and the steps of the claim before, with a decoder in place of the loss of images and texts: on the "
        "masks of the generated findings, on the lungs of the generated images, and on the real lungs of all cases of which "
        "the few are drawn, which is a ceiling. That decoder is then discarded.",
        arms=("masks-real", "masks-lungs", "masks-findings", "medvl"),
        figures=("real_lungs/dice_5", "real_lungs/dice_10"),
        comparisons=tuple(
            Comparison(above, below, f"real_lungs/dice_{shots}")
            for above, below in (
                ("masks-lungs", "untrained"),
                ("masks-lungs", "supervised"),
                ("masks-findings", "untrained"),
                ("masks-findings", "supervised"),
            )
            for shots in (5, 10)
        ),
        remarks="Lungs can be learned far better than by random filters, as the ceiling shows, and generated images are good "
        "enough to gain: all eight differences exclude 0, those of masks of findings too, which are other structures than "
        "the one that is asked for; real masks give 0.05 more. So it is not the distance from generated to real images that "
        "keeps the lungs of the claim before from gaining. Masks say where something is, and they say more of each image than "
        "labels do; the next claim examines this. Most of the 20 real masks that were looked at hold the lung behind the "
        "heart, and the generated ones do not. Not tried: a loss on masks beside those of medvl; texts and labels of real "
        "images at this size.",
    ),
    Claim(
        name="real-lungs-pooled",
        title="Real images: lungs from a few cases, by what the masks are learned from",
        says="The same masks help lungs more if they are learned from feature maps than if they are learned from pooled "
        "features, be it in the same steps or in six times as many.",
        source="this library",
        checked=True,
        done="The masks of generated lungs of the claim before, learned by a decoder of feature maps, and by one of the "
        "encoder's pooled features, which texts and labels are learned from too: the same masks, images, steps and "
        "augmentation. The second is trained once more in six times the steps. How well each has learned its masks is "
        "measured on generated test images, beside the best single mask for all of them.",
        arms=("masks-lungs", "masks-lungs-pooled", "masks-lungs-pooled-long"),
        figures=("own_masks/dice", "own_masks/constant_dice", "real_lungs/dice_5", "real_lungs/dice_10"),
        comparisons=tuple(
            Comparison("masks-lungs", arm, f"real_lungs/dice_{shots}")
            for arm in ("masks-lungs-pooled", "masks-lungs-pooled-long")
            for shots in (5, 10)
        ),
        remarks="In the same steps the masks are learned from pooled features in small part only: a Dice of 0.905, where one "
        "mask for all images has 0.875 and maps reach 0.968. The encoder then is no better for lungs than random filters "
        "(0.798 and 0.830 against 0.812 and 0.832). In six times the steps they are nearly learned (0.962), and the lungs "
        "gain with ten cases (0.849) and hardly with five (0.816); maps are above both, in a sixth of the steps. So the longer "
        "training tells the encoder nearly as much, and less of it stands in the maps that the few cases are segmented from. "
        "Texts and labels are learned from pooled features too, and say less of each image than masks do; medvl and mlip match "
        "patches with sentences besides, which say where a finding is and not where its border runs.",
    ),
]
