"""Dual encoders, and the architectures of the papers."""

from __future__ import annotations

from medvl.networks.nets.convirt import convirt
from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.masked_dual_encoder import MaskedDualEncoder
from medvl.networks.nets.medclip import medclip
from medvl.networks.nets.mlip import mlip
from medvl.networks.nets.pooled_views import PooledViews
from medvl.networks.nets.text_processor import TextProcessor
from medvl.networks.nets.umcl import umcl

__all__ = ["DualEncoder", "MaskedDualEncoder", "PooledViews", "TextProcessor", "convirt", "medclip", "mlip", "umcl"]
