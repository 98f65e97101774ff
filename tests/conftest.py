"""Fixtures that tests of several packages use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The tests' models are so small that more threads only wait for each other; before torch is imported, and for its children.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data at ../shared/data, beside the project")
    return folder
