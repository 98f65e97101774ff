"""Image and text encoders over MONAI and Hugging Face models."""

from __future__ import annotations

from medvl.networks.encoders.image import ImageEncoder
from medvl.networks.encoders.text import TextEncoder, load_tokenizer

__all__ = ["ImageEncoder", "TextEncoder", "load_tokenizer"]
