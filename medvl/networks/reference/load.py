"""Published weights into a dual encoder, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medvl.networks.nets import DualEncoder
from medvl.networks.reference import layouts
from medvl.networks.reference.files import read_weights
from medvl.networks.reference.layouts import Left, Rules

SOURCES: dict[str, Callable[[Collection[str]], Rules]] = {
    "medclip": lambda names: layouts.MEDCLIP,
    "huggingface": layouts.hugging_face,
    "open_clip": lambda names: layouts.OPEN_CLIP,
}
HARMLESS = (layouts.CONSTANT, layouts.NO_POOLER)


@dataclass(frozen=True)
class LoadReport:
    """What became of every published weight.

    Args:
        used: published names whose values the model now has.
        renamed: of these, those that the model calls otherwise, with its names.
        left: published names that were not used, with the reason.
        missing: the model's names that kept their values.
    """

    used: tuple[str, ...]
    renamed: dict[str, tuple[str, ...]]
    left: dict[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        counts = (
            f"{len(self.used)} used ({len(self.renamed)} renamed), {len(self.left)} left, {len(self.missing)} missing"
        )
        lines = [f"  left {name}: {reason}" for name, reason in self.left.items()]
        return "\n".join([counts, *lines, *(f"  missing {name}" for name in self.missing)])


def load_reference_weights(
    model: DualEncoder, path: str | Path, source: str = "medclip", allow_partial: bool = False
) -> LoadReport:
    """Reads weights that others published into a dual encoder of the same architecture.

    ============= ======================================================== =============================================
    ``source``    what it reads                                            the model to build for it
    ============= ======================================================== =============================================
    "medclip"     MedCLIP's checkpoints (Wang et al. 2022,                 ``medclip("base", ...)``, for its Swin with
                  https://arxiv.org/abs/2210.10163), ResNet and Swin       ``image_encoder={"model_type": "swin",
                                                                           "num_channels": 3}``
    "huggingface" the folder of a ``CLIPModel`` or a                       encoders of the same configurations; a tower
                  ``VisionTextDualEncoderModel``                           with a dense pooler needs a projection of
                                                                           ``{"layers": 2, "activation": "tanh",
                                                                           "bias": (True, False)}``
    "open_clip"   state dicts with timm's ViT and a BERT, as BiomedCLIP's  a Hugging Face ViT with ``layer_norm_eps=1e-6``;
                  (Zhang et al. 2023, https://arxiv.org/abs/2303.00915)    text projection ``{"layers": 2, "activation":
                                                                           "gelu", "bias": False,
                                                                           "hidden_features": 640}``
    ============= ======================================================== =============================================

    The outputs are then those of the published model, to rounding, for texts without padding; MedCLIP's own code averages over
    padding too. A convolution of three channels into a model of one takes the sum over the channels, which is what a gray image
    repeated over three gives. Either everything fits and is read, or the model stays as it was.

    Args:
        model: the dual encoder; its weights are written in place.
        path: a folder or a file of weights (safetensors, or ``torch.save``'s, read with ``weights_only=True``), those of a
            training checkpoint or a wrapped model included.
        source: who published it.
        allow_partial: whether published weights that have no place, and weights of the model that find none, are allowed;
            the report lists them.

    Returns:
        What was used, renamed, left and missing. Constants that older versions saved and poolers that no embedding passes
        through are always left, and are no error.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: an unknown source; a file that holds more than weights, or is cut short; and, unless ``allow_partial``,
            weights that do not fit: the message names the first ones.

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
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}.")
    published, ours = read_weights(path), model.state_dict()
    rules = SOURCES[source](published.keys())
    values: dict[str, Tensor] = {}
    renamed: dict[str, tuple[str, ...]] = {}
    left: dict[str, str] = {}
    for name, value in published.items():
        names = layouts.places(name, rules, ours.keys())
        if isinstance(names, Left):
            left[name] = names.reason
            continue
        parts = value.chunk(len(names)) if len(names) > 1 else [value]
        fitted = [_fitted(part, ours[own]) for part, own in zip(parts, names, strict=True)]
        if any(part is None for part in fitted):
            shapes = [tuple(ours[own].shape) for own in names]
            left[name] = f"its shape {tuple(value.shape)} does not fit {', '.join(names)} of {shapes[0]}"
            continue
        values.update({own: part for own, part in zip(names, fitted, strict=True) if part is not None})
        if names != [name]:
            renamed[name] = tuple(names)
    missing = tuple(name for name in ours if name not in values and not name.endswith("num_batches_tracked"))
    report = LoadReport(tuple(name for name in published if name not in left), renamed, left, missing)
    if not allow_partial:
        _check_whole(report, path)
    with torch.no_grad():
        for name, value in values.items():
            ours[name].copy_(value)
    return report


def _fitted(value: Tensor, own: Tensor) -> Tensor | None:
    """The published value in the shape of our own; None where it does not fit."""
    if value.shape == own.shape:
        return value
    gray = own.ndim >= 4 and own.shape[1] == 1 and value.ndim == own.ndim and value.shape[1] == 3
    if gray and value[:, :1].shape == own.shape:
        return value.sum(1, keepdim=True)
    return None


def _check_whole(report: LoadReport, path: str | Path) -> None:
    wrong: Mapping[str, str] = {name: why for name, why in report.left.items() if why not in HARMLESS}
    if wrong:
        name, why = next(iter(wrong.items()))
        raise ValueError(
            f"{path} does not fit the model: {len(wrong)} of its {len(report.used) + len(report.left)} weights have no place, "
            f"the first {name} ({why}); allow_partial=True reads the others."
        )
    if report.missing:
        raise ValueError(
            f"{path} does not fill the model: {len(report.missing)} weights of the model are not in it, the first "
            f"{report.missing[0]}; allow_partial=True leaves them as they are."
        )
