"""Views of radiographs: which of a study's images are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medvl.utils.checks import error_message

_FRONTAL = ("pa", "ap", "frontal", "posteroanterior", "anteroposterior", "postero-anterior", "antero-posterior")
_LATERAL = ("l", "ll", "rl", "lateral")


def view_kind(view: str) -> str:
    """Whether a published name of a view is ``"frontal"`` or ``"lateral"``; ``""`` if it is neither or not known.

    Example:
        >>> [view_kind(view) for view in ("PA", "AP_horizontal", "AP AXIAL", "LL", "XTABLE LATERAL", "COSTAL", "")]
        ['frontal', 'frontal', 'frontal', 'lateral', 'lateral', '', '']
    """
    words = view.lower().replace("_", " ").split()
    if any(word in _LATERAL for word in words):
        return "lateral"
    return "frontal" if words and words[0] in _FRONTAL else ""


def keep_views(studies: Sequence[dict[str, Any]], views: str | Sequence[str], title: str) -> list[dict[str, Any]]:
    """The studies with the images of some views only; without those that have none of them.

    Args:
        studies: with ``image`` and ``views``, of the same length.
        views: ``"all"``, ``"frontal"``, ``"lateral"``, or published names of views, one or several.
        title: of the data set, for the error.

    Raises:
        ValueError: If no image has one of the views.
    """
    wanted = [views.lower()] if isinstance(views, str) else [view.lower() for view in views]
    if wanted == ["all"]:
        return list(studies)
    known = {view for study in studies for view in study.get("views", ()) if view}
    if not wanted or (studies and not known):
        expected = "be 'all' or name a view" if known else f"be 'all', since {title} has no views"
        raise ValueError(error_message("views", expected, repr(views)))
    missing = [view for view in wanted if known and not any(view in (name.lower(), view_kind(name)) for name in known)]
    if missing:
        expected = f"be 'all', 'frontal', 'lateral' or of {', '.join(sorted(known))}"
        raise ValueError(error_message("views", expected, repr(views)))
    kept = []
    for study in studies:
        names = study.get("views", ())
        rows = [row for row, name in enumerate(names) if name.lower() in wanted or view_kind(name) in wanted]
        if len(rows) == len(names) > 0:
            kept.append(study)
        elif rows:
            kept.append({**study, **{key: [study[key][row] for row in rows] for key in ("image", "views")}})
    return kept
