"""Whole results files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from evidence.arms import ARMS
from evidence.scales import SCALES
from evidence.store import Store, result_key

AddResult = Callable[..., None]


@pytest.fixture
def add_result() -> AddResult:
    """Writes a result of an arm as it is set now, with some figures; other fields may be given."""

    def add(store: Store, arm: str, seed: int, figures: Mapping[str, Any], scale: str = "full", **more: Any) -> None:
        content = {
            "arm": arm,
            "seed": seed,
            "key": result_key(ARMS[arm], SCALES[scale], seed),
            "measures": sorted({name.partition("/")[0] for name in figures}),
            "figures": dict(figures),
            "steps": 390,
            "seconds": {"training": 30.0, "measures": 6.0},
            "date": f"2026-11-{seed + 1:02d}",
            "commit": "abc",
            "versions": {"torch": "2.13"},
            "python": "3.12.3",
            "machine": "x86_64",
        }
        store.write(scale, arm, seed, {**content, **more})

    return add
