"""Bootstrap intervals by patient, paired comparison, ranking curves and calibration, on NumPy arrays alone."""
