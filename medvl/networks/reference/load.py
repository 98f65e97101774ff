"""Loading of published weights into a dual encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from medvl.networks.encoders.hugging_face_files import fetch_hint, find_folder
from medvl.networks.encoders.published import LoadReport
from medvl.networks.encoders.published.load import check_values, fit_weight
from medvl.networks.nets import DualEncoder
from medvl.networks.reference import layouts, medical
from medvl.networks.reference.layouts import Layout, Unused
from medvl.networks.reference.matching import best_source, check_config, without_prefix
from medvl.utils.checks import check_option, check_type, error_message

SOURCES: dict[str, Layout] = {
    "medclip": Layout(lambda names: layouts.MEDCLIP),
    "huggingface": Layout(layouts.hugging_face, prepare=layouts.prepare_hugging_face),
    "open_clip": Layout(lambda names: layouts.OPEN_CLIP),
    "openai_clip": Layout(lambda names: layouts.OPENAI_CLIP, names=layouts.OPENAI, prepare=layouts.prepare_openai),
    "gloria": medical.GLORIA,
    "mgca": medical.MGCA,
    "biovil": medical.BIOVIL,
    "cxr_clip": medical.CXR_CLIP,
    "ct_clip": medical.CT_CLIP,
}


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
    "gloria"      GLoRIA's checkpoint with a ResNet-50 (Huang et al. 2021) ``ImageEncoder("resnet50", patch_stage=3,
                                                                           input_size=299)``, a BERT with
                                                                           ``pooling="last_four_layers"``,
                                                                           ``embed_dim=768``, text projection
                                                                           ``{"bias": False}``, ``local_projections=True``
    "mgca"        MGCA's checkpoints (Wang et al. 2022,                    the same ResNet or a Hugging Face ViT; a BERT of
                  https://arxiv.org/abs/2210.06044)                        6 layers; both projections ``{"layers": 2,
                                                                           "hidden_features": 2048}``, ``embed_dim=128``,
                                                                           ``local_projections=True``
    "biovil"      the folder of CXR-BERT with the image model's file,      ``ImageEncoder("resnet50")`` and a BERT,
                  BioViL's (Boecking et al. 2022,                          ``embed_dim=128``, image projection ``{"layers":
                  https://arxiv.org/abs/2204.09817) or BioViL-T's          2}``, text projection ``{"layers": 2, "activation":
                  (Bannur et al. 2023, https://arxiv.org/abs/2301.04558)   "gelu", "layer_norm": True}``,
                                                                           ``image_pooling="projected_patches"``
    "cxr_clip"    CXR-CLIP's checkpoints (You et al. 2023,                 a ResNet-50, or a Swin with
                  https://arxiv.org/abs/2310.13292)                        ``image_pooling="first_patch"``; a BERT with
                                                                           ``pooling="last"``
    "ct_clip"     CT-CLIP's (Hamamci et al. 2024,                          ``ImageEncoder("ct_vit", spatial_dims=3,
                  https://arxiv.org/abs/2403.17834)                        image_size=480)``, a BERT; both projections
                                                                           ``{"bias": False}``
    ============= ======================================================== =============================================

    The outputs are then those of the published model, up to rounding, for texts without padding; MedCLIP's own code averages
    over padding too. A convolution of three channels is summed over its channels for a model with one, which is equivalent to
    repeating a gray image, and a position table is interpolated for another image size. Unless all weights match, the model
    is not changed.

    Args:
        model: the dual encoder; its weights are changed in place.
        path: a folder or a file of weights (safetensors, or of ``torch.save``, loaded with ``weights_only=True``), also a
            training checkpoint or the weights of a wrapped model; or the name of a model of the Hugging Face Hub that is in
            this machine's cache.
        source: layout of the weights.
        allow_partial: whether unused and missing weights are allowed; the report lists them.

    Returns:
        The used, renamed, unused and missing weights. Constants that older versions saved, poolers and parts of the training
        that no embedding uses, and projections of patches for a model without ``local_projections`` are unused, which is not
        an error. Batch norm in a projection is folded into its linear layers.

    Raises:
        FileNotFoundError: If the file does not exist.
        TypeError: If ``model`` is not a dual encoder or ``path`` not a path.
        ValueError: If the source is unknown; if a file is damaged or holds more than weights; if no weight of an encoder or a
            projection can be used; if a folder's ``config.json`` states other attention heads, another activation or another
            epsilon than the model has; and, unless ``allow_partial``, if weights are unused or missing. The message names the
            first one.

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
    check_type(model, "model", DualEncoder)
    check_type(path, "path", (str, Path))
    layout = SOURCES[source]
    place = find_folder(path) or Path(path).expanduser()
    if not os.path.exists(place):
        raise FileNotFoundError(
            f"path must be a file or folder of weights, got {path}, which does not exist{fetch_hint(path)}."
        )
    published, own = without_prefix(layout.read(place), layout), model.state_dict()
    if source == "huggingface":
        check_config(model, place)
    adapted: list[str] = []
    weights = dict(published)
    folded = layout.prepare(weights, adapted)
    rules = layout.rules(weights.keys())
    values: dict[str, Tensor] = {}
    renamed: dict[str, tuple[str, ...]] = {}
    unused: dict[str, str] = {}
    for name, value in weights.items():
        names = layouts.target_names(name, rules, own.keys(), layout.names)
        if isinstance(names, Unused):
            unused[name] = names.reason
            continue
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
    _follow_folded(folded, renamed, unused)
    _check_some(values, unused, path, source)
    _complete(layout, values, own, adapted)
    _check_scale(model, values)
    missing = tuple(name for name in own if name not in values and not name.endswith("num_batches_tracked"))
    report = LoadReport(
        tuple(name for name in published if name not in unused),
        {name: targets for name, targets in renamed.items() if name in published},
        unused,
        missing,
        tuple(dict.fromkeys(adapted)),
    )
    if not allow_partial:
        _check_whole(report, path)
    check_values(values, own, path)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return report


def _follow_folded(folded: Mapping[str, str], renamed: dict[str, tuple[str, ...]], unused: dict[str, str]) -> None:
    """Say of weights that became part of another what is said of that one."""
    for name, other in folded.items():
        if other in renamed:
            renamed[name] = renamed[other]
        else:
            unused[name] = unused[other]


def _complete(layout: Layout, values: dict[str, Tensor], own: Mapping[str, Tensor], adapted: list[str]) -> None:
    """Add what the published model does without a weight of its own."""
    for name, make, note in layout.complete:
        value = make(own[name]) if name in own and name not in values else None
        if value is not None:
            values[name] = value
            adapted.extend([] if note is None else [note])


def _fit(name: str, value: Tensor, own: Tensor, adapted: list[str]) -> Tensor | None:
    """The published value in the shape of the model's weight, None if that is not possible; a scalar may be a vector of one."""
    if value.numel() == own.numel() == 1:
        return value.reshape(own.shape)
    if value.shape != own.shape and not name.startswith(layouts.IMAGE):
        return None  # the positions of a text are not a grid
    return fit_weight(name, value, own, adapted)


def _check_scale(model: DualEncoder, values: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if the published scale of the logits is above the model's maximum, at which it is clipped.

    A scale of 100 in float16 is 100.03: what rounding adds does not count.
    """
    log_scale = values.get("logit_scale.log_scale")
    if log_scale is not None and float(log_scale) > model.logit_scale.log_maximum + 0.002:
        expected = f"have a maximum of at least {math.exp(float(log_scale)):.6g}, the published scale"
        raise ValueError(error_message("logit_scale", expected, f"{math.exp(model.logit_scale.log_maximum):.6g}"))


def _check_some(values: Mapping[str, Tensor], unused: Mapping[str, str], path: str | Path, source: str) -> None:
    """Raise ``ValueError`` if no weight but those of the logits is used: the weights are of another model."""
    if all(name.startswith("logit_") for name in values):
        name, reason = next(iter(unused.items()), ("", ""))
        first = f", the first {name} ({reason})" if name else ""
        other = best_source(unused, SOURCES)
        hint = f"; its names are those of source={other!r}" if other not in (None, source) else ""
        raise ValueError(f"{path} is not of the layout {source!r}: none of its weights can be used{first}{hint}.")


def _check_whole(report: LoadReport, path: str | Path) -> None:
    errors = {name: reason for name, reason in report.unused.items() if reason not in layouts.HARMLESS}
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
