"""Declarative sweeps and benchmarks for neural ODEs."""

from nodebench.results import load_model

__all__ = ["load_model"]
