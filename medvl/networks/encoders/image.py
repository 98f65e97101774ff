"""Image encoders: an embedding of each image and of each patch, from any backbone."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medvl.networks.encoders.backbones import (
    NAMES,
    HuggingFaceBackbone,
    PatchFeatures,
    build_backbone,
    is_hugging_face,
)
from medvl.networks.encoders.checkpointing import set_checkpointing
from medvl.networks.encoders.from_weights import (
    Normalization,
    backbone_of,
    build_with_weights,
    is_weights,
    read_normalization,
)
from medvl.networks.encoders.hugging_face_files import fetch_hint, find_folder, read_normalization_of
from medvl.networks.encoders.module_output import as_patch_features
from medvl.networks.encoders.published import LoadReport
from medvl.utils.checks import check_integer, check_option, check_type, error_message
from medvl.utils.layers import layer_positions
from medvl.utils.targets import TARGET, Allowed, describe, make
from medvl.utils.tensors import as_plain

logger = logging.getLogger(__name__)
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")


class ImageEncoder(nn.Module):
    """Global and patch embeddings of images, 2D or 3D.

    The patches of convolutional networks and of Swin are the cells of the last feature map, and the global embedding is their
    mean. A ViT has its patch tokens, and their mean or a class token (``pooling``). The global embedding of a Hugging Face
    model is its own pooled output, or its class token. The ViTs of MONAI and Hugging Face support
    masking, and the ResNets, whose masked patches are black.

    ======================================================== ======= ================================================
    ``backbone``                                             2D, 3D  some options, besides all of MONAI's
    ======================================================== ======= ================================================
    resnet10, 18, 34, 50, 101, 152, 200                      both    ``width``, ``output_stride``, ``norm``,
                                                                     ``patch_stage``, ``input_size``
    densenet121, 169, 201, 264                               both    ``growth_rate``, ``init_features``, ``dropout_prob``
    efficientnet-b0 ... -b8                                  both    ``norm``
    vit_tiny, vit_small, vit_base (= vit), vit_large         both    ``patch_size``, ``pooling``, ``hidden_size``,
                                                                     ``num_layers``, ``pos_embed_type``
    swin_tiny (= swin), swin_small, swin_base                both    ``patch_size``, ``window_size``, ``embed_dim``,
                                                                     ``depths``, ``num_heads``, ``drop_path_rate``
    ct_vit (CT-CLIP's)                                       3D      ``patch_size``, ``slab_size``, ``hidden_size``,
                                                                     ``num_layers``
    a Hugging Face vision model, its configuration, a folder 2D
    or its name in the Hub
    ======================================================== ======= ================================================

    Args:
        backbone: a name of the table, built with random weights; a Hugging Face vision model, its configuration (object,
            or dictionary with ``model_type``; random weights), or a local folder or a name in the Hub that is in this machine's
            cache (its weights); a file of published ``weights``, or a folder with one, whose network is that of the weights; or
            a torch module that maps (N, ``in_channels``, H, W[, D]) to a feature map (N, C, h, w[, d]),
            to tokens (N, P, C) of a square grid, to one vector (N, C), or to a list of such, the last of which is taken. A
            module requires ``out_features``. To be saved, it is stated by its class and arguments,
            ``{"_target_": "package.Class", "argument": value}``.
        spatial_dims: 2 for (N, C, H, W), 3 for (N, C, H, W, D).
        in_channels: channels of the image, 1 for radiographs and CT. A single channel is repeated over the channels of a
            Hugging Face model that has more.
        image_size: side in pixels of the square or cubic images that the encoder is meant for; evaluation resizes to it, and a
            ViT requires it. By default that of the weights or of a Hugging Face model, else 224. The position table of weights
            for another size is interpolated.
        out_features: channels C of the feature map, if the backbone is a torch module.
        trusted_packages: packages other than medvl, monai and torch whose code a stated backbone may be.
        weights: published weights for a ResNet, DenseNet or ViT by name, or for a dictionary with ``model_type``: a file of
            safetensors or of ``torch.save`` (read with ``weights_only=True``), or a folder with one. The layouts of
            torchvision, timm, RadImageNet, TorchXRayVision and MedicalNet are read; they complete the options. What is adapted
            is logged in one line: kernels of three channels are summed for one, where all channels are normalized alike.
        input_mean: mean of the images, one number or one for each channel, by which the encoder normalizes values in [0, 1]:
            (image - mean) / std. By default that of the weights or of a folder's preprocessor, if they tell it; 0 and 1 for
            none. A single channel is repeated over several means. A ResNet's masked patches are 0 after it.
        input_std: standard deviation of the images.
        **options: options of a named backbone.

    Attributes:
        out_features (int): width C of the embeddings.
        patch_features (int): width of the patches' embeddings: C, but for a ResNet with a ``patch_stage`` and for "ct_vit".
        supports_masking (bool): whether :meth:`forward` takes ``visible_indices``.
        patch_size (tuple[int, ...] | None): sides in pixels of a patch, where masking is supported, else None.
        load_report (LoadReport | None): what happened to each of the ``weights``; None without them.

    Raises:
        FileNotFoundError: If there are no ``weights`` at the path, or no file of weights as ``backbone``.
        ValueError: If the weights are not of a layout that is read for the backbone; if the backbone is unknown or code of a
            package that is not trusted, ``spatial_dims`` is neither 2 nor 3 or is 3 with a Hugging Face model, a torch module
            comes without ``out_features``, or sizes are inconsistent, such as an image size that is not a multiple of the patch
            size.

    Example:
        >>> encoder = ImageEncoder("resnet10", image_size=64, width=0.25)
        >>> output = encoder(torch.zeros(2, 1, 64, 64))
        >>> output["embed"].shape, output["patches"].shape, output["grid"]
        (torch.Size([2, 128]), torch.Size([2, 4, 128]), (2, 2))
        >>> vit = ImageEncoder("vit", image_size=32, patch_size=8, hidden_size=64, num_layers=2)
        >>> output = vit(torch.zeros(2, 1, 32, 32), visible_indices=torch.tensor([[0, 5, 9], [3, 2, 1]]))
        >>> output["patches"].shape, output["grid"]
        (torch.Size([2, 3, 64]), (4, 4))
    """

    _input_mean: torch.Tensor | None
    _input_std: torch.Tensor | None

    def __init__(
        self,
        backbone: Any = "resnet50",
        spatial_dims: int = 2,
        in_channels: int = 1,
        image_size: int | None = None,
        out_features: int | None = None,
        trusted_packages: Sequence[str] = (),
        weights: str | Path | None = None,
        input_mean: float | Sequence[float] | None = None,
        input_std: float | Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        normalization = read_normalization(input_mean, input_std)
        self.load_report: LoadReport | None = None
        if isinstance(backbone, Mapping) and TARGET in backbone:
            backbone = _make_backbone(backbone, trusted_packages)
        check_option(spatial_dims, "spatial_dims", (2, 3))
        for name, number in (("in_channels", in_channels), ("image_size", image_size)):
            if number is not None and not (isinstance(number, int) and number > 0):
                raise ValueError(error_message(name, "be an integer of at least 1", repr(number)))
        if weights is None and not (isinstance(backbone, str) and backbone in NAMES) and is_weights(backbone):
            weights, backbone = backbone, backbone_of(backbone)
        is_named = isinstance(backbone, str) and backbone in NAMES
        if options and not is_named:
            expected = f"be named to have the options {', '.join(options)}"
            raise ValueError(error_message("backbone", expected, _description(backbone)))
        own = is_named or is_hugging_face(backbone)
        if own and not is_named and spatial_dims != 2:
            raise ValueError(error_message("spatial_dims", "be 2 with a Hugging Face model", spatial_dims))
        self._config: dict[str, Any] | None = None
        network: Any = backbone
        if weights is not None:
            if not (is_named or isinstance(backbone, Mapping)):
                expected = "be named, or a dictionary with model_type, to be given weights"
                raise ValueError(error_message("backbone", expected, _description(backbone)))
            network, self._config, image_size, normalization, self.load_report = build_with_weights(
                backbone, weights, spatial_dims, in_channels, image_size, normalization, options
            )
        elif is_named:
            channels = in_channels if in_channels > 1 else _channels(normalization)
            network = build_backbone(backbone, spatial_dims, channels, image_size or 224, **options)
            self._config = {"backbone": backbone, **options}
        elif own:
            network = HuggingFaceBackbone(backbone, in_channels, image_size)
            self._config = {"backbone": network.to_config()}
            image_size = network.image_size
            if isinstance(backbone, str | Path):
                normalization = _normalization_of_folder(backbone, normalization, network.adapted)
        elif isinstance(backbone, str | Path) and Path(backbone).suffix in WEIGHT_SUFFIXES:
            raise FileNotFoundError(f"backbone must be a file of weights, got {backbone}, which does not exist.")
        elif not isinstance(backbone, nn.Module):
            expected = (
                f"be one of {', '.join(NAMES)}, a Hugging Face vision model, its configuration or local folder, or a torch "
                "module"
            )
            hint = fetch_hint(backbone) if "/" in str(backbone) else ""
            raise ValueError(error_message("backbone", expected, repr(backbone) + hint))
        elif out_features is None:
            raise ValueError(error_message("out_features", "be given if backbone is a torch module", None))
        else:
            self._config = _stated_config(backbone, out_features)
        self.backbone: nn.Module = network
        self.out_features = int(network.out_features if own or out_features is None else out_features)
        self.patch_features = int(getattr(network, "patch_features", self.out_features))
        self.spatial_dims, self.in_channels, self.image_size = spatial_dims, in_channels, image_size or 224
        self._frozen: list[nn.Module] = []
        self._set_normalization(normalization)
        self.supports_masking: bool = getattr(network, "supports_masking", False)
        self.patch_size: tuple[int, ...] | None = network.patch_size if self.supports_masking else None

    def _set_normalization(self, normalization: Normalization | None) -> None:
        """Keep mean and deviation of the input as buffers, which are saved with the configuration and not with the weights."""
        if _channels(normalization) not in (1, self.in_channels) and self.in_channels != 1:
            expected = f"have one value, or one for each of {self.in_channels} channels"
            raise ValueError(error_message("input_mean", expected, _channels(normalization)))
        self._normalization = normalization
        shape = (1, -1, *(1,) * self.spatial_dims)
        for name, values in zip(("_input_mean", "_input_std"), normalization or (None, None), strict=True):
            value = None if values is None else torch.tensor(values).reshape(shape)
            self.register_buffer(name, value, persistent=False)

    def gradient_checkpointing_enable(self, enabled: bool = True) -> None:
        """Keep only the inputs of the backbone's blocks for the gradient, and compute the rest again in the backward pass.

        A training step needs less memory and about a third more time; its values are the same, those of batch norm's
        statistics included.

        Args:
            enabled: False to keep everything again.

        Raises:
            ValueError: If the backbone has no list of blocks, as a torch module of your own may.

        Example:
            >>> encoder = ImageEncoder("resnet10", width=0.125)
            >>> encoder.gradient_checkpointing_enable()
            >>> encoder(torch.rand(2, 1, 64, 64))["embed"].sum().backward()
        """
        set_checkpointing(self.backbone, enabled)

    def freeze(self, layers: int | None = None) -> None:
        """Freeze the first ``layers`` layers and what comes before them, or the whole backbone if None.

        Layers are the stages of a convolutional network or a Swin, and the blocks of a ViT. What is frozen gets no gradient,
        and its batch norm keeps its statistics: it stays in evaluation mode when the encoder is put in training mode. The
        whole backbone, frozen, has no dropout either.

        Args:
            layers: number of layers; 0 freezes what comes before the first, as the embedding of patches.

        Raises:
            TypeError: If ``layers`` is neither an integer nor None.
            ValueError: If the backbone has fewer layers.

        Example:
            >>> encoder = ImageEncoder("resnet10", width=0.125)
            >>> encoder.freeze(2)
            >>> sorted({name.split(".")[0] for name, value in encoder.backbone.named_parameters() if value.requires_grad})
            ['layer3', 'layer4']
        """
        positions, count = layer_positions(list(self.backbone.state_dict()))
        if layers is not None:
            check_integer(layers, "layers")
        if layers is not None and not 0 <= layers <= count:
            raise ValueError(error_message("layers", f"be between 0 and the backbone's {count}, or None", layers))
        frozen = {name for name, position in positions.items() if layers is None or position < layers}
        for name, value in self.backbone.named_parameters():
            if name in frozen:
                value.requires_grad_(False)
        parts = [self.backbone] if layers is None else []
        for name, part in self.backbone.named_modules() if layers is not None else ():
            own = [*part.named_parameters(name, recurse=False), *part.named_buffers(name, recurse=False)]
            if own and frozen.issuperset(known for known, _ in own if known in positions):
                parts.append(part)
        self._frozen = parts
        self.train(self.training)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Put the encoder in training mode, but for what is frozen."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder, as plain values for JSON.

        Raises:
            ValueError: If the backbone is a torch module of which it is not known what made it.
        """
        if self._config is None:
            expected = (
                "be a name, a Hugging Face model, or a module stated by its class and arguments, as "
                '{"_target_": "package.Class", "argument": value}, to be saved'
            )
            raise ValueError(error_message("backbone", expected, _description(self.backbone)))
        normalization = {}
        if self._normalization is not None:
            mean, std = self._normalization
            normalization = {"input_mean": list(mean), "input_std": list(std)}
        return {
            **self._config,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            **normalization,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> ImageEncoder:
        """The encoder that :meth:`to_config` describes, with random weights.

        Args:
            config: the configuration, perhaps from a file that nobody has checked.
            trusted_packages: packages other than medvl, monai and torch whose code it may name; it is imported and run.

        Raises:
            ValueError: If it names code of a package that is not trusted, or a file of weights.
        """
        backbone = config.get("backbone")
        source = config.get("weights", backbone if backbone not in NAMES and is_weights(backbone) else None)
        if "weights" in config or source is not None:
            expected = "hold no weights, which are in a file of their own"
            raise ValueError(error_message("the configuration of an image encoder", expected, repr(source)))
        return cls(**{**config, "trusted_packages": trusted_packages})

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> dict[str, Any]:
        """Encode a batch.

        Args:
            image: (N, ``in_channels``, H, W[, D]), values in [0, 1], which the encoder normalizes by its ``input_mean`` and
                ``input_std``, if it has them.
            visible_indices: (N, P') indices of the patches to encode, in any order, if the backbone supports masking. The
                others are dropped before its blocks, so that the cost is that of the visible patches, which keep their
                positions.

        Returns:
            ``embed`` (N, C); ``patches`` (N, P, C) in row-major order of the grid, or (N, P', C) in the order of
            ``visible_indices``; ``grid`` (h, w[, d]) of the whole image.

        Raises:
            TypeError: If ``image`` is not a tensor.
            ValueError: If ``image`` has another shape, integer values or a size that the backbone does not support; if it is
                a single image, so small that batch norm has one value per channel in training; if ``visible_indices`` have
                another shape, are out of range (on an accelerator, torch's own error) or the backbone does not support
                masking.
        """
        check_type(image, "image", torch.Tensor)
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            axes = "H, W" if self.spatial_dims == 2 else "H, W, D"
            raise ValueError(
                error_message("image", f"have the shape (N, {self.in_channels}, {axes})", tuple(image.shape))
            )
        if not image.is_floating_point():
            raise ValueError(error_message("image", "hold floating point values", image.dtype))
        image = as_plain(image)
        if visible_indices is not None:
            visible_indices = as_plain(visible_indices)
            self._check_visible(visible_indices, image)
        if self._input_mean is not None and self._input_std is not None:
            image = (image - self._input_mean) / self._input_std  # a single channel becomes as many as there are means
        try:
            features = self.backbone(image) if visible_indices is None else self.backbone(image, visible_indices.long())
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                error_message(
                    "image",
                    "hold more or larger images to train a backbone with batch norm, which is left with one value of each "
                    "channel",
                    f"{len(image)} of {tuple(image.shape[2:])} pixels",
                )
            ) from error
        if not isinstance(features, PatchFeatures):
            features = as_patch_features(features, self.out_features, self.spatial_dims)
        return features._asdict()

    def _check_visible(self, visible_indices: torch.Tensor, image: torch.Tensor) -> None:
        if self.patch_size is None:
            raise ValueError(
                error_message(
                    "visible_indices", "be None for a backbone without masking", f"a {type(self.backbone).__name__}"
                )
            )
        shape_fits = visible_indices.ndim == 2 and len(visible_indices) == len(image) and visible_indices.shape[1] > 0
        if not shape_fits or visible_indices.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                error_message(
                    "visible_indices",
                    f"hold integer patch indices of shape ({len(image)}, P')",
                    f"{visible_indices.dtype} of shape {tuple(visible_indices.shape)}",
                )
            )
        if visible_indices.device.type == "cpu" and not torch.compiler.is_compiling():
            patches = math.prod(side // patch for side, patch in zip(image.shape[2:], self.patch_size, strict=True))
            low, high = (int(index) for index in visible_indices.aminmax())
            if low < 0 or high >= patches:
                raise ValueError(
                    error_message(
                        "visible_indices",
                        f"hold indices from 0 to {patches - 1} for images of {tuple(image.shape[2:])} pixels",
                        low if low < 0 else high,
                    )
                )


def _channels(normalization: Normalization | None) -> int:
    """The number of channels that are normalized each by its own mean and deviation, 1 if they are all alike."""
    return 1 if normalization is None else max(map(len, normalization))


def _normalization_of_folder(
    source: str | Path, given: Normalization | None, adapted: Sequence[str]
) -> Normalization | None:
    """The normalization that is given, else that of a model folder; what was adapted in its weights is logged in one line."""
    folder = find_folder(source) or source
    stated = given or read_normalization(*(read_normalization_of(folder) or (None, None)))
    notes = list(adapted)
    if given is None and stated is not None:
        notes.append(f"input normalized by mean {stated[0]} and deviation {stated[1]}, as its preprocessor says")
    if notes:
        logger.warning("%s: %s.", source, "; ".join(notes))
    return stated


_ALLOWED = Allowed(nn.Module, ("medvl.networks", "monai.networks", "torch.nn"))


def _make_backbone(description: Mapping[str, Any], trusted_packages: Sequence[str]) -> nn.Module:
    if description.get("pretrained"):
        expected = "be stated without pretrained weights, which would be downloaded"
        raise ValueError(error_message("backbone", expected, f"pretrained={description['pretrained']!r}"))
    module: nn.Module = make(description, _ALLOWED, trusted_packages)
    return module


def _stated_config(module: nn.Module, out_features: int | None) -> dict[str, Any] | None:
    """The configuration of a module that states what made it; None for others."""
    try:
        stated = describe(module)
    except ValueError:
        return None
    if "pretrained" in stated:  # the weights are saved with the model
        stated["pretrained"] = False
    return {"backbone": stated, "out_features": out_features}


def _description(backbone: Any) -> str:
    return repr(backbone) if isinstance(backbone, str) else f"a {type(backbone).__name__}"
