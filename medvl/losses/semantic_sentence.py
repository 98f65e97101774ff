"""Contrastive loss of images and sentences by their patches, with soft targets from labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import semantic_sentence_loss
from medvl.functional.alignment import ALIGNMENTS
from medvl.functional.similarity import SIMILARITIES, Similarity
from medvl.losses.options import ContrastiveOptions
from medvl.utils.checks import check_option, check_positive


class SemanticSentenceLoss(ContrastiveOptions):
    r"""Semantic matching of the patches of an image with single sentences.

    With unit vectors of image i's patches p and of the sentences s of the whole batch, the labels a_i of the image and b_s of
    the sentence and their similarity s_is::

        score(i, s) = sum_p a_ps <patch_p, sentence_s>,  l_is = score(i, s) / tau,
        y_is = softmax_s(s_is / tau_y),  L_v = mean_i -sum_s y_is log softmax_s(l_is),
        L_t likewise down the columns with its own softmax of s, and L = (L_v + L_t) / 2.

    :class:`PatchSentenceMatchingLoss` contrasts an image with whole reports, by pairs. Half of all reports say "no pleural
    effusion", so that its negatives are false where sentences repeat. Here each sentence is contrasted by itself, as in
    :class:`SemanticMatchingLoss`, and belongs to every image of which it is true. ``alignment="attention"``: the shares are
    softmax_p(<patch_p, sentence_s> / tau_a), so that the patches that a sentence resembles learn from it, after Huang et al.
    (GLoRIA, ICCV 2021). ``"max"``: the best patch alone. ``"transport"``: the sentence's part of the Sinkhorn plan between the
    patches and the sentences of its text. The combination is ours: the soft targets of Wang et al. (MedCLIP, EMNLP 2022) for
    the local alignment of Liu et al. (MLIP, ISBI 2024).

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.1.
        target_temperature: tau_y, above 0; smaller values make sharper targets.
        similarity: ``"cosine"``, ``"dot"``, ``"jaccard"`` or a callable, as in :class:`SemanticMatchingLoss`.
        alignment: ``"attention"``, ``"max"`` or ``"transport"``.
        epsilon: entropic regularization of the transport, above 0, in units of cosine.
        attention_temperature: tau_a, above 0.
        present_only: whether only sentences that state a finding (a label above 0) are contrasted. A sentence that denies one
            has no place in the image.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M * S sentence terms, each halved.
        gather: contrast the batches of all processes; each scores its own images against all sentences.
        tile_size: texts to score at a time, as in :class:`PatchSentenceMatchingLoss`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4)[::2, None]
        >>> loss = SemanticSentenceLoss(temperature=1.0, target_temperature=1.0)
        >>> round(loss(patches, sentences, torch.eye(2), torch.eye(2)).item(), 4)
        0.5822
    """

    def __init__(
        self,
        temperature: float | None = None,
        target_temperature: float = 0.1,
        similarity: Similarity = "cosine",
        alignment: str = "attention",
        epsilon: float = 0.05,
        attention_temperature: float = 0.1,
        present_only: bool = True,
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
    ) -> None:
        check_positive(target_temperature, "target_temperature")
        if not callable(similarity):
            check_option(similarity, "similarity", SIMILARITIES)
        check_option(alignment, "alignment", ALIGNMENTS)
        check_positive(epsilon, "epsilon")
        check_positive(attention_temperature, "attention_temperature")
        super().__init__(
            temperature,
            reduction,
            gather,
            tile_size,
            target_temperature=target_temperature,
            similarity=similarity,
            alignment=alignment,
            epsilon=epsilon,
            attention_temperature=attention_temperature,
            present_only=present_only,
        )

    def forward(
        self,
        patch_embeds: Tensor,
        sentence_embeds: Tensor,
        image_labels: Tensor,
        text_labels: Tensor,
        patch_mask: Tensor | None = None,
        sentence_mask: Tensor | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        weights: Tensor | None = None,
        logit_scale: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            patch_embeds: (N, P, D), scaled to unit length here.
            sentence_embeds: (M, S, D), scaled to unit length here; S = 1 where each text is a sentence.
            image_labels: (N, K) numbers; NaN marks an unknown finding and counts as 0. An image whose label vector is all zero
                is not contrasted.
            text_labels: (M, S, K), the labels of every sentence, or (M, K), those of every text, whose sentences are then one:
                the mean of their unit vectors. A sentence whose label vector is all zero is not contrasted.
            patch_mask: (N, P), True keeps.
            sentence_mask: (M, S), True keeps.
            text_ids: (M,) integers or strings; with ``alignment="transport"`` and S = 1, sentences with equal ids share a plan.
            weights: (N,), non-negative weights of the images' terms (such as semantic integrity); scaled to mean 1, without
                gradient.
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.

        Returns:
            A scalar, or (N + M * S,) for ``reduction="none"``, the sentences of a text one after the other; all processes' N
            and M with ``gather``. Where sentences share a plan by ``text_ids``, M and S are the texts that they then make.

        Raises:
            TypeError: If embeddings are not floating point tensors.
            ValueError: If the shapes are inconsistent.
        """
        return semantic_sentence_loss(
            patch_embeds,
            sentence_embeds,
            image_labels,
            text_labels,
            patch_mask,
            sentence_mask,
            text_ids,
            weights,
            logit_scale,
            **self.options,
        )
