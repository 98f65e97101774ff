"""The recipe medvl: semantic targets for images and patches, and the contrast of pairs. It is ours, and of no paper."""

from __future__ import annotations

from evidence.claim import FIGURES, Claim, Comparison

FIVE = ("zero_shot/auroc", "probe/1", "retrieval/image_to_text_r10", "grounding/cnr", "grounding/pointing")
MLIP_REMARKS = (
    "In so few steps the differences in retrieval and in the pointing game are not decided; the next claim has more of both "
    "images and steps."
)

CLAIMS = [
    *(
        Claim(
            name=f"medvl-{other}",
            title=f"medvl: better than {other}",
            says=f"In at least four of five measures it is better than {other} at equal steps.",
            source="this library",
            checked=True,
            done=f"medvl against {other} on one table, in the same number of steps.",
            arms=("medvl", other),
            figures=FIVE,
            comparisons=tuple(Comparison("medvl", other, figure) for figure in FIVE),
            needed=4,
            baselines=("supervised", "untrained-mlip" if other == "mlip" else "untrained"),
            remarks=MLIP_REMARKS if other == "mlip" else "",
        )
        for other in ("convirt", "medclip", "umcl", "mlip")
    ),
    Claim(
        name="medvl-mlip-demo",
        title="medvl: better than mlip, on the demonstration's data",
        says="In at least four of five measures it is better than mlip at equal steps.",
        source="this library",
        checked=True,
        done="As before, but on the 4,500 studies of `medvl demo`, with its settings, for nine epochs in place of four.",
        arms=("medvl-demo", "mlip-demo"),
        figures=FIVE,
        comparisons=tuple(Comparison("medvl-demo", "mlip-demo", figure) for figure in FIVE),
        needed=4,
        baselines=("supervised-demo", "untrained-demo"),
    ),
    Claim(
        name="medvl-terms",
        title="medvl: each of its three terms adds",
        says="The pairs carry retrieval, the patches carry grounding, the matching by labels carries classification.",
        source="this library",
        checked=True,
        done="medvl without each of its terms.",
        arms=("medvl", "medvl-no-pairs", "medvl-no-local", "medvl-no-matching"),
        figures=FIVE,
        comparisons=(
            Comparison("medvl", "medvl-no-pairs", "retrieval/image_to_text_r10"),
            Comparison("medvl", "medvl-no-local", "grounding/cnr"),
            Comparison("medvl", "medvl-no-matching", "zero_shot/auroc"),
        ),
        remarks="Without the loss of the patches the projections of patches and sentences stay random; the maps are then by "
        "those of whole images, as convirt's, medclip's and umcl's are.",
    ),
    *(
        Claim(
            name=f"medvl-{name}",
            title=f"medvl: {title}",
            says="On the mean over seeds: "
            + ", ".join(f"{FIGURES[figure]} above {value:g}" for figure, value in zip(FIVE, values, strict=True))
            + ". The numbers were set before the recipe was made.",
            source="this library",
            checked=True,
            done=f"medvl on the 4,500 studies of `medvl demo`, with its settings, for {epochs} epochs.",
            arms=(f"medvl-{name}",),
            figures=FIVE,
            comparisons=tuple(
                Comparison(f"medvl-{name}", value, figure) for figure, value in zip(FIVE, values, strict=True)
            ),
            baselines=(f"supervised-{name}", "untrained-demo"),
        )
        for name, title, epochs, values in (
            ("demo", "what the demonstration reaches", 9, (0.92, 0.91, 0.35, 1.0, 0.40)),
            ("long", "what the demonstration's data reach", 24, (0.94, 0.93, 0.40, 1.2, 0.45)),
        )
    ),
    Claim(
        name="medvl-labels",
        title="medvl: a tenth of the labels is enough",
        says="Fine-tuned on 10 % of the labels it is as good as random weights fine-tuned on all of them.",
        source="this library, after ConVIRT's claim",
        checked=True,
        done="As for ConVIRT. “As good” means at most 0.01 AUROC below.",
        arms=("medvl", "convirt"),
        figures=("fine_tune/10", "fine_tune/100"),
        comparisons=(Comparison("medvl", "untrained", "fine_tune/10", "fine_tune/100", margin=0.01),),
        remarks="Random weights are fine-tuned as the others are, for four epochs and with a small learning rate, which "
        "leaves them below the supervised baseline: random weights too, on all labels, in the steps and at the learning rate "
        "of the pre-training. That medvl with 10 % of the labels is as good as that one's own classifier is not decided.",
    ),
]
