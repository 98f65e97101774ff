"""An image tower and a text tower that meet in one space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from medvl.functional import scatter_patches
from medvl.networks.blocks import LogitScale, PatchContrastIntegrity, ProjectionHead
from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.nets.folder import MODEL_CARD, check_place, find_folder, load_weights, save_folder, saved_tokenizer
from medvl.networks.nets.masked import build_integrity, build_patch_decoder, own_sentences
from medvl.networks.nets.strings import telling_sentences, tokenize
from medvl.text import split_sentences
from medvl.utils.tensors import as_plain

REPORT_ENCODINGS = ("whole", "sentences")
INTEGRITIES = (None, "report", "contrast")
HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")
TEXTS_AT_ONCE = 256


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
        image_projection: options of the images' :class:`~medvl.networks.blocks.ProjectionHead`, before the two above, as
            ``{"layers": 2, "activation": "gelu"}``.
        text_projection: the same for the texts.
        temperature: initial temperature tau of the logits.
        learnable_temperature: whether tau is learned.
        local_projections: whether patches and sentences have projections of their own. Then :meth:`forward` gives their
            embeddings too, for losses that match them. Without them :meth:`encode_patches` takes the images' projection.
        report_encoding: how :meth:`encode_reports` embeds a report: "whole", as one text; or "sentences", as the mean of its
            sentences' unit vectors, itself of unit length, which suits a model that was trained on sentences.
        patch_decoder: options of a :class:`~medvl.networks.blocks.PatchDecoder` over the image tower, as
            ``{"features": 128}``, or ``{}``; None for none. It predicts the pixels of masked images.
        semantic_integrity: how :meth:`forward` weighs masked images: "report", the share of its report's attention that is
            visible (:class:`~medvl.networks.blocks.SemanticIntegrity`; needs ``local_projections``, and a pass over the whole
            image without gradient); "contrast", the share of its pixels' contrast
            (:class:`~medvl.networks.blocks.PatchContrastIntegrity`); None, not at all.
        tokenizer: the Hugging Face tokenizer that fits the text tower; lets :meth:`encode_text` take strings, and is saved
            with the weights.

    Raises:
        ValueError: an unknown ``report_encoding`` or ``semantic_integrity``; masking options with an image tower that takes no
            ``visible`` patches; ``semantic_integrity="report"`` without ``local_projections``.

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
        image_projection: Mapping[str, Any] | None = None,
        text_projection: Mapping[str, Any] | None = None,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
        local_projections: bool = False,
        report_encoding: str = "whole",
        patch_decoder: Mapping[str, Any] | None = None,
        semantic_integrity: str | None = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        _check_option("report_encoding", report_encoding, REPORT_ENCODINGS)
        _check_option("semantic_integrity", semantic_integrity, INTEGRITIES)
        if semantic_integrity == "report" and not local_projections:
            raise ValueError("semantic_integrity='report' needs local_projections=True, received False.")
        if isinstance(image_encoder, Mapping):
            image_encoder = ImageEncoder.from_config(image_encoder)
        if isinstance(text_encoder, Mapping):
            text_encoder = TextEncoder.from_config(text_encoder)
        self.image_encoder, self.text_encoder = image_encoder, text_encoder

        heads = {"layers": projection_layers, "bias": projection_bias}
        image_head = {**heads, **(image_projection or {})}
        text_head = {**heads, **(text_projection or {})}
        self.image_projection = ProjectionHead(image_encoder.out_features, embed_dim, **image_head)
        self.text_projection = ProjectionHead(text_encoder.out_features, embed_dim, **text_head)
        self.patch_projection = self.sentence_projection = None
        if local_projections:
            self.patch_projection = ProjectionHead(image_encoder.out_features, embed_dim, **image_head)
            self.sentence_projection = ProjectionHead(text_encoder.out_features, embed_dim, **text_head)
        self.patch_decoder = None if patch_decoder is None else build_patch_decoder(image_encoder, patch_decoder)
        self.semantic_integrity = (
            None if semantic_integrity is None else build_integrity(image_encoder, semantic_integrity)
        )
        self.logit_scale = LogitScale(temperature, learnable=learnable_temperature)
        self.tokenizer = tokenizer
        self.options = {
            "embed_dim": embed_dim,
            "projection_layers": projection_layers,
            "projection_bias": projection_bias,
            "image_projection": None if image_projection is None else dict(image_projection),
            "text_projection": None if text_projection is None else dict(text_projection),
            "temperature": temperature,
            "learnable_temperature": learnable_temperature,
            "local_projections": local_projections,
            "report_encoding": report_encoding,
            "patch_decoder": None if patch_decoder is None else dict(patch_decoder),
            "semantic_integrity": semantic_integrity,
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

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this model anew (with random weights, without tokenizer), as plain values for JSON."""
        return {
            "image_encoder": self.image_encoder.to_config(),
            "text_encoder": self.text_encoder.to_config(),
            **self.options,
        }

    def forward(
        self,
        image: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
        image_ids: torch.Tensor | None = None,
        text_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embeds N images and M texts; either may be left out.

        Args:
            image: (N, C, H, W[, D]).
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero = keep.
            sentence_ids: (M, L), the sentence of each token, -1 for none; what ``TokenizeText`` gives.
            visible: (N, P') indices of the patches that the image tower sees; all of them where None.
            image_ids: (N,), which study an image is of; with ``text_ids`` it finds an image's own report where there are not
                as many texts as images, in the same order.
            text_ids: (M,), which study a text is of.

        Returns:
            ``image_embeds`` (N, D) and ``text_embeds`` (M, D), unit vectors, of what was given; ``logit_scale`` (). And:

            - with ``local_projections``, ``patch_embeds`` (N, P, D), 0 for a patch that is hidden, and, where ``sentence_ids``
              are given, ``sentence_embeds`` (M, S, D) and ``sentence_mask`` (M, S);
            - with ``visible``, ``visible_mask`` (N, P), again as ``patch_mask``, by which name losses take it;
            - with ``visible`` and a decoder, ``patch_prediction`` (N, P, pixels);
            - with ``visible`` and integrity, ``semantic_integrity`` (N,), again as ``weights``, by which name losses take it.

        Raises:
            ValueError: where neither images nor texts are given, or an image's own report cannot be told.
        """
        if image is None and input_ids is None:
            raise ValueError("image or input_ids is needed, received neither.")
        output: dict[str, torch.Tensor] = {"logit_scale": self.logit_scale()}
        if image is not None:
            output.update(self._embed_images(image, visible))
        if input_ids is not None:
            output.update(self._embed_texts(input_ids, attention_mask, sentence_ids))
        if image is not None and visible is not None:
            integrity = self._integrity(image, output, image_ids, text_ids)
            if integrity is not None:
                output["semantic_integrity"] = output["weights"] = integrity
        return output

    def _embed_images(self, image: torch.Tensor, visible: torch.Tensor | None) -> dict[str, torch.Tensor]:
        visible = None if visible is None else as_plain(visible)
        features = self.image_encoder(image) if visible is None else self.image_encoder(image, visible=visible)
        output = {"image_embeds": unit(self.image_projection(features["embed"]))}
        patches = math.prod(features["grid"])
        if visible is not None:
            mask = torch.zeros(len(image), patches, dtype=torch.bool, device=image.device).scatter(1, visible, True)
            output["visible_mask"] = output["patch_mask"] = mask
            if self.patch_decoder is not None:
                output["patch_prediction"] = self.patch_decoder(features["patches"], visible, features["grid"])
        if self.patch_projection is not None:
            embeds = unit(self.patch_projection(features["patches"]))
            if visible is not None:
                embeds = scatter_patches(embeds, visible, embeds.new_zeros(1), patches)
            output["patch_embeds"] = embeds
        return output

    def _embed_texts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, sentence_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        local = self.sentence_projection is not None and sentence_ids is not None
        features = self.text_encoder(input_ids, attention_mask, sentence_ids if local else None)
        output = {"text_embeds": unit(self.text_projection(features["embed"]))}
        if self.sentence_projection is not None and local:
            output["sentence_embeds"] = unit(self.sentence_projection(features["sentences"]))
            output["sentence_mask"] = features["sentence_mask"]
        return output

    def _integrity(
        self,
        image: torch.Tensor,
        output: Mapping[str, torch.Tensor],
        image_ids: torch.Tensor | None,
        text_ids: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Integrity (N,) of masked images; None where the model has none, or it is the report's and no sentence is given."""
        block = self.semantic_integrity
        if isinstance(block, PatchContrastIntegrity):
            return block(image, output["visible_mask"])
        if block is None or "sentence_embeds" not in output:
            return None
        sentences, mask = own_sentences(
            len(image), output["sentence_embeds"], output["sentence_mask"], image_ids, text_ids
        )
        with torch.no_grad():
            whole, _ = self.encode_patches(image)
        return block(whole, sentences.detach(), output["visible_mask"], sentence_mask=mask)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, D) of images (N, C, H, W[, D])."""
        return unit(self.image_projection(self.image_encoder(image)["embed"]))

    def encode_patches(self, image: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Unit vectors (N, P, D) of the patches of images (N, C, H, W[, D]), and their grid (h, w[, d])."""
        features = self.image_encoder(image)
        head = self.image_projection if self.patch_projection is None else self.patch_projection
        return unit(head(features["patches"])), features["grid"]

    def encode_text(
        self, texts: torch.Tensor | Sequence[str] | str, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Unit vectors (M, D) of texts, each taken as a whole.

        Args:
            texts: token ids (M, L), or M strings, which the model's tokenizer splits and cuts at the text tower's length; any
                number of them, which are encoded some at a time.
            attention_mask: (M, L) of token ids, nonzero = keep.

        Raises:
            ValueError: strings where the model has no tokenizer.
        """
        if isinstance(texts, torch.Tensor):
            return self._embed_texts(texts, attention_mask)["text_embeds"]
        texts = as_list(texts)
        if not texts:
            return torch.zeros(0, self.options["embed_dim"], device=self.device)
        batches = [self.tokenize(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
        return torch.cat([self.encode_text(batch["input_ids"], batch["attention_mask"]) for batch in batches])

    def encode_with_prompts(
        self, texts: Sequence[str] | str, class_indices: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Unit vectors (M, D) of texts, such as class names, with the text tower's learned prompt tokens beside them.

        Args:
            texts: M strings.
            class_indices: (M,), the class of each text, where every class has tokens of its own.

        Raises:
            ValueError: where the text tower has no prompt tokens, the model no fast tokenizer, or classes do not fit.
        """
        embedding = self.text_encoder.prompt_embedding
        tokens = self.tokenize(texts, room_for=0 if embedding is None else embedding.num_tokens)
        if "sentence_ids" not in tokens:
            raise ValueError("encode_with_prompts needs a fast tokenizer, which tells special tokens from the text's.")
        tokens = self.text_encoder.insert_prompt_tokens(**tokens, class_indices=class_indices)
        return self.encode_text(tokens["input_ids"], tokens["attention_mask"])

    def encode_prompts(self, texts: Sequence[str] | str) -> torch.Tensor:
        """Unit vectors (M, D) of prompts: with the learned prompt tokens where one set serves all classes, else as texts.

        Args:
            texts: M strings.
        """
        embedding = self.text_encoder.prompt_embedding
        if embedding is None or embedding.num_classes is not None:
            return self.encode_text(texts)
        return self.encode_with_prompts(texts)

    def encode_sentences(
        self,
        texts: torch.Tensor | Sequence[str] | str,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of every sentence of M texts.

        With ``local_projections`` a sentence is the mean of its tokens within the whole text, as in training; without them
        each sentence is encoded alone.

        Args:
            texts: M strings, split by :func:`medvl.text.split_sentences`; or, with ``local_projections``, token ids (M, L).
            attention_mask: (M, L) of token ids, nonzero = keep.
            sentence_ids: (M, L) of token ids, the sentence of each token, -1 for none.

        Returns:
            (M, S, D), S being the largest number of sentences, and a mask (M, S) that is True where there is one.

        Raises:
            ValueError: strings where the model has no tokenizer; token ids without ``sentence_ids`` or local projections.
        """
        if self.sentence_projection is None:
            return self._encode_sentences_alone(texts)
        if not isinstance(texts, torch.Tensor):
            tokens = self.tokenize(texts)
            texts, attention_mask, sentence_ids = (
                tokens.get(name) for name in ("input_ids", "attention_mask", "sentence_ids")
            )
        if sentence_ids is None:
            raise ValueError("encode_sentences needs sentence_ids beside token ids, or a fast tokenizer for strings.")
        output = self._embed_texts(texts, attention_mask, sentence_ids)
        return output["sentence_embeds"], output["sentence_mask"]

    def _encode_sentences_alone(self, texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(texts, torch.Tensor):
            raise ValueError(
                "encode_sentences takes strings where the model has no local_projections, received token ids."
            )
        split = [[text[start:end] for start, end in split_sentences(text)] for text in as_list(texts)]
        embeds = self.encode_text([sentence for sentences in split for sentence in sentences])
        rows = embeds.split([len(sentences) for sentences in split])
        kept = [torch.ones(len(row), dtype=torch.bool, device=embeds.device) for row in rows]
        return pad_sequence(list(rows), batch_first=True), pad_sequence(kept, batch_first=True)

    def encode_reports(self, reports: Sequence[str] | str) -> torch.Tensor:
        """Unit vectors (M, D) of M reports, by the model's ``report_encoding``.

        "whole" is :meth:`encode_text`. "sentences" takes the mean of the unit vectors of a report's sentences, each encoded
        alone, and scales it to unit length; headers and sentences without a word do not count.

        Raises:
            ValueError: where the model has no tokenizer.
        """
        reports = as_list(reports)
        if self.options["report_encoding"] == "whole":
            return self.encode_text(reports)
        split = [telling_sentences(report) or [report] for report in reports]
        distinct = {sentence: None for sentences in split for sentence in sentences}
        place = {sentence: number for number, sentence in enumerate(distinct)}
        embeds = self.encode_text(list(distinct))
        rows = [place[sentence] for sentences in split for sentence in sentences]
        owners = [report for report, sentences in enumerate(split) for _ in sentences]
        index = torch.tensor([rows, owners], dtype=torch.long, device=embeds.device)
        sums = embeds.new_zeros(len(reports), embeds.shape[1]).index_add(0, index[1], embeds[index[0]])
        return F.normalize(sums, dim=-1)

    def tokenize(self, texts: Sequence[str] | str, room_for: int = 0) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and, by a fast tokenizer, ``sentence_ids`` (M, L) of M strings.

        Args:
            texts: M strings, cut at the text tower's length.
            room_for: tokens by which they are cut shorter than that.

        Raises:
            ValueError: where the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("strings were given, but the model has no tokenizer: pass token ids, or tokenizer=.")
        tokens = tokenize(self.tokenizer, as_list(texts), self.text_encoder.max_length - room_for)
        return {name: ids.to(self.device) for name, ids in tokens.items()}

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(save_directory, self, self.to_config(), self.tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> DualEncoder:
        """Reads a saved model, in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder that ``save_pretrained`` wrote, or a name in the Hugging Face Hub.
            **options: of huggingface_hub's ``ModelHubMixin.from_pretrained``; arguments of this class, such as ``tokenizer``.

        Raises:
            FileNotFoundError: a folder that is not there, or holds no saved model.
        """
        check_place(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> DualEncoder:
        hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        folder = find_folder(model_id, **hub)
        if "tokenizer" not in kwargs:
            kwargs["tokenizer"] = saved_tokenizer(folder)
        model = cls(**kwargs)
        load_weights(model, folder)
        return model.eval()


def unit(embeds: torch.Tensor) -> torch.Tensor:
    """Unit vectors in float32, whatever autocast made of them."""
    return F.normalize(embeds.float(), dim=-1)


def as_list(texts: Sequence[str] | str) -> list[str]:
    """One string as a list of one."""
    return [texts] if isinstance(texts, str) else list(texts)


def _check_option(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, received {value!r}.")
