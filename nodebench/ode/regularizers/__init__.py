"""Regularizers that make ODEs easier to solve: one module each, and a table of them."""
