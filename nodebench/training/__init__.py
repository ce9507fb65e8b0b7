"""One trial: its task, the loop, checkpoints, and evaluation under other solvers."""
