"""What handlers ask of a trainer's step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine


def step_output(engine: Engine) -> Mapping[str, Any]:
    """What the last step gave; where the engine decollates its output, the first item, which has the loss of the whole."""
    output = engine.state.output
    return output[0] if isinstance(output, list) else output


def where(engine: Engine, id_key: str = "study_id", most: int = 16) -> str:
    """Epoch, iteration and, where the batch has their ids, studies that an engine is at, as the end of a sentence."""
    batch = engine.state.batch
    ids = [str(study_id) for study_id in batch.get(id_key, [])] if isinstance(batch, Mapping) else []
    named = ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
    place = f"in epoch {engine.state.epoch}, iteration {engine.state.iteration}"
    return f"{place}, on the studies {named}." if ids else f"{place}."
