"""What the factories of published architectures share: their arguments, and encoders from a preset or from the caller."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.encoders.hugging_face_files import find_folder, load_tokenizer
from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.text_processor import TextProcessor
from medvl.utils.checks import check_option, error_message

Model = TypeVar("Model", bound=DualEncoder, covariant=True)
Preset = Mapping[str, Mapping[str, Any]]
"""Options of :class:`ImageEncoder` under "image", of :class:`TextEncoder` under "text", and of the model under "model"."""

BERT_BASE = {"model_type": "bert"}
BERT_SMALL = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""A text encoder that learns the language of reports in minutes on a CPU."""

RESNET_BASE = {"backbone": "resnet50"}
RESNET_SMALL = {"backbone": "resnet10", "width": 0.5, "output_stride": 8}

SHARED_ARGUMENTS = """
    spatial_dims: 2 or 3.
    in_channels: channels of the image.
    image_size: side of the images in pixels.
    image_encoder: in place of the preset's: an :class:`ImageEncoder`, which keeps its own dimensions, channels and size;
        a backbone for one; or its options, as ``{"backbone": "resnet50", "weights": "resnet50.pth"}``.
    text_encoder: in place of the preset's: a :class:`TextEncoder`, a Hugging Face text model, its configuration, a local
        folder, or a name in the Hugging Face Hub that is in this machine's cache.
    embed_dim: width D of the embedding space.
    tokenizer: the Hugging Face tokenizer, which sets the vocabulary size of the preset's text encoder; read from
        ``text_encoder`` if that is a folder with a tokenizer.
    **options: arguments of the model class, in place of this architecture's. Of a dictionary, such as ``logit_scale``,
        only the entries that are given are replaced.

Raises:
    ValueError: If the preset is unknown, or the tokenizer has more tokens than the text model.
"""


class DualEncoderFactory(Protocol[Model]):
    """The signature of a factory of dual encoders."""

    __name__: str

    def __call__(
        self,
        preset: str = "base",
        spatial_dims: int = 2,
        in_channels: int = 1,
        image_size: int = 224,
        image_encoder: Any = None,
        text_encoder: Any = None,
        embed_dim: int = 512,
        tokenizer: Any = None,
        **options: Any,
    ) -> Model:
        """Build the model; see the factory."""
        ...


def dual_encoder_factory(
    presets: Mapping[str, Preset], model_class: Callable[..., Model]
) -> Callable[[Callable[..., dict[str, Any]]], DualEncoderFactory[Model]]:
    """A decorator that makes a factory of dual encoders from a function that returns what is particular to one of them.

    The decorated function takes arguments that only this architecture has. It returns arguments of ``model_class`` as a
    dictionary; its "text_encoder" are more options of a :class:`TextEncoder` that is built here, and its
    "report_encoding" goes to the :class:`TextProcessor`. Its docstring gets the description of the shared arguments before
    "Example:".

    Args:
        presets: by name.
        model_class: class of the model.
    """

    def decorate(architecture: Callable[..., dict[str, Any]]) -> DualEncoderFactory[Model]:
        own = inspect.signature(architecture).parameters

        @wraps(architecture, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        def factory(
            preset: str = "base",
            spatial_dims: int = 2,
            in_channels: int = 1,
            image_size: int = 224,
            image_encoder: Any = None,
            text_encoder: Any = None,
            embed_dim: int = 512,
            tokenizer: Any = None,
            **options: Any,
        ) -> Model:
            check_option(preset, "preset", tuple(presets))
            parts = presets[preset]
            arguments = architecture(**{name: options.pop(name) for name in own if name in options})
            text_options = {**parts["text"], **arguments.pop("text_encoder", {})}
            report_encoding = arguments.pop("report_encoding", "whole")
            if not isinstance(image_encoder, ImageEncoder):
                image_options = parts["image"] if image_encoder is None else _image_options(image_encoder)
                shape = {"spatial_dims": spatial_dims, "in_channels": in_channels, "image_size": image_size}
                image_encoder = ImageEncoder(**{**shape, **image_options})
            if tokenizer is None and isinstance(text_encoder, str | Path) and _has_tokenizer(text_encoder):
                tokenizer = load_tokenizer(text_encoder)
            text_encoder = _build_text_encoder(text_encoder, text_options, tokenizer)
            processor = TextProcessor(tokenizer, report_encoding)
            arguments = {"embed_dim": embed_dim, "text_processor": processor, **arguments}
            return model_class(image_encoder, text_encoder, **_merge({**parts.get("model", {}), **arguments}, options))

        shared = inspect.signature(factory, follow_wrapped=False)
        extra = [own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in own]
        *positional, options = shared.parameters.values()
        signature = shared.replace(parameters=[*positional, *extra, options], return_annotation=model_class)
        factory.__signature__ = signature  # type: ignore[attr-defined]
        head, separator, example = inspect.cleandoc(architecture.__doc__ or "").partition("\n\nExample:")
        factory.__doc__ = head + SHARED_ARGUMENTS.rstrip() + separator + example
        return factory

    return decorate


def _build_text_encoder(text_encoder: Any, options: Mapping[str, Any], tokenizer: Any) -> TextEncoder:
    """The text encoder that was given, or one with ``options``, for the tokens of ``tokenizer``."""
    if not isinstance(text_encoder, TextEncoder):
        model = options["model"] if text_encoder is None else text_encoder
        if text_encoder is None and tokenizer is not None:
            model = {**model, "vocab_size": len(tokenizer)}
        text_encoder = TextEncoder(**{**options, "model": model})
    if tokenizer is not None and len(tokenizer) > text_encoder.vocab_size:
        expected = f"have at most {text_encoder.vocab_size} tokens, as many as the text model"
        raise ValueError(error_message("tokenizer", expected, len(tokenizer)))
    return text_encoder


def _merge(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` updated with ``options``; of a mapping in both, only the entries that are given change."""
    merged = {**arguments, **options}
    for name in arguments.keys() & options.keys():
        if isinstance(arguments[name], Mapping) and isinstance(options[name], Mapping):
            merged[name] = {**arguments[name], **options[name]}
    return merged


def _image_options(image_encoder: Any) -> dict[str, Any]:
    """The options of an image encoder: those that are given under ``backbone`` and other names, or a backbone alone."""
    if isinstance(image_encoder, Mapping) and "backbone" in image_encoder:
        return dict(image_encoder)
    return {"backbone": image_encoder}


def _has_tokenizer(source: str | Path) -> bool:
    folder = find_folder(source)
    if folder is None:
        return False
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"))
