"""Contrastive losses of large batches: of several processes, and one tile of the N x M logits at a time.

The plain losses store several N x M matrices. Here the forward pass walks tiles and keeps running sums over rows and
columns; the backward pass computes each tile again and adds its part to the gradients of embeddings, scale and bias.
Value and gradient equal those of the plain loss to rounding; memory beside the gradients themselves is that of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medvl.functional.batch import Batch, Pair, warn_if_without_positive
from medvl.functional.reduction import reduce_terms, term_weights
from medvl.functional.similarity import inverse_length
from medvl.functional.targets import LogTargets
from medvl.utils.checks import check_fraction, error_message
from medvl.utils.distributed import all_gather_with_grad, all_reduce_sum, is_distributed

# exp(40) times a million addends fits float32, and so does exp(-40) times a gradient of 1e-6: up to this bound one
# exponential of a tile serves rows and columns, beyond it each needs its own shift.
EXPONENT_BOUND = 40.0

# Elements of one tile: fits a core's own cache; keeps a GPU busy.
CPU_TILE_ELEMENTS, GPU_TILE_ELEMENTS = 2**18, 2**24

# Embeddings that are measured at once: lengths and products make a copy of them.
ROWS = 512

# Up to this many logits the plain loss is the faster one.
PLAIN_ELEMENTS = 2**18


def check_tile_size(tile_size: int | str | None) -> None:
    """Raise unless ``tile_size`` is a positive integer, "auto" or None."""
    positive = isinstance(tile_size, int) and not isinstance(tile_size, bool) and tile_size > 0
    if not (positive or tile_size in (None, "auto")):
        raise ValueError(error_message("tile_size", "be a positive integer, 'auto' or None", repr(tile_size)))


def choose_tile_size(
    tile_size: int | str | None, count_images: int, count_texts: int, device: torch.device
) -> int | None:
    """Texts in one tile, or None for the plain loss; ``"auto"`` decides by the number of logits."""
    check_tile_size(tile_size)
    if not isinstance(tile_size, str):
        return tile_size
    if count_images * count_texts <= PLAIN_ELEMENTS:
        return None
    return 512 if device.type == "cpu" else 4096


def split_batch(
    batch: Batch, gather: bool, tile_size: int | str | None, own_images: bool = False
) -> tuple[Batch, int | None]:
    """What this process contrasts, and in tiles of how many texts.

    With ``gather``, these are the texts of every process; in tiles, or with ``own_images``, against the process's own
    images, else against the images of every process.
    """
    images, texts = batch.embeds
    if not (gather and is_distributed()):
        return batch, choose_tile_size(tile_size, len(images), len(texts), images.device)
    count = all_reduce_sum(len(images), images.device)
    batch = batch.gather(side=1)
    tile = choose_tile_size(tile_size, count, len(batch.embeds[1]), images.device)
    return (batch.gather(side=0) if tile is None and not own_images else batch), tile


def tiled_contrastive_loss(
    batch: Batch,
    targets: LogTargets,
    scale: Tensor,
    image_weight: float,
    reduction: str,
    gather: bool,
    tile_size: int,
) -> Tensor:
    """The softmax losses' value and gradient, without the N x M matrices.

    Args:
        batch: this process's images and the texts, from :func:`split_batch`.
        targets: log weights of the targets by block.
        scale: (), 1 / tau.
        image_weight: lambda in [0, 1].
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        gather: whether other processes hold further images.
        tile_size: texts in one tile.
    """
    check_fraction(image_weight, "image_weight")
    gather = gather and is_distributed()
    with torch.autocast(scale.device.type, enabled=False):
        (image_terms, text_terms), counts = _tiled_terms(batch.embeds, targets, scale, tile_size, gather)
        if len(text_terms):
            warn_if_without_positive(counts[0])
        if batch.weights is not None and batch.ids is not None:
            (image_ids, text_ids), weights = batch.ids, batch.weights
            if gather:
                image_ids, weights = all_gather_with_grad(image_ids), all_gather_with_grad(weights)
            w_v, w_t = term_weights(weights, image_ids, text_ids, *counts)
            image_terms, text_terms = w_v * image_terms, w_t * text_terms
        return reduce_terms(image_weight * image_terms, (1 - image_weight) * text_terms, *counts, reduction)


class TileSums(Protocol):
    """What is summed over the tiles, and its gradient with respect to the logits."""

    def update(self, logits: Tensor, images: slice, texts: slice) -> None:
        """Add one tile of logits, which may be overwritten."""

    def compute(self) -> tuple[Tensor, ...]:
        """The sums over rows and columns, once every tile has been added."""

    def logit_grad(
        self, logits: Tensor, images: slice, texts: slice, result: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> Tensor:
        """d loss / d logits of one tile, which may be overwritten, given d loss / d result."""


def tiles(count_images: int, count_texts: int, tile_size: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of texts; ``tile_size`` texts and as many images as make a tile worth a kernel's start."""
    elements = CPU_TILE_ELEMENTS if device.type == "cpu" else GPU_TILE_ELEMENTS
    images_at_once = max(tile_size, elements // tile_size)
    for text in range(0, count_texts, tile_size):
        for image in range(0, count_images, images_at_once):
            yield slice(image, image + images_at_once), slice(text, text + tile_size)


class TiledContrast(torch.autograd.Function):
    """Sums over the logits scale <v_i, t_j> / (|v_i| |t_j|) + bias, without ever storing them all."""

    @staticmethod
    def forward(
        ctx: Any,
        image_embeds: Tensor,
        text_embeds: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        sums: TileSums,
        tile_size: int,
    ) -> tuple[Tensor, ...]:
        ctx.sums, ctx.tile_size = sums, tile_size
        image_inverse, text_inverse = (
            torch.cat([inverse_length(rows) for rows in embeds.split(ROWS)]) for embeds in (image_embeds, text_embeds)
        )
        for images, texts in tiles(len(image_embeds), len(text_embeds), tile_size, image_embeds.device):
            if images.start == 0:
                text_units = text_embeds[texts] * text_inverse[texts]
            image_units = image_embeds[images] * image_inverse[images]
            sums.update(_logits(image_units, text_units, scale, bias), images, texts)
        result = sums.compute()
        ctx.save_for_backward(image_embeds, text_embeds, image_inverse, text_inverse, scale, bias, *result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image_embeds, text_embeds, image_inverse, text_inverse, scale, bias, *result = ctx.saved_tensors
        image_grad, text_grad = torch.zeros_like(image_embeds), torch.zeros_like(text_embeds)
        bias_grad = None if bias is None else torch.zeros_like(bias)
        with torch.autocast(image_embeds.device.type, enabled=False):
            for images, texts in tiles(len(image_embeds), len(text_embeds), ctx.tile_size, image_embeds.device):
                # Unit vectors are computed again for every tile: keeping them would double what the loss adds to memory.
                if images.start == 0:
                    text_units = text_embeds[texts] * text_inverse[texts]
                image_units = image_embeds[images] * image_inverse[images]
                logits = _logits(image_units, text_units, scale, bias)
                logit_grad = ctx.sums.logit_grad(logits, images, texts, tuple(result), grads)
                image_grad[images].addmm_(logit_grad, text_units)
                text_grad[texts].addmm_(logit_grad.T, image_units)
                if bias_grad is not None:
                    bias_grad += logit_grad.sum()
            along = _through_normalization(image_grad, image_embeds, image_inverse, scale)
            _through_normalization(text_grad, text_embeds, text_inverse, scale)
        return image_grad, text_grad, along.sum(), bias_grad, None, None


def _logits(image_units: Tensor, text_units: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    logits = image_units @ (text_units * scale).T
    return logits if bias is None else logits.add_(bias)


def _through_normalization(grad: Tensor, embeds: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    """Turn the gradient of scaled unit vectors, in place, into that of the vectors that were normalized.

    Returns:
        <u, dL/du> of every unit vector u: the part that normalization removes, and whose sum is the gradient of the scale.
    """
    parts = zip(embeds.split(ROWS), grad.split(ROWS), strict=True)
    along = torch.cat([torch.linalg.vecdot(*part) for part in parts]).unsqueeze(1) * inverse
    grad.addcmul_(along * inverse, embeds, value=-1).mul_(inverse * scale)
    return along


class RunningLogSumExp:
    """log sum exp over the rows and over the columns of a matrix that comes in tiles."""

    def __init__(self, like: Tensor, count_images: int, count_texts: int, bounded: bool) -> None:
        self.bounded = bounded
        start = 0.0 if bounded else -torch.inf
        self.rows, self.columns = like.new_full((count_images,), start), like.new_full((count_texts,), start)

    def update(self, tile: Tensor, images: slice, texts: slice) -> None:
        """Add one tile, which may be overwritten."""
        if self.bounded:
            tile = tile.exp_()
            self.rows[images] += tile.sum(1)
            self.columns[texts] += tile.sum(0)
        else:
            self.rows[images] = torch.logaddexp(self.rows[images], tile.logsumexp(1))
            self.columns[texts] = torch.logaddexp(self.columns[texts], tile.logsumexp(0))

    def compute(self) -> tuple[Tensor, Tensor]:
        """(N,) and (M,); -inf where every value was -inf."""
        return (self.rows.log(), self.columns.log()) if self.bounded else (self.rows, self.columns)


class SoftTargetSums:
    """For soft-target cross entropy: log sum exp of logits, and their mean under the targets, by row and by column.

    If the targets' logarithms are bounded, what normalizes them is summed on the way. Else it must be known before:
    every block goes into ``norms``, then :meth:`finish_norms`.
    """

    def __init__(
        self, targets: LogTargets, like: Tensor, counts: tuple[int, int], logit_bound: float, gather: bool
    ) -> None:
        self.targets, self.gather = targets, gather
        self.logits_bounded, self.targets_bounded = logit_bound <= EXPONENT_BOUND, targets.bound <= EXPONENT_BOUND
        self.lse = RunningLogSumExp(like, *counts, self.logits_bounded)
        self.norms = RunningLogSumExp(like, *counts, self.targets_bounded)
        self.row_means, self.column_means = (like.new_zeros(count) for count in counts)

    def finish_norms(self) -> None:
        """Take what ``norms`` holds as final; rows and columns without a target do not count."""
        rows, columns = self.norms.compute()
        if self.gather:
            columns = all_gather_with_grad(columns.unsqueeze(0)).logsumexp(0)
        self.row_counts, self.column_counts = rows > -torch.inf, columns > -torch.inf
        self.row_norms, self.column_norms = rows.where(self.row_counts, 0.0), columns.where(self.column_counts, 0.0)

    def update(self, logits: Tensor, images: slice, texts: slice) -> None:
        weights = self.targets.block(images, texts)
        if self.targets_bounded:
            self.norms.update(weights, images, texts)  # leaves the exponentials in their place
            weights.mul_(logits)
            self.row_means[images] += weights.sum(1)
            self.column_means[texts] += weights.sum(0)
        else:
            self.row_means[images] += (weights - self.row_norms[images].unsqueeze(1)).exp_().mul_(logits).sum(1)
            self.column_means[texts] += weights.sub_(self.column_norms[texts]).exp_().mul_(logits).sum(0)
        self.lse.update(logits, images, texts)

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.targets_bounded:
            self.finish_norms()
            self.row_means *= (-self.row_norms).exp()
            self.column_means *= (-self.column_norms).exp()
        return *self.lse.compute(), self.row_means, self.column_means

    def logit_grad(
        self, logits: Tensor, images: slice, texts: slice, result: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> Tensor:
        rows, columns = result[0][images], result[1][texts]
        row_lse, column_lse, row_mean, column_mean = (
            grad[part] for grad, part in zip(grads, (images, texts, images, texts), strict=True)
        )
        grad = _row_and_column_exp(logits, rows, columns, row_lse, column_lse, self.logits_bounded)
        weights = self.targets.block(images, texts)
        norms = self.row_norms[images], self.column_norms[texts]
        return grad.add_(_row_and_column_exp(weights, *norms, row_mean, column_mean, self.targets_bounded))


def _row_and_column_exp(
    tile: Tensor, rows: Tensor, columns: Tensor, row_share: Tensor, column_share: Tensor, bounded: bool
) -> Tensor:
    """row_share_i exp(tile_ij - rows_i) + column_share_j exp(tile_ij - columns_j), over the tile's own memory."""
    if bounded:
        shares = (row_share * (-rows).exp()).unsqueeze(1) + column_share * (-columns).exp()
        return tile.exp_().mul_(shares)
    by_row = (tile - rows.unsqueeze(1)).exp_().mul_(row_share.unsqueeze(1))
    return by_row.addcmul_(tile.sub_(columns).exp_(), column_share)


class SigmoidSums:
    """For sigmoid cross entropy: sum_j softplus(x_ij) - y_ij x_ij of every row."""

    def __init__(self, targets: LogTargets, like: Tensor, count_images: int) -> None:
        self.targets = targets
        self.rows = like.new_zeros(count_images)

    def update(self, logits: Tensor, images: slice, texts: slice) -> None:
        weights = self.targets.block(images, texts).exp_()
        # max(x, 0) - y x + log(1 + exp(-|x|)): no large addends, whose rounding would drown a small term.
        unlikely = torch.nn.functional.softplus(-logits.abs())
        self.rows[images] += unlikely.add_(logits.clamp_min(0).sub_(weights.mul_(logits))).sum(1)

    def compute(self) -> tuple[Tensor]:
        return (self.rows,)

    def logit_grad(
        self, logits: Tensor, images: slice, texts: slice, result: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> Tensor:
        weights = self.targets.block(images, texts).exp_()
        return logits.sigmoid_().sub_(weights).mul_(grads[0][images].unsqueeze(1))


def tiled_sigmoid_terms(batch: Batch, targets: LogTargets, scale: Tensor, bias: Tensor, tile_size: int) -> Tensor:
    """The sigmoid loss's terms (N,) of this process's images, tile by tile."""
    images, texts = batch.embeds
    with torch.autocast(scale.device.type, enabled=False):
        sums = SigmoidSums(targets, images.detach(), len(images))
        (terms,) = TiledContrast.apply(images, texts, scale, bias, sums, tile_size)
    return terms


def _tiled_terms(embeds: Pair, targets: LogTargets, scale: Tensor, tile_size: int, gather: bool) -> tuple[Pair, Pair]:
    """Cross entropy of the rows and columns of scale <v_i, t_j> / (|v_i| |t_j|), tile by tile.

    With ``gather``, the images are this process's own and the texts are every process's: each process is one more tile
    of rows, whose sums over columns are joined with the others'.

    Returns:
        The terms of every image and of every text, and for each of them whether it has a target.
    """
    images, texts = embeds
    counts = len(images), len(texts)
    sums = SoftTargetSums(targets, images.detach(), counts, float(scale.detach().abs()), gather)
    if not sums.targets_bounded:
        with torch.no_grad():
            for part in tiles(*counts, tile_size, images.device):
                sums.norms.update(targets.block(*part), *part)
            sums.finish_norms()
    rows, columns, row_means, column_means = TiledContrast.apply(images, texts, scale, None, sums, tile_size)
    row_counts, column_counts = sums.row_counts, sums.column_counts
    row_terms = (rows - row_means).where(row_counts, 0.0)
    if gather:
        columns = all_gather_with_grad(columns.unsqueeze(0)).logsumexp(0)
        column_means = all_gather_with_grad(column_means.unsqueeze(0)).sum(0)
        row_terms, row_counts = all_gather_with_grad(row_terms), all_gather_with_grad(row_counts)
    column_terms = (columns - column_means).where(column_counts, 0.0)
    return (row_terms, column_terms), (row_counts, column_counts)
