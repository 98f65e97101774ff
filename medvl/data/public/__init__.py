"""Public data sets in their own layouts."""
