"""Chest X-ray phantoms with reports: the embedded data set.

``draws`` makes random choices that are the same on every machine, ``findings`` says what a study has, ``anatomy`` draws the
healthy chest on a ``canvas``, ``effects`` draws the findings, ``reports`` writes about them, ``dataset`` puts it together;
``study_set`` is what it shares with the CT volumes.
"""

from __future__ import annotations

from medvl.data.synthetic.chest_xray import SyntheticChestXRay

__all__ = ["SyntheticChestXRay"]
