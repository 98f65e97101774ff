"""Blocks that networks are made of."""

from __future__ import annotations

from medvl.networks.blocks.logit_scale import LogitScale
from medvl.networks.blocks.projection import ProjectionHead

__all__ = ["LogitScale", "ProjectionHead"]
