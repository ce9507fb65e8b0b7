"""Data sets: their files, their loaders, and batches."""
