"""What happened to published weights when they were loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadReport:
    """What happened to every published weight.

    Args:
        used: published names of the loaded weights.
        renamed: those of them with other names in the model, and these names.
        unused: published names of weights that were not loaded, with the reason.
        missing: names of the model's weights that were not loaded.
        adapted: what was changed in the values, and what was assumed, as sentences without a full stop.
    """

    used: tuple[str, ...]
    renamed: dict[str, tuple[str, ...]]
    unused: dict[str, str]
    missing: tuple[str, ...]
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.used)} used ({len(self.renamed)} renamed), {len(self.unused)} unused, {len(self.missing)} missing"
        lines = [f"  adapted: {sentence}" for sentence in self.adapted]
        lines += [f"  unused {name}: {reason}" for name, reason in self.unused.items()]
        return "\n".join([counts, *lines, *(f"  missing {name}" for name in self.missing)])
