"""The gradient methods for solves: one module per method, and a table of them."""
