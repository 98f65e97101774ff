"""Image and text encoders over MONAI and Hugging Face models."""

from __future__ import annotations

from medvl.networks.encoders.hugging_face_files import load_tokenizer
from medvl.networks.encoders.image import ImageEncoder
from medvl.networks.encoders.text import TextEncoder

__all__ = ["ImageEncoder", "TextEncoder", "load_tokenizer"]
