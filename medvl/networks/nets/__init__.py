"""Dual encoders, and the architectures of the papers."""

from __future__ import annotations

from medvl.networks.nets.convirt import convirt
from medvl.networks.nets.dual_encoder import DualEncoder

__all__ = ["DualEncoder", "convirt"]
