"""Where a configuration's tables and models are, from any folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from medvl.data.locations import parse_location
from medvl.data.sources import KINDS
from medvl.data.studies import SYNTHETIC
from medvl.data.tables.files import STANDARD_INPUT
from medvl.workflows.literals import literal, literal_text


def absolute_locations(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose tables, sources and text encoder are found from any folder.

    Example:
        >>> config = absolute_locations({"data": "synthetic", "sources": ["text-label=openi:/data/reports.tgz"]})
        >>> config
        {'data': 'synthetic', 'sources': ['text-label=openi:/data/reports.tgz']}
    """

    def absolute(location: Any) -> Any:
        text = literal_text(location)
        if (
            not isinstance(text, str)
            or text in (SYNTHETIC, STANDARD_INPUT)
            or (text is location and text.startswith(("$", "@", "%")))
        ):
            return location
        parsed = parse_location(text)
        return literal(os.path.abspath(text) if parsed is None else str(parsed.absolute()))

    content = dict(config)
    for key in ("data", "text_encoder"):
        # What is no folder is a name in the Hugging Face Hub.
        is_name = key == "text_encoder" and not os.path.isdir(str(literal_text(content.get(key))))
        if key in content and not is_name:
            content[key] = absolute(content[key])
    if isinstance(content.get("sources"), list):
        pairs = [(source, *str(literal_text(source)).partition("=")) for source in content["sources"]]
        # An unknown kind is an error later, which shows what was given.
        content["sources"] = [
            literal(f"{kind}={literal_text(absolute(place))}") if kind.strip() in KINDS else source
            for source, kind, _, place in pairs
        ]
    return content
