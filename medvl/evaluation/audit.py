"""False negatives of contrastive batches: pairs of studies with the same findings that a contrastive loss repels."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medvl.evaluation.tables import text_table
from medvl.evaluation.targets import check_states
from medvl.utils.checks import error_message
from medvl.utils.io import atomic_write, write_text

RELATIONS = ("all", "some", "contradict", "none")
"""Relations of the findings of two studies."""

RELATION_TITLES = {
    "all": "share all findings",
    "some": "share some findings",
    "contradict": "contradict each other",
    "none": "have nothing in common",
}
NO_FINDING = "no finding"
BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class FalseNegativeAudit:
    """Relations of the off-diagonal pairs of a random batch, as exact expectations.

    Args:
        batch_size: B.
        studies: number of studies that batches are drawn from.
        unknown: studies of which no finding is known.
        shares: fraction of the off-diagonal pairs by relation; they sum to 1 without the pairs of one study's views.
        pairs: expected number of such pairs among the B (B - 1) of a batch.
        affected: by batch size, the expected fraction of images with at least one other study of all their findings.
        common: the most frequent sets of findings with their number of studies.
    """

    batch_size: int
    studies: int
    unknown: int
    shares: dict[str, float]
    pairs: dict[str, float]
    affected: dict[int, float]
    common: list[tuple[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain dictionaries."""
        return {
            "batch_size": self.batch_size,
            "studies": self.studies,
            "unknown": self.unknown,
            "pairs_in_a_batch": self.batch_size * (self.batch_size - 1),
            "shares": self.shares,
            "pairs": self.pairs,
            "affected": {str(size): share for size, share in self.affected.items()},
            "common": [{"findings": name, "studies": number} for name, number in self.common],
        }

    def save(self, path: str | Path) -> Path:
        """Write the numbers as JSON and return the path."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")
        return Path(path)

    def table(self) -> str:
        """The numbers as plain-text tables."""
        total = self.batch_size * (self.batch_size - 1)
        rows = [
            [RELATION_TITLES[name], f"{self.pairs[name]:.1f}", f"{100 * self.shares[name]:.1f} %"] for name in RELATIONS
        ]
        head = [f"Of the {total} off-diagonal pairs of a batch of {self.batch_size}", "expected", "share"]
        affected = 100 * self.affected[self.batch_size]
        sets = [[name, str(number), f"{100 * number / self.studies:.1f} %"] for name, number in self.common]
        return "\n".join(
            [
                text_table(head, rows),
                "",
                f"{affected:.1f} % of the images have at least one other study with all their findings in their batch, "
                "which a contrastive loss of pairs repels.",
                "",
                text_table([f"Most frequent findings of the {self.studies} studies", "studies", "share"], sets),
            ]
        )

    def plot(self, path: str | Path) -> Path:
        """Plot the relations of the pairs, and the affected images by batch size (PNG, SVG or PDF); return the path."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        values = [100 * self.shares[name] for name in RELATIONS]
        bars = left.barh(
            [RELATION_TITLES[name] for name in RELATIONS], values, color=("#b2182b", "#ef8a62", "#2166ac", "#bbbbbb")
        )
        left.bar_label(bars, [f"{value:.1f} %" for value in values], padding=3)
        left.invert_yaxis()
        left.set_xlim(0, 1.2 * max(values))
        left.set_xlabel(f"% of off-diagonal pairs ({self.studies} studies)")
        sizes = list(self.affected)
        right.plot(sizes, [100 * self.affected[size] for size in sizes], marker="o", color="#b2182b")
        right.axvline(self.batch_size, color="#bbbbbb", linestyle="--")
        right.set_xscale("log", base=2)
        right.set_ylim(0, 102)
        right.set_xlabel("batch size")
        right.set_ylabel("% of images with a false negative")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, dpi=150, format=Path(path).suffix[1:] or "png")
        return path


def audit_false_negatives(
    labels: torch.Tensor | np.ndarray | Sequence[Sequence[float]],
    batch_size: int,
    names: Sequence[str] = (),
    study_ids: Sequence[str] | None = None,
) -> FalseNegativeAudit:
    """Count the relations of the off-diagonal pairs of a batch, which a contrastive loss of pairs takes for negatives.

    Two studies share all findings if the same ones are present in both, or both are normal; some, if at least one is present
    in both; they contradict each other if they share none and a finding is present in one and absent in the other, or one is
    normal and the other is not. A study of which nothing is known has nothing in common with any. Uncertain findings count
    as unknown. A study is normal if "No Finding" is present, or findings are known and none is present or uncertain.

    All pairs of studies are equally likely in a random batch, so the expectations are counted over all pairs and not sampled.
    With f the number of studies that share all findings with an image, of n studies, a batch of B with that image contains
    one of them with probability 1 - C(n - 1 - f, B - 1) / C(n - 1, B - 1).

    Args:
        labels: (n, K) states: 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        batch_size: B, from 2 to n.
        names: of the K findings, to recognize "No Finding".
        study_ids: of the n rows; rows of one study are views of it, and not negatives of each other.

    Raises:
        ValueError: If a label is none of the states, the batch size is out of range, or the numbers of names or ids differ.

    Example:
        >>> audit = audit_false_negatives([[1, 0], [1, 0], [0, 1], [1, 1]], 2, ["Edema", "Fracture"])
        >>> {name: round(share, 3) for name, share in audit.shares.items()}
        {'all': 0.167, 'some': 0.5, 'contradict': 0.333, 'none': 0.0}
    """
    states = _checked(labels, names)
    n = len(states)
    if not 2 <= batch_size <= n:
        raise ValueError(error_message("batch_size", f"be between 2 and the number of studies, {n}", batch_size))
    if study_ids is not None and len(study_ids) != n:
        raise ValueError(error_message("study_ids", f"have one entry for each of the {n} studies", len(study_ids)))
    present, absent, normal = _facts(states, names)
    facts = np.concatenate([present, absent, normal[:, None]], axis=1)
    distinct, group, counts = np.unique(facts, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    kinds = len(present[0])
    relation = _Relations(distinct[:, :kinds], distinct[:, kinds:-1], distinct[:, -1])
    totals = dict.fromkeys(RELATIONS, 0)
    alike = np.zeros(len(distinct), dtype=np.int64)
    for start in range(0, len(distinct), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        for name, mask in relation.of(rows, slice(None)).items():
            met = mask @ counts  # studies of each kind, for each distinct label
            totals[name] += int((met * counts[rows]).sum())
            if name == "all":
                alike[rows] = met
    certain = present.any(1) | normal  # has all findings in common with itself
    alike_of = alike[group] - certain
    totals["all"] -= int(certain.sum())
    totals["none"] -= int((~certain).sum())
    for i, j in _same_study(study_ids):
        masks = relation.of(group[i : i + 1], group[j : j + 1])
        name = next(name for name, mask in masks.items() if mask.item())
        totals[name] -= 1
        alike_of[i] -= name == "all"
    shares = {name: total / (n * (n - 1)) for name, total in totals.items()}
    sizes = sorted({batch_size, *(size for size in BATCH_SIZES if size <= n)})
    known = (present | absent).any(1) | normal
    return FalseNegativeAudit(
        batch_size=batch_size,
        studies=n,
        unknown=int((~known).sum()),
        shares=shares,
        pairs={name: share * batch_size * (batch_size - 1) for name, share in shares.items()},
        affected={size: _share_affected(alike_of, n, size) for size in sizes},
        common=_most_common(present, normal, known, names),
    )


class _Relations:
    """The relation of any two distinct labels."""

    def __init__(self, present: NDArray[np.bool_], absent: NDArray[np.bool_], normal: NDArray[np.bool_]) -> None:
        self.present, self.absent = present.astype(np.float32), absent.astype(np.float32)
        self.normal: NDArray[np.bool_] = normal
        self.sick: NDArray[np.bool_] = present.max(axis=1, initial=False)
        self.size = self.present.sum(1)

    def of(self, rows: Any, columns: Any) -> dict[str, NDArray[np.bool_]]:
        """Relation to a mask (rows, columns); each pair is in one."""
        present, absent = self.present[columns].T, self.absent[columns].T
        sick, normal = self.sick[rows, None], self.normal[rows, None]
        shared = self.present[rows] @ present
        equal = (shared == self.size[rows, None]) & (shared == self.size[columns])
        every = (equal & sick & self.sick[columns]) | (normal & self.normal[columns])
        some = (shared > 0) & ~every
        against = (self.present[rows] @ absent > 0) | (self.absent[rows] @ present > 0)
        against |= (normal & self.sick[columns]) | (sick & self.normal[columns])
        against &= ~every & ~some
        return {"all": every, "some": some, "contradict": against, "none": ~(every | some | against)}


def _checked(labels: Any, names: Sequence[str]) -> NDArray[np.float32]:
    states: NDArray[np.float32] = np.asarray(labels, dtype=np.float32)
    if states.ndim != 2:
        raise ValueError(error_message("labels", "have shape (studies, findings)", states.shape))
    if len(names) and len(names) != states.shape[1]:
        expected = f"have one entry for each of the {states.shape[1]} findings"
        raise ValueError(error_message("names", expected, len(names)))
    check_states(states)
    return states


def _facts(
    states: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Findings present (n, K'), absent (n, K'), and whether a study is normal (n,); "No Finding" is no finding."""
    is_normal = np.array([_is_no_finding(name) for name in names] or [False] * states.shape[1])
    findings: NDArray[np.float32] = states[:, ~is_normal]
    present: NDArray[np.bool_] = np.equal(findings, 1)
    absent: NDArray[np.bool_] = np.equal(findings, 0)
    said = (states[:, is_normal] == 1).any(1) & ~present.any(1)
    return present, absent, said | (absent.any(1) & ~present.any(1) & ~(findings == -1).any(1))


def _is_no_finding(name: str) -> bool:
    return " ".join(name.replace("_", " ").lower().split()) == NO_FINDING


def _same_study(study_ids: Sequence[str] | None) -> list[tuple[int, int]]:
    """Ordered pairs of different rows of one study."""
    rows: dict[str, list[int]] = {}
    for row, study_id in enumerate(study_ids or ()):
        rows.setdefault(study_id, []).append(row)
    return [(i, j) for views in rows.values() if len(views) > 1 for i in views for j in views if i != j]


def _share_affected(alike: NDArray[np.int64], n: int, batch_size: int) -> float:
    """Mean probability of meeting one of the ``alike`` studies among the B - 1 others of a batch."""
    everyone = _log_binomial(n - 1, batch_size - 1)
    met = 0.0
    for number, images in zip(*np.unique(alike, return_counts=True), strict=True):
        left = n - 1 - int(number)
        none = math.exp(_log_binomial(left, batch_size - 1) - everyone) if left >= batch_size - 1 else 0.0
        met += int(images) * (1 - none)
    return min(max(met / n, 0.0), 1.0)


def _log_binomial(total: int, drawn: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(drawn + 1) - math.lgamma(total - drawn + 1)


def _most_common(
    present: NDArray[np.bool_],
    normal: NDArray[np.bool_],
    known: NDArray[np.bool_],
    names: Sequence[str],
    most: int = 10,
) -> list[tuple[str, int]]:
    own = [name for name in names if not _is_no_finding(name)] or [f"finding {i}" for i in range(present.shape[1])]
    counted = Counter(
        " + ".join(own[k] for k in np.flatnonzero(row))
        or ("normal" if well else "nothing present" if is_known else "nothing known")
        for row, well, is_known in zip(present, normal, known, strict=True)
    )
    return counted.most_common(most)
