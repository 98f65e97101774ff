"""The claims, one file a paper; a new file or a new entry of ``CLAIMS`` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from evidence.claim import Claim

ORDER = ("convirt", "medclip", "umcl", "mlip", "medvl", "real_images")


def all_claims() -> list[Claim]:
    """Every claim, by file in :data:`ORDER`, then others by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    names = [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]
    return [claim for name in names for claim in importlib.import_module(f"{__name__}.{name}").CLAIMS]


def choose_claims(names: list[str] | None) -> list[Claim]:
    """The claims with these names, or those of a paper, as "mlip"; all for None.

    Raises:
        ValueError: If a name is unknown.
    """
    claims = all_claims()
    if names is None:
        return claims
    known = {claim.name for claim in claims} | {claim.group for claim in claims}
    for name in names:
        if name not in known:
            raise ValueError(f"--only must be among {', '.join(sorted(known))}, got {name!r}.")
    return [claim for claim in claims if claim.name in names or claim.group in names]
