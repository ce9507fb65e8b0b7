"""Declarative sweeps and benchmarks for neural ODEs."""
