"""Data sets: their files, downloaded and verified, their splits and batches."""
