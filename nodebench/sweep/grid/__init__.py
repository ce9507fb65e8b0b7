"""Expands a sweep file's grid, samples, seeds and exclusions to its trials, or to their faults."""
