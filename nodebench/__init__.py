"""Declarative sweeps and benchmarks for neural ODEs."""

from nodebench.launch import load_model

__all__ = ["load_model"]
