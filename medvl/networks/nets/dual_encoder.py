"""An image encoder and a text encoder with projections to one embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from medvl.networks.blocks import LogitScale, ProjectionHead, normalize_embeds
from medvl.networks.blocks.projection import IMAGE_POOLINGS, pool_image
from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.nets.pretrained import (
    CONFIG,
    MODEL_CARD,
    load_weights,
    read_config,
    resolve_model_folder,
    save_model_folder,
)
from medvl.networks.nets.text_processor import TextProcessor
from medvl.text import split_sentences
from medvl.utils.checks import check_number, check_option, error_message
from medvl.utils.checksums import write_checksums
from medvl.utils.errors import plain_reason
from medvl.utils.targets import TARGET, Allowed, find_target

if TYPE_CHECKING:
    from typing import Self

HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")
TEXT_BATCH_SIZE = 256


class DualEncoder(
    nn.Module,
    ModelHubMixin,
    library_name="medvl",
    model_card_template=MODEL_CARD,
    tags=["medical", "vision-language"],
):
    """Image and text encoders with projections to unit vectors of one embedding space, and the scale of their logits.

    Saved in one folder and loaded from it (``save_pretrained``, ``from_pretrained``): ``config.json``,
    ``model.safetensors`` and, if there is a tokenizer, its files. No pickle is read.

    Args:
        image_encoder: the image encoder, or its configuration as ``to_config`` returns it.
        text_encoder: the text encoder, or its configuration.
        embed_dim: width D of the embedding space.
        image_projection: options of the images' :class:`~medvl.networks.ProjectionHead`, as ``{"layers": 2}``.
        text_projection: options of the texts' projection.
        local_projections: whether patches and sentences have projections of their own, with the same options. Then
            :meth:`forward` gives their embeddings too, for losses that match them. Otherwise :meth:`encode_patches` uses the
            images' projection.
        logit_scale: options of :class:`~medvl.networks.LogitScale`, as ``{"temperature": 0.1, "learnable": False}``.
        logit_bias: initial value of a learned bias of the logits, -10 in SigLIP, which
            :class:`~medvl.losses.SigmoidContrastiveLoss` takes; None for none.
        text_processor: the tokenizer and the encoding of reports, so that the model takes strings; or its configuration,
            without a tokenizer.
        image_pooling: what becomes an image's embedding: "encoder", the projection of the image encoder's embedding;
            "projected_patches", the mean of the projections of the patches, as in BioViL; or "first_patch", the projection of
            the first patch, as in CXR-CLIP with a Swin.

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
        image_projection: Mapping[str, Any] | None = None,
        text_projection: Mapping[str, Any] | None = None,
        local_projections: bool = False,
        logit_scale: Mapping[str, Any] | None = None,
        text_processor: TextProcessor | Mapping[str, Any] | None = None,
        logit_bias: float | None = None,
        image_pooling: str = "encoder",
    ) -> None:
        super().__init__()
        check_option(image_pooling, "image_pooling", IMAGE_POOLINGS)
        if isinstance(image_encoder, Mapping):
            image_encoder = ImageEncoder.from_config(image_encoder)
        if isinstance(text_encoder, Mapping):
            text_encoder = TextEncoder.from_config(text_encoder)
        if not isinstance(text_processor, TextProcessor):
            text_processor = TextProcessor(**(text_processor or {}))
        self.image_encoder, self.text_encoder, self.text_processor = image_encoder, text_encoder, text_processor
        self.options: dict[str, Any] = {
            "embed_dim": embed_dim,
            "image_projection": dict(image_projection or {}),
            "text_projection": dict(text_projection or {}),
            "local_projections": local_projections,
            "logit_scale": dict(logit_scale or {}),
        }
        self.image_pooling = image_pooling
        if image_pooling != "encoder":
            self.options["image_pooling"] = image_pooling
        pooled = image_encoder.out_features if image_pooling == "encoder" else image_encoder.patch_features
        widths = {"image": pooled, "text": text_encoder.out_features}
        self.image_projection, self.text_projection = self._projections(widths)
        self.patch_projection: ProjectionHead | None = None
        self.sentence_projection: ProjectionHead | None = None
        if local_projections:
            local_widths = {**widths, "image": image_encoder.patch_features}
            self.patch_projection, self.sentence_projection = self._projections(local_widths)
        self.logit_scale = LogitScale(**self.options["logit_scale"])
        self.logit_bias: nn.Parameter | None = None
        if logit_bias is not None:
            check_number(logit_bias, "logit_bias")
            self.options["logit_bias"] = float(logit_bias)
            self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)))

    def _projections(self, widths: Mapping[str, int]) -> list[ProjectionHead]:
        """A projection of image features and one of text features."""
        return [
            ProjectionHead(width, self.options["embed_dim"], **self.options[f"{side}_projection"])
            for side, width in widths.items()
        ]

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
        """Device of the weights."""
        return next(self.image_projection.parameters()).device

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, None without one."""
        return self.text_processor.tokenizer

    @property
    def max_length(self) -> int:
        """The maximum number of tokens of a text, as in training where the :class:`TextProcessor` knows that."""
        longest, trained = self.text_encoder.max_length, self.text_processor.max_length
        return longest if trained is None else min(longest, trained)

    def forward(
        self,
        image: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_ids: torch.Tensor | None = None,
        *,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embed N images and M texts; either may be left out.

        Args:
            image: (N, C, H, W[, D]).
            input_ids: (M, L) token ids.
            attention_mask: (M, L), nonzero for tokens to keep.
            sentence_ids: (M, L), the sentence of each token, -1 for none, as ``TokenizeText`` gives them.
            token_type_ids: (M, L), as a Hugging Face tokenizer gives; see :class:`TextEncoder`.

        Returns:
            ``image_embeds`` (N, D) and ``text_embeds`` (M, D), unit vectors, of what was given; ``logit_scale`` () and, if the
            model has one, ``logit_bias`` (). With ``local_projections`` also ``patch_embeds`` (N, P, D) and, if
            ``sentence_ids`` are given, ``sentence_embeds`` (M, S, D) and ``sentence_mask`` (M, S).

        Raises:
            ValueError: If neither images nor texts are given.
        """
        if image is None and input_ids is None:
            raise ValueError("image or input_ids must be given, got neither.")
        output = self._logit_parameters()
        if image is not None:
            features = self.image_encoder(image)
            output["image_embeds"] = self._embed_image(features)
            if self.patch_projection is not None:
                output["patch_embeds"] = normalize_embeds(self.patch_projection(features["patches"]))
        if input_ids is not None:
            output.update(self._embed_texts(input_ids, attention_mask, sentence_ids, token_type_ids))
        return output

    def _logit_parameters(self) -> dict[str, torch.Tensor]:
        """The scale of the logits and, if the model has one, their bias."""
        output = {"logit_scale": self.logit_scale()}
        return output if self.logit_bias is None else {**output, "logit_bias": self.logit_bias}

    def gradient_checkpointing_enable(self, enabled: bool = True) -> None:
        """Checkpoint both encoders: see :meth:`ImageEncoder.gradient_checkpointing_enable`.

        Args:
            enabled: False to turn it off.
        """
        self.image_encoder.gradient_checkpointing_enable(enabled)
        self.text_encoder.gradient_checkpointing_enable(enabled)

    def _embed_texts(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        sentence_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        local = self.sentence_projection is not None and sentence_ids is not None
        features = self.text_encoder(input_ids, attention_mask, sentence_ids if local else None, token_type_ids)
        output = {"text_embeds": normalize_embeds(self.text_projection(features["embed"]))}
        if self.sentence_projection is not None and local:
            output["sentence_embeds"] = normalize_embeds(self.sentence_projection(features["sentences"]))
            output["sentence_mask"] = features["sentence_mask"]
        return output

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, D) of images (N, C, H, W[, D])."""
        return self._embed_image(self.image_encoder(image))

    def _embed_image(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Unit vectors (N, D) from an image encoder's output."""
        return pool_image(features, self.image_projection, self.image_pooling)

    def encode_patches(self, image: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Unit vectors (N, P, D) of the patches of images (N, C, H, W[, D]), and their grid (h, w[, d])."""
        features = self.image_encoder(image)
        projection = self.image_projection if self.patch_projection is None else self.patch_projection
        return normalize_embeds(projection(features["patches"])), features["grid"]

    def tokenize(self, texts: Sequence[str] | str, max_length: int | None = None) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and, with a fast tokenizer, ``sentence_ids`` (M, L) of M strings.

        Args:
            texts: M strings.
            max_length: maximum number of tokens of a text; :attr:`max_length` by default.

        Raises:
            ValueError: If the model has no tokenizer.
        """
        length = self.max_length if max_length is None else max_length
        tokens = self.text_processor.tokenize(_as_list(texts), length)
        return {name: ids.to(self.device) for name, ids in tokens.items()}

    def encode_text(
        self, texts: torch.Tensor | Sequence[str] | str, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Unit vectors (M, D) of texts, each encoded as a whole.

        Args:
            texts: token ids (M, L), or any number M of strings, which are tokenized, truncated to :attr:`max_length` and
                encoded in batches.
            attention_mask: (M, L) for token ids, nonzero for tokens to keep.

        Raises:
            ValueError: If strings are given and the model has no tokenizer.
        """
        if isinstance(texts, torch.Tensor):
            return self._embed_texts(texts, attention_mask)["text_embeds"]
        texts = _as_list(texts)
        if not texts:
            return torch.zeros(0, self.options["embed_dim"], device=self.device)
        batches = [self.tokenize(texts[i : i + TEXT_BATCH_SIZE]) for i in range(0, len(texts), TEXT_BATCH_SIZE)]
        return torch.cat([self.encode_text(batch["input_ids"], batch["attention_mask"]) for batch in batches])

    def encode_with_prompt_tokens(
        self, texts: Sequence[str] | str, class_indices: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Unit vectors (M, D) of texts, such as class names, with the text encoder's learned prompt tokens beside them.

        Args:
            texts: M strings.
            class_indices: (M,), the class of each text, if every class has prompt tokens of its own.

        Raises:
            ValueError: If the text encoder has no prompt tokens, the model has no fast tokenizer, or ``class_indices`` are
                missing or out of range.
        """
        embedding = self.text_encoder.prompt_embedding
        reserved = 0 if embedding is None else embedding.num_tokens
        tokens = self.tokenize(texts, self.max_length - reserved)
        if "sentence_ids" not in tokens:
            raise ValueError("encode_with_prompt_tokens needs a fast tokenizer, which tells special tokens from text.")
        tokens = self.text_encoder.insert_prompt_tokens(**tokens, class_indices=class_indices)
        return self.encode_text(tokens["input_ids"], tokens["attention_mask"])

    def encode_class_prompts(self, texts: Sequence[str] | str) -> torch.Tensor:
        """Unit vectors (M, D) of texts that describe classes, as zero-shot classification compares images with.

        Prompt tokens that all classes share are put beside every text. Without prompt tokens, or with tokens of each class,
        the texts are encoded alone: a text does not say which class it belongs to.

        Args:
            texts: M strings.
        """
        embedding = self.text_encoder.prompt_embedding
        if embedding is None or embedding.num_classes is not None:
            return self.encode_text(texts)
        return self.encode_with_prompt_tokens(texts)

    def encode_reports(self, reports: Sequence[str] | str) -> torch.Tensor:
        """Unit vectors (M, D) of M reports, by the ``report_encoding`` of the :class:`~medvl.networks.TextProcessor`.

        Raises:
            ValueError: If the model has no tokenizer.
        """
        return self.text_processor.encode_reports(_as_list(reports), self.encode_text)

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
            attention_mask: (M, L) for token ids, nonzero for tokens to keep.
            sentence_ids: (M, L) for token ids, the sentence of each token, -1 for none.

        Returns:
            (M, S, D), S being the largest number of sentences, and a mask (M, S), True where there is a sentence.

        Raises:
            ValueError: If strings are given and the model has no tokenizer, or token ids without ``sentence_ids`` or without
                ``local_projections``.
        """
        if self.sentence_projection is None:
            if isinstance(texts, torch.Tensor):
                raise ValueError("texts must be strings for a model without local_projections, got token ids.")
            return self._encode_sentences_alone(_as_list(texts))
        if not isinstance(texts, torch.Tensor):
            tokens = self.tokenize(texts)
            texts, attention_mask = tokens["input_ids"], tokens["attention_mask"]
            sentence_ids = tokens.get("sentence_ids")
        if sentence_ids is None:
            raise ValueError("encode_sentences needs sentence_ids with token ids, or a fast tokenizer for strings.")
        output = self._embed_texts(texts, attention_mask, sentence_ids)
        return output["sentence_embeds"], output["sentence_mask"]

    def _encode_sentences_alone(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        sentences = [[text[start:end] for start, end in split_sentences(text)] for text in texts]
        embeds = self.encode_text([sentence for text in sentences for sentence in text])
        rows = embeds.split([len(text) for text in sentences])
        masks = [torch.ones(len(row), dtype=torch.bool, device=embeds.device) for row in rows]
        return pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True)

    def packages(self) -> list[str]:
        """The packages other than medvl, monai and torch whose code is part of the model, as an image encoder of your own."""
        backbone = self.to_config()["image_encoder"]["backbone"]
        names = [backbone.get(TARGET, "") if isinstance(backbone, Mapping) else "", type(self).__module__]
        return sorted({name.partition(".")[0] for name in names} - {"", "medvl", "monai", "torch"})

    def to_config(self) -> dict[str, Any]:
        """The class and the arguments that build this model with random weights, as plain values for JSON."""
        return {
            "architecture": _architecture(type(self)),
            "image_encoder": self.image_encoder.to_config(),
            "text_encoder": self.text_encoder.to_config(),
            "text_processor": self.text_processor.to_config(),
            **self.options,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> Self:
        """The model that :meth:`to_config` describes, this class or a subclass, with random weights.

        Args:
            config: the configuration.
            trusted_packages: packages whose code it may name; see :meth:`ImageEncoder.from_config`.

        Raises:
            ValueError: If the configuration is that of another class, or names code of a package that is not trusted.
        """
        arguments = dict(config)
        if isinstance(arguments.get("image_encoder"), Mapping):
            arguments["image_encoder"] = ImageEncoder.from_config(arguments["image_encoder"], trusted_packages)
        architecture = arguments.pop("architecture", _architecture(cls))
        known: dict[str, Any] = {_architecture(kind): kind for kind in _with_subclasses(cls)}
        if architecture not in known and "." in str(architecture):
            known[architecture] = find_target(architecture, Allowed(cls, ()), trusted_packages)
        check_option(architecture, "architecture", tuple(known))
        return known[architecture](**arguments)

    def _save_pretrained(self, save_directory: Path) -> None:
        names = save_model_folder(save_directory, self, self.to_config())
        write_checksums(save_directory, [*names, *self.text_processor.save_pretrained(save_directory)])

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, trusted_packages: Sequence[str] = (), **options: Any
    ) -> Self:
        """Load a saved model, of the class that was saved, in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder that ``save_pretrained`` wrote, or a name in the Hugging Face Hub.
            trusted_packages: packages whose code the folder may name, for an image encoder of your own; it is imported and run.
            **options: options of huggingface_hub (``revision``, ``cache_dir``, ``force_download``, ``local_files_only``,
                ``token``); arguments of the class, such as ``text_processor``, in place of the saved ones.

        Raises:
            FileNotFoundError: If the folder does not exist or is not a saved model.
            ValueError: If the folder holds a model that is neither of this class nor of a subclass or names code of a package
                that is not trusted, or a file in it is damaged or not as it was saved (``SHA256SUMS``).
        """
        hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        folder = resolve_model_folder(pretrained_model_name_or_path, **hub_options)
        config = read_config(folder)
        try:
            processor = TextProcessor.from_pretrained(folder, **config.get("text_processor", {}))
            model = cls.from_config({**config, "text_processor": processor, **options}, trusted_packages)
        except (TypeError, AttributeError, KeyError, RuntimeError) as error:  # of what a constructor does not expect
            raise ValueError(f"{folder / CONFIG} builds no {cls.__name__}: {plain_reason(error)}.") from error
        load_weights(model, folder)
        return model.eval()


def _architecture(kind: type[Any]) -> str:
    """The name of a class of medvl, or of another package with the package."""
    ours = kind.__module__.partition(".")[0] == "medvl"
    return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _with_subclasses(cls: type[DualEncoder]) -> list[type[Any]]:
    return [cls, *(kind for subclass in cls.__subclasses__() for kind in _with_subclasses(subclass))]


def _as_list(texts: Sequence[str] | str) -> list[str]:
    if not isinstance(texts, Iterable):
        raise TypeError(error_message("texts", "be a string or a list of strings", type(texts).__name__))
    return [texts] if isinstance(texts, str) else list(texts)
