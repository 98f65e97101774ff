"""Handlers for the engines of MONAI and ignite."""
