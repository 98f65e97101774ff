"""Synthetic chest radiographs and CT volumes with reports: the built-in data sets.

``random_stream`` has random numbers that are the same on every machine, ``patients`` assigns studies to patients and splits,
``findings`` samples what a study has, ``anatomy`` draws the healthy chest on a ``canvas``, ``effects`` draws the findings and
``reports`` writes about them. ``base`` is what the data sets of ``chest_xray`` and ``chest_ct`` have in common.
"""

from __future__ import annotations

from medvl.data.synthetic.chest_xray import SyntheticChestXRay

__all__ = ["SyntheticChestXRay"]
