"""Where a configuration's tables and models are, from any folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from medvl.data.locations import parse_location
from medvl.data.sources import KINDS
from medvl.data.studies import SYNTHETIC
from medvl.data.tables.files import STANDARD_INPUT
from medvl.networks.encoders.backbones import NAMES
from medvl.workflows.literals import literal, literal_text


def absolute_locations(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose tables, sources, encoders and weights are found from any folder.

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
    if "data" in content:
        content["data"] = absolute(content["data"])
    for key in ("text_encoder", "image_encoder", "network_def"):
        if key in content:
            content[key] = _absolute_models(content[key])
    if isinstance(content.get("sources"), list):
        pairs = [(source, *str(literal_text(source)).partition("=")) for source in content["sources"]]
        # An unknown kind is an error later, which shows what was given.
        content["sources"] = [
            literal(f"{kind}={literal_text(absolute(place))}") if kind.strip() in KINDS else source
            for source, kind, _, place in pairs
        ]
    return content


_MODEL_KEYS = ("image_encoder", "text_encoder", "backbone", "model", "weights")


def _absolute_models(value: Any) -> Any:
    """A model, or a description with models in it, whose files and folders are absolute; other texts are names."""
    if isinstance(value, Mapping):
        return {key: _absolute_models(inner) if key in _MODEL_KEYS else inner for key, inner in value.items()}
    text = literal_text(value)
    is_expression = text is value and str(text).startswith(("$", "@", "%"))
    if not isinstance(text, str) or is_expression or text in NAMES or not os.path.exists(text):
        return value
    return literal(os.path.abspath(text))
