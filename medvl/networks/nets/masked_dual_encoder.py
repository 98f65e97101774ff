"""A dual encoder for images of which some patches are masked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medvl.functional import group_by_id, scatter_patches
from medvl.networks.blocks import PatchContrastIntegrity, PatchDecoder, SemanticIntegrity, normalize_embeds
from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.utils.checks import check_option, error_message
from medvl.utils.tensors import as_ids, as_plain

INTEGRITY_SOURCES = (None, "report", "contrast")


class MaskedDualEncoder(DualEncoder):
    """A dual encoder whose image encoder sees only the visible patches, with a decoder of the masked ones (MLIP).

    Args:
        image_encoder: the image encoder, a ViT or a ResNet unless nothing is ever masked, or its configuration.
        text_encoder: the text encoder, or its configuration.
        patch_decoder: options of a :class:`~medvl.networks.PatchDecoder` over the image encoder, as ``{"features": 128}`` or
            ``{}``; None for no decoder. It predicts the pixels of masked images.
        semantic_integrity: what the weights of masked images come from: "report", the share of their report's attention that
            falls on visible patches (:class:`~medvl.networks.SemanticIntegrity`; needs ``local_projections``, and a pass over
            the whole image without gradient); "contrast", the share of their contrast that lies in visible patches
            (:class:`~medvl.networks.PatchContrastIntegrity`); None for no weights.
        **options: the other arguments of :class:`DualEncoder`.

    Raises:
        ValueError: If ``semantic_integrity`` is unknown, or "report" without ``local_projections``; if a decoder or an
            integrity is asked for and the image encoder does not support masking.

    Example:
        >>> vit = ImageEncoder("vit", image_size=32, patch_size=8, hidden_size=16, num_layers=1, num_heads=2)
        >>> bert = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = MaskedDualEncoder(vit, TextEncoder(bert), {"features": 8}, "contrast", embed_dim=4)
        >>> output = model(torch.rand(1, 1, 32, 32), visible_indices=torch.tensor([[0, 5, 9]]))
        >>> {name: tuple(value.shape) for name, value in output.items()}
        {'logit_scale': (), 'image_embeds': (1, 4), 'visible_mask': (1, 16), 'patch_prediction': (1, 16, 64),
         'semantic_integrity': (1,)}
    """

    def __init__(
        self,
        image_encoder: ImageEncoder | Mapping[str, Any],
        text_encoder: TextEncoder | Mapping[str, Any],
        patch_decoder: Mapping[str, Any] | None = None,
        semantic_integrity: str | None = None,
        **options: Any,
    ) -> None:
        check_option(semantic_integrity, "semantic_integrity", INTEGRITY_SOURCES)
        super().__init__(image_encoder, text_encoder, **options)
        if semantic_integrity == "report" and self.sentence_projection is None:
            raise ValueError(error_message("local_projections", "be True for semantic_integrity='report'", False))
        self.options["patch_decoder"] = None if patch_decoder is None else dict(patch_decoder)
        self.options["semantic_integrity"] = semantic_integrity
        self.patch_decoder: PatchDecoder | None = None
        if patch_decoder is not None:
            self.patch_decoder = PatchDecoder(
                self.image_encoder.patch_features,
                patch_size=self._patch_size("patch_decoder"),
                in_channels=self.image_encoder.in_channels,
                spatial_dims=self.image_encoder.spatial_dims,
                **patch_decoder,
            )
        self.semantic_integrity: SemanticIntegrity | PatchContrastIntegrity | None = None
        if semantic_integrity is not None:
            patch_size = self._patch_size("semantic_integrity")
            by_report = semantic_integrity == "report"
            self.semantic_integrity = SemanticIntegrity() if by_report else PatchContrastIntegrity(patch_size)
        # The scale stays the last parameter: the rounding of a gradient's norm depends on their order.
        logit_scale = self.logit_scale
        del self.logit_scale
        self.logit_scale = logit_scale

    def _patch_size(self, option: str) -> tuple[int, ...]:
        encoder = self.image_encoder
        if not encoder.supports_masking or encoder.patch_size is None:
            expected = f"support masking, as a ViT does, for {option}"
            raise ValueError(error_message("image_encoder", expected, f"a {type(encoder.backbone).__name__}"))
        return encoder.patch_size

    def forward(
        self,
        image: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
        visible_indices: torch.Tensor | None = None,
        image_ids: torch.Tensor | Sequence[str] | None = None,
        text_ids: torch.Tensor | Sequence[str] | None = None,
        *,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embed N images, of which only some patches are visible, and M texts; either may be left out.

        Args:
            image: (N, C, H, W[, D]), the whole images.
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero for tokens to keep.
            sentence_ids: (M, L), the sentence of each token, -1 for none.
            visible_indices: (N, P') indices of the visible patches; all patches are visible if None.
            image_ids: (N,) integers or strings, the study of each image; with ``text_ids`` it tells which report belongs to an
                image. Without ids there must be as many texts as images, in the same order.
            text_ids: (M,), the study of each text.
            token_type_ids: (M, L), as a Hugging Face tokenizer gives; see :class:`TextEncoder`.

        Returns:
            The output of :meth:`DualEncoder.forward`, in which ``patch_embeds`` are 0 for masked patches. With
            ``visible_indices`` also ``visible_mask`` (N, P); with a decoder ``patch_prediction`` (N, P, pixels); with an
            integrity ``semantic_integrity`` (N,), unless it is the report's and there are no ``sentence_embeds``.

        Raises:
            ValueError: If neither images nor texts are given, or the report of an image cannot be determined.
        """
        if image is None or visible_indices is None:
            return super().forward(image, input_ids, attention_mask, sentence_ids, token_type_ids=token_type_ids)
        output = {**self._logit_parameters(), **self._embed_visible(image, as_plain(visible_indices))}
        if input_ids is not None:
            output.update(self._embed_texts(input_ids, attention_mask, sentence_ids, token_type_ids))
        integrity = self._integrity(image, output, image_ids, text_ids)
        return output if integrity is None else {**output, "semantic_integrity": integrity}

    def _embed_visible(self, image: torch.Tensor, visible_indices: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.image_encoder(image, visible_indices=visible_indices)
        patches = math.prod(features["grid"])
        mask = torch.zeros(len(image), patches, dtype=torch.bool, device=image.device)
        output = {
            "image_embeds": self._embed_image(features),
            "visible_mask": mask.scatter(1, visible_indices, True),
        }
        if self.patch_decoder is not None:
            output["patch_prediction"] = self.patch_decoder(features["patches"], visible_indices, features["grid"])
        if self.patch_projection is not None:
            embeds = normalize_embeds(self.patch_projection(features["patches"]))
            output["patch_embeds"] = scatter_patches(embeds, visible_indices, embeds.new_zeros(1), patches)
        return output

    def _integrity(
        self,
        image: torch.Tensor,
        output: Mapping[str, torch.Tensor],
        image_ids: torch.Tensor | Sequence[str] | None,
        text_ids: torch.Tensor | Sequence[str] | None,
    ) -> torch.Tensor | None:
        """Semantic integrity (N,) of masked images, None where it is not defined."""
        if isinstance(self.semantic_integrity, PatchContrastIntegrity):
            return self.semantic_integrity(image, output["visible_mask"])
        if self.semantic_integrity is None or "sentence_embeds" not in output:
            return None
        sentences, mask = _sentences_of_images(
            len(image), output["sentence_embeds"], output["sentence_mask"], image_ids, text_ids
        )
        with torch.no_grad():
            patches, _ = self.encode_patches(image)
        return self.semantic_integrity(patches, sentences.detach(), output["visible_mask"], sentence_mask=mask)


def _sentences_of_images(
    images: int,
    sentence_embeds: torch.Tensor,
    sentence_mask: torch.Tensor,
    image_ids: torch.Tensor | Sequence[str] | None,
    text_ids: torch.Tensor | Sequence[str] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sentences (N, S, D) of each image's texts and their mask (N, S), all False for an image without a text."""
    if image_ids is not None and text_ids is not None:
        image_ids = as_ids(image_ids, "image_ids", images, sentence_embeds.device)
        text_ids = as_ids(text_ids, "text_ids", len(sentence_embeds), sentence_embeds.device)
        rows, mask, ids = group_by_id(
            sentence_embeds[sentence_mask], text_ids.unsqueeze(1).expand_as(sentence_mask)[sentence_mask]
        )
        same = image_ids.unsqueeze(1) == ids  # (N, R)
        if not len(ids):
            return sentence_embeds.new_zeros(images, 1, sentence_embeds.shape[2]), sentence_mask.new_zeros(images, 1)
        group = same.int().argmax(1)
        return rows[group], mask[group] & same.any(1, keepdim=True)
    if len(sentence_embeds) != images:
        given = f"{images} images and {len(sentence_embeds)} texts without ids"
        raise ValueError(error_message("image_ids and text_ids", "tell which report belongs to an image", given))
    return sentence_embeds, sentence_mask
