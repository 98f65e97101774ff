"""The recipes as MONAI bundles, and the function that runs them."""
