"""What a trainer's current step says: its output, and a description for error messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine


def step_output(engine: Engine) -> Mapping[str, Any]:
    """The output of the last step; where the engine decollates it, its first item, which has the loss of the whole batch."""
    output = engine.state.output
    return output[0] if isinstance(output, list) else output


def describe_step(engine: Engine, id_key: str = "study_id", max_ids: int = 16) -> str:
    """Epoch, iteration and, where the batch has their ids, studies of the current step, as the end of a sentence."""
    batch = engine.state.batch
    ids = [str(study_id) for study_id in batch.get(id_key, [])] if isinstance(batch, Mapping) else []
    shown = ", ".join(ids[:max_ids]) + (f" and {len(ids) - max_ids} more" if len(ids) > max_ids else "")
    step = f"in epoch {engine.state.epoch}, iteration {engine.state.iteration}"
    return f"{step}, on the studies {shown}." if ids else f"{step}."
