"""Metrics in the manner of MONAI (``CumulativeIterationMetric``)."""
