"""A training step, and the two ways to take steps faster: a CUDA graph, and seeds as one."""
