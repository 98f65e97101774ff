"""What holds for every test and docstring example: fixed property tests and fixed random numbers."""

from __future__ import annotations

import logging
import os
import random
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The tests' models are so small that more threads only wait for each other; before torch is imported, and for its children.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Everyone runs the same examples; `pytest --hypothesis-profile explore` looks for new ones, which become @example.
# No outcome depends on the speed of the machine: there is no deadline, and no check of how fast examples are drawn.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("fixed", derandomize=True, **UNTIMED)
settings.register_profile("explore", derandomize=False, max_examples=1000, **UNTIMED)
settings.load_profile("fixed")

SEED = int(os.environ.get("MEDVL_TEST_SEED", "0"))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """Seeds the global generators before a fixture of several tests, which is set up before those of each test."""
    if fixturedef.scope != "function":
        seed_generators()


@pytest.fixture(autouse=True)
def fixed_random_numbers() -> None:
    """Seeds the global generators, so that no test depends on those before it; ``MEDVL_TEST_SEED`` is another seed."""
    seed_generators()


def seed_generators() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    if "monai.transforms" in sys.modules:
        sys.modules["monai.transforms"].Randomizable.R.seed(SEED)


@pytest.fixture(autouse=True)
def usual_loggers() -> None:
    """The loggers as they are where no command has run in this process, which sets them up for the terminal."""
    own = logging.getLogger("medvl")
    own.handlers, own.propagate = [], True
    for name in ("medvl", "monai", "ignite"):
        logging.getLogger(name).setLevel(logging.NOTSET)
