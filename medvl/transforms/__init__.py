"""MONAI transforms for reports, labels, prompts and radiographs: an array and a dictionary class for each."""
