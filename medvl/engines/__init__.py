"""What the engines of MONAI need to train and evaluate image-text models."""
