"""What the figures of several protocols mean, one line each: the figure, its value by chance and at best."""

from __future__ import annotations

AUROC = (
    "How often an image with the finding scores higher than one without it: 0.5 by chance, 1 at best. Hosmer and Lemeshow call "
    "0.7 acceptable, 0.8 excellent and 0.9 outstanding."
)
AUPRC = (
    "Precision averaged over all levels of recall: by chance the fraction of cases with the finding, Present / (Present + "
    "Absent), and 1 at best."
)
F1 = (
    "Harmonic mean of sensitivity and positive predictive value, from 0 to 1, at the threshold chosen on the validation split. "
    "Calling a finding of frequency q present in every image gives 2q / (1 + q)."
)
SENSITIVITY = "Of the cases with the finding, the fraction called present."
SPECIFICITY = (
    "Of the cases without the finding, the fraction called absent. Guessing gives a sensitivity and a specificity whose sum is "
    "1, so read the two together; 2 is the best sum."
)
PPV = (
    "Positive predictive value: of the cases called present, the fraction that have the finding. By chance it is the finding's "
    "frequency in these data; where the finding is rarer, it is lower."
)
NPV = (
    "Negative predictive value: of the cases called absent, the fraction that do not have the finding. By chance it is 1 minus "
    "the frequency."
)

DICE = (
    "Overlap of the predicted and the annotated region, over the cases that have the structure: 0 is none, 1 is identical. "
    "What “Mean mask” reaches needs no image."
)
EMPTY_LEFT_EMPTY = "Of the cases without the structure, the fraction in which nothing is marked: 1 is best."
BRIER = "Mean squared difference of the probability and the label: 0 is best; always saying 0.5 gives 0.25."
MACRO = "Mean over the findings that have cases with and without them, each counted the same."

BY_FINDING = {"AUROC": AUROC, "AUPRC": AUPRC, "F1": F1, "Macro": MACRO}
"""The columns of :func:`~medvl.evaluation.multi_label.finding_table`."""
