"""Published weights of image encoders: their layouts, and their way into the backbones here."""

from __future__ import annotations

from medvl.networks.encoders.published.load import load_tower
from medvl.networks.encoders.published.report import LoadReport
from medvl.networks.encoders.published.tower import READ, Tower, find_family, read_tower

__all__ = ["READ", "LoadReport", "Tower", "find_family", "load_tower", "read_tower"]
