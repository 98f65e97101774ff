"""Tables of studies, the synthetic chest X-ray set, datasets and loaders."""
