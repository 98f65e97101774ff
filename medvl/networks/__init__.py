"""Encoders, blocks and dual encoders."""

from __future__ import annotations

from medvl.networks.blocks import LogitScale, ProjectionHead
from medvl.networks.encoders import ImageEncoder, TextEncoder, load_tokenizer
from medvl.networks.nets import DualEncoder, convirt

__all__ = ["DualEncoder", "ImageEncoder", "LogitScale", "ProjectionHead", "TextEncoder", "convirt", "load_tokenizer"]
