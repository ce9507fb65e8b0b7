"""Data sets: verified files, splits and batches."""
