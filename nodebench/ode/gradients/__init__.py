"""The ways to the gradient through a solve: a module each, and their table."""
