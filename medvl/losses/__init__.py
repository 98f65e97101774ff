"""Losses on plain tensors, each a thin class over one function of :mod:`medvl.functional`."""
