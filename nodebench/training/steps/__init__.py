"""A training step, and two ways to take steps faster: CUDA graphs, and packs of seeds."""
