"""The metrics of a recipe's validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.metrics import Loss, Metric

from medvl.handlers.metrics import RetrievalMetricHandler, ZeroShotMetricHandler, prediction_and_batch
from medvl.utils.checks import error_message


def validation_metrics(
    loss: Callable[[Any, Any], Any],
    monitor: str = "loss",
    network: Any = None,
    class_prompts: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    names: Sequence[str] = (),
) -> dict[str, Metric]:
    """The ``key_val_metric`` of a ``SupervisedEvaluator``: the mean loss, and the metric that chooses the best epoch.

    Args:
        loss: maps the network's output and the batch to a scalar.
        monitor: "loss"; "auroc" or "auprc", zero-shot, macro over the findings; or a metric of
            :class:`~medvl.metrics.RetrievalMetric`, as "recall_at_10".
        network: encodes the prompts (``encode_text``).
        class_prompts: present and absent prompts by finding, as :func:`medvl.text.make_class_prompts` gives them.
        names: the findings in the order of the batch's ``label``.

    Raises:
        ValueError: If the metric is unknown, or a zero-shot metric has no names of findings.
    """
    metrics: dict[str, Metric] = {
        "loss": Loss(loss, output_transform=prediction_and_batch, batch_size=lambda batch: len(batch["study_id"]))
    }
    if monitor in ("auroc", "auprc"):
        if not names:
            raise ValueError(f"monitor={monitor!r} needs studies with labels, got none.")
        known = {name: class_prompts[name] for name in names if name in class_prompts} if class_prompts else {}
        metrics[monitor] = ZeroShotMetricHandler(known, names, network, metric=monitor)  # type: ignore[arg-type]
    elif monitor != "loss":
        try:
            metrics[monitor] = RetrievalMetricHandler(monitor)
        except ValueError:
            raise ValueError(
                error_message(
                    "monitor", "be 'loss', 'auroc', 'auprc', 'recall_at_K', 'median_rank' or 'mean_rank'", repr(monitor)
                )
            ) from None
    return metrics
