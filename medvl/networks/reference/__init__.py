"""Loading of published weights."""

from __future__ import annotations

from medvl.networks.encoders.published import LoadReport
from medvl.networks.reference.load import load_reference_weights

__all__ = ["LoadReport", "load_reference_weights"]
