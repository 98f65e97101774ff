"""Image and text encoders over MONAI and Hugging Face models."""
