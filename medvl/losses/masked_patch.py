"""Reconstruction loss of hidden patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medvl.functional import masked_patch_loss
from medvl.functional.reduction import REDUCTIONS
from medvl.utils.checks import check_option, error_message


class MaskedPatchLoss(nn.Module):
    r"""Mean squared error of predicted pixels on hidden patches (masked autoencoder).

    With x_ip the pixels of patch p of image i, normalized to mean 0 and standard deviation 1 of the patch::

        L = mean over hidden (i, p) of |prediction_ip - x_ip|^2 / pixels.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; a term of MLIP.

    Args:
        patch_size: pixels along each spatial axis, one integer or one for each axis.
        normalize: normalize each patch's pixels; a constant patch has target 0.
        reduction: ``"mean"`` over hidden patches, ``"sum"``, or ``"none"`` for (N, P) with 0 at visible patches.
        gather: reduce over the images of all processes, which may be of unequal number, as in
            :class:`ImageTextContrastiveLoss`.

    Raises:
        TypeError: If the patch size is neither an integer nor a sequence.
        ValueError: If the reduction is unknown.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[[0.0, 2.0, 5.0, 5.0]]]])
        >>> prediction, visible = torch.zeros(1, 2, 2), torch.tensor([[False, True]])
        >>> MaskedPatchLoss(patch_size=(1, 2), normalize=False)(prediction, image, visible).item()
        2.0
    """

    def __init__(
        self,
        patch_size: int | Sequence[int] = 16,
        normalize: bool = True,
        reduction: str = "mean",
        gather: bool = False,
    ) -> None:
        super().__init__()
        check_option(reduction, "reduction", REDUCTIONS)
        if not isinstance(patch_size, int | Sequence) or isinstance(patch_size, str):
            raise TypeError(error_message("patch_size", "be an integer or one for each axis", repr(patch_size)))
        self.patch_size = patch_size if isinstance(patch_size, int) else tuple(patch_size)
        self.options: dict[str, Any] = {"normalize": normalize, "reduction": reduction, "gather": gather}

    def forward(self, patch_prediction: Tensor, image: Tensor, visible_mask: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            patch_prediction: (N, P, pixels), in the order of :func:`medvl.functional.patchify`.
            image: (N, C, H, W[, D]), the whole images.
            visible_mask: (N, P), True where the network saw the patch.

        Returns:
            A scalar, or (N, P) for ``reduction="none"``, all processes' N with ``gather``. Without hidden patches it is 0.

        Raises:
            TypeError: If a tensor is not floating point, or the mask is not a tensor.
            ValueError: If the shapes are inconsistent.
        """
        return masked_patch_loss(patch_prediction, image, visible_mask, patch_size=self.patch_size, **self.options)

    def extra_repr(self) -> str:
        """The options."""
        options = {"patch_size": self.patch_size, **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())
