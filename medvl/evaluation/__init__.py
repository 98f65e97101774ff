"""The evaluation protocols of the field, and the report that shows them."""
