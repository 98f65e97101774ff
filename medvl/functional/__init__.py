"""Tensor mathematics on plain torch tensors; imports nothing else of medvl, nor monai, nor transformers."""
