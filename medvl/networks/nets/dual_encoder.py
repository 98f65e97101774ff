"""An image tower and a text tower that meet in one space."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import ModelHubMixin, snapshot_download
from safetensors.torch import load_model, save_model
from torch import nn

from medvl.networks.blocks import LogitScale, ProjectionHead
from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.encoders.text import load_tokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MODEL_CARD = """---
{{ card_data }}
---

An image-text dual encoder made with medvl: `medvl.networks.DualEncoder.from_pretrained(FOLDER)` reads it.
"""


class DualEncoder(
    nn.Module,
    ModelHubMixin,
    library_name="medvl",
    model_card_template=MODEL_CARD,
    tags=["medical", "vision-language"],
):
    """Image and text encoders with projections to unit vectors of one joint space, and the scale of their logits.

    Saves to and loads from one folder (``save_pretrained``, ``from_pretrained``): ``config.json``, ``model.safetensors``
    and, where a tokenizer is given, the tokenizer's files. No pickle is read.

    Args:
        image_encoder: the image tower, or what its ``to_config`` returned.
        text_encoder: the text tower, or what its ``to_config`` returned.
        embed_dim: width D of the joint space.
        projection_layers: layers of each projection, 1 or 2 (see :class:`~medvl.networks.blocks.ProjectionHead`).
        projection_bias: whether the projections have a bias.
        temperature: initial temperature tau of the logits.
        learnable_temperature: whether tau is learned.
        tokenizer: the Hugging Face tokenizer that fits the text tower; lets :meth:`encode_text` take strings, and is saved
            with the weights.

    Example:
        >>> from transformers import BertConfig
        >>> sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> model = DualEncoder(
        ...     ImageEncoder("resnet10", image_size=64, width=0.125),
        ...     TextEncoder(BertConfig(vocab_size=30, **sizes)),
        ...     embed_dim=4,
        ... )
        >>> output = model(torch.rand(3, 1, 64, 64), input_ids=torch.tensor([[2, 5, 3], [2, 9, 3]]))
        >>> output["image_embeds"].shape, output["text_embeds"].shape
        (torch.Size([3, 4]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        image_encoder: ImageEncoder | Mapping[str, Any],
        text_encoder: TextEncoder | Mapping[str, Any],
        embed_dim: int = 512,
        projection_layers: int = 1,
        projection_bias: bool = True,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(image_encoder, Mapping):
            image_encoder = ImageEncoder.from_config(image_encoder)
        if isinstance(text_encoder, Mapping):
            text_encoder = TextEncoder.from_config(text_encoder)
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.image_projection = ProjectionHead(
            image_encoder.out_features, embed_dim, projection_layers, bias=projection_bias
        )
        self.text_projection = ProjectionHead(
            text_encoder.out_features, embed_dim, projection_layers, bias=projection_bias
        )
        self.logit_scale = LogitScale(temperature, learnable=learnable_temperature)
        self.tokenizer = tokenizer
        self.options = {
            "embed_dim": embed_dim,
            "projection_layers": projection_layers,
            "projection_bias": projection_bias,
            "temperature": temperature,
            "learnable_temperature": learnable_temperature,
        }

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the model is meant for."""
        return self.image_encoder.image_size

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return self.image_encoder.spatial_dims

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image_projection[0].weight.device

    def forward(
        self,
        image: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embeds N images and M texts; either may be left out.

        Args:
            image: (N, C, H, W[, D]).
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero = keep.

        Returns:
            ``image_embeds`` (N, D) and ``text_embeds`` (M, D), unit vectors, of what was given; ``logit_scale`` ().

        Raises:
            ValueError: where neither images nor texts are given.
        """
        if image is None and input_ids is None:
            raise ValueError("image or input_ids is needed, received neither.")
        output: dict[str, torch.Tensor] = {"logit_scale": self.logit_scale()}
        if image is not None:
            output["image_embeds"] = self.encode_image(image)
        if input_ids is not None:
            output["text_embeds"] = self.encode_text(input_ids, attention_mask)
        return output

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, D) of images (N, C, H, W[, D])."""
        return F.normalize(self.image_projection(self.image_encoder(image)["embed"]).float(), dim=-1)

    def encode_text(
        self, texts: torch.Tensor | Sequence[str] | str, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Unit vectors (M, D) of texts.

        Args:
            texts: token ids (M, L), or M strings, which the model's tokenizer splits and cuts at the text tower's length.
            attention_mask: (M, L) of token ids, nonzero = keep.

        Raises:
            ValueError: strings where the model has no tokenizer.
        """
        if not isinstance(texts, torch.Tensor):
            texts, attention_mask = self._tokenize([texts] if isinstance(texts, str) else list(texts))
        return F.normalize(self.text_projection(self.text_encoder(texts, attention_mask)["embed"]).float(), dim=-1)

    def _tokenize(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.tokenizer is None:
            raise ValueError(
                "encode_text received strings, but the model has no tokenizer: pass token ids, or tokenizer=."
            )
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.text_encoder.max_length, return_tensors="pt"
        )
        return batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {
            "image_encoder": self.image_encoder.to_config(),
            "text_encoder": self.text_encoder.to_config(),
            **self.options,
        }
        (save_directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        save_model(self, str(save_directory / WEIGHTS))
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> DualEncoder:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} is no saved model: {' and '.join(missing)} not found in it.")
        if "tokenizer" not in model_kwargs and (folder / "tokenizer_config.json").is_file():
            model_kwargs["tokenizer"] = load_tokenizer(folder)
        model = cls(**model_kwargs)
        load_model(model, str(folder / WEIGHTS), strict=True)
        return model.eval()
