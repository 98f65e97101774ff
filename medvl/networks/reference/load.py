"""Loading of published weights into a dual encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from medvl.networks.encoders.published import LoadReport
from medvl.networks.encoders.published.load import fit_weight
from medvl.networks.encoders.weight_files import read_weights
from medvl.networks.nets import DualEncoder
from medvl.networks.reference import layouts
from medvl.networks.reference.layouts import Rules, Unused
from medvl.utils.checks import check_option, error_message

SOURCES: dict[str, Callable[[Collection[str]], Rules]] = {
    "medclip": lambda names: layouts.MEDCLIP,
    "huggingface": layouts.hugging_face,
    "open_clip": lambda names: layouts.OPEN_CLIP,
    "openai_clip": lambda names: layouts.OPENAI_CLIP,
}
HARMLESS = (layouts.CONSTANT, layouts.NO_POOLER)


def load_reference_weights(
    model: DualEncoder, path: str | Path, source: str = "medclip", allow_partial: bool = False
) -> LoadReport:
    """Load published weights into a dual encoder of the same architecture.

    ============= ======================================================== =============================================
    ``source``    weights                                                  the model to build for them
    ============= ======================================================== =============================================
    "medclip"     MedCLIP's checkpoints (Wang et al. 2022,                 ``medclip("base", ...)``, for its Swin with
                  https://arxiv.org/abs/2210.10163), ResNet and Swin       ``image_encoder={"model_type": "swin",
                                                                           "num_channels": 3}``
    "huggingface" the folder of a ``CLIPModel`` or a                       encoders of the same configurations; an encoder
                  ``VisionTextDualEncoderModel``                           with a dense pooler needs a projection of
                                                                           ``{"layers": 2, "activation": "tanh",
                                                                           "bias": (True, False)}``
    "huggingface" the folder of a ``SiglipModel``, such as MedSigLIP's     encoders of the same configurations, the text with
                                                                           ``pooling="last"``, ``embed_dim`` their width,
                                                                           ``image_projection={"bias": False}``,
                                                                           ``logit_bias=-10.0``,
                                                                           ``logit_scale={"maximum": 200.0}``
    "open_clip"   state dicts with timm's ViT and a BERT, as BiomedCLIP's  a Hugging Face ViT with ``layer_norm_eps=1e-6``;
                  (Zhang et al. 2023, https://arxiv.org/abs/2303.00915)    text projection ``{"layers": 2, "activation":
                                                                           "gelu", "bias": False,
                                                                           "hidden_features": 640}``
    "openai_clip" state dicts of OpenAI's CLIP with a ViT (Radford et al.  Hugging Face's ``clip_vision_model`` and
                  2021, https://arxiv.org/abs/2103.00020), and CheXzero's  ``clip_text_model`` of the same sizes, the
                  (Tiu et al. 2022,                                        text with ``pooling="last"``; both
                  https://doi.org/10.1038/s41551-022-00936-9)              projections ``{"bias": False}``
    ============= ======================================================== =============================================

    The outputs are then those of the published model, up to rounding, for texts without padding; MedCLIP's own code averages
    over padding too. A convolution of three channels is summed over its channels for a model with one, which is equivalent to
    repeating a gray image, and a position table is interpolated for another image size. Unless all weights match, the model
    is not changed.

    Args:
        model: the dual encoder; its weights are changed in place.
        path: a folder or a file of weights (safetensors, or of ``torch.save``, loaded with ``weights_only=True``), also a
            training checkpoint or the weights of a wrapped model.
        source: layout of the weights.
        allow_partial: whether unused and missing weights are allowed; the report lists them.

    Returns:
        The used, renamed, unused and missing weights. Constants that older versions saved and poolers that no embedding uses
        are always unused, which is not an error.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the source is unknown; if a file is damaged or holds more than weights; and, unless ``allow_partial``,
            if weights are unused or missing. The message names the first one.

    Example:
        >>> import tempfile
        >>> from medvl.networks import medclip
        >>> model = medclip("small", image_size=32, embed_dim=8)
        >>> with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        ...     torch.save({"text_model.projection_head.weight": torch.ones(8, 128)}, file.name)
        ...     report = load_reference_weights(model, file.name, allow_partial=True)
        >>> report.renamed, bool((model.text_projection[0].weight == 1).all())
        ({'text_model.projection_head.weight': ('text_projection.0.weight',)}, True)
    """
    check_option(source, "source", tuple(SOURCES))
    published, own = read_weights(path), model.state_dict()
    rules = SOURCES[source](published.keys())
    values: dict[str, Tensor] = {}
    renamed: dict[str, tuple[str, ...]] = {}
    unused: dict[str, str] = {}
    adapted: list[str] = []
    for name, value in published.items():
        names = layouts.target_names(name, rules, own.keys())
        if isinstance(names, Unused):
            unused[name] = names.reason
            continue
        value = value.T if source == "openai_clip" and name in layouts.TRANSPOSED else value
        parts = value.chunk(len(names)) if len(names) > 1 else [value]
        converted = [_fit(target, part, own[target], adapted) for part, target in zip(parts, names, strict=True)]
        if any(part is None for part in converted):
            unused[name] = (
                f"its shape {tuple(value.shape)} is not that of {', '.join(names)}, {tuple(own[names[0]].shape)}"
            )
            continue
        values.update({target: part for target, part in zip(names, converted, strict=True) if part is not None})
        if names != [name]:
            renamed[name] = tuple(names)
    if "logit_bias" in values and "image_projection.0.weight" not in values:
        _add_identity(values, own, adapted)
    _check_scale(model, values)
    missing = tuple(name for name in own if name not in values and not name.endswith("num_batches_tracked"))
    report = LoadReport(
        tuple(name for name in published if name not in unused), renamed, unused, missing, tuple(adapted)
    )
    if not allow_partial:
        _check_whole(report, path)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return report


def _fit(name: str, value: Tensor, own: Tensor, adapted: list[str]) -> Tensor | None:
    """The published value in the shape of the model's weight, None if that is not possible; a scalar may be a vector of one."""
    if value.numel() == own.numel() == 1:
        return value.reshape(own.shape)
    return fit_weight(name, value, own, adapted)


def _add_identity(values: dict[str, Tensor], own: Mapping[str, Tensor], adapted: list[str]) -> None:
    """SigLIP has no projection of images: the model's becomes the identity."""
    weight = own.get("image_projection.0.weight")
    if weight is not None and weight.shape[0] == weight.shape[1]:
        values["image_projection.0.weight"] = torch.eye(len(weight))
        adapted.append("the projection of images is the identity, as the model has none")


def _check_scale(model: DualEncoder, values: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if the published scale of the logits is above the model's maximum, at which it is clipped."""
    log_scale = values.get("logit_scale.log_scale")
    if log_scale is not None and float(log_scale) > model.logit_scale.log_maximum + 1e-5:
        expected = f"have a maximum of at least {math.exp(float(log_scale)):.6g}, the published scale"
        raise ValueError(error_message("logit_scale", expected, f"{math.exp(model.logit_scale.log_maximum):.6g}"))


def _check_whole(report: LoadReport, path: str | Path) -> None:
    errors = {name: reason for name, reason in report.unused.items() if reason not in HARMLESS}
    if errors:
        name, reason = next(iter(errors.items()))
        count = len(report.used) + len(report.unused)
        raise ValueError(
            f"{path} does not match the model: {len(errors)} of its {count} weights cannot be used, the first {name} "
            f"({reason}); allow_partial=True loads the others."
        )
    if report.missing:
        raise ValueError(
            f"{path} does not match the model: {len(report.missing)} weights of the model are missing in it, the first "
            f"{report.missing[0]}; allow_partial=True keeps them."
        )
