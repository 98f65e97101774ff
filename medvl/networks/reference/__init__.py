"""Loading of published weights."""

from __future__ import annotations

from medvl.networks.reference.load import LoadReport, load_reference_weights

__all__ = ["LoadReport", "load_reference_weights"]
