"""MONAI inferers for zero-shot classification and retrieval."""
