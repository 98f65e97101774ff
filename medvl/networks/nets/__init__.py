"""Dual encoders, and the architectures of the papers."""
