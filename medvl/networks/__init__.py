"""Encoders, blocks and dual encoders."""
