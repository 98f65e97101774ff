"""The recipes as MONAI bundle configurations in layers. :mod:`medvl.workflows` runs them."""
