"""Intervals, curves, calibration and paired comparison."""
