"""The recipes as MONAI bundles: configuration only. :mod:`medvl.workflows` runs them."""
