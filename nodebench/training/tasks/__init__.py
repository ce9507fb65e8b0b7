"""The kinds of tasks, with one module each, and the table of them."""
