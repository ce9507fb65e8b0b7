"""Methods that take given steps, one at a time, and a table of them."""
