"""Declarative sweeps and benchmarks for neural ODEs.

From Python: find a sweep, plan it, run it, and read what came out as tables, figures and networks.
"""

from nodebench.launch import plan, run
from nodebench.outcomes import compare, epochs, figures, load_model, results, verdicts, write_report
from nodebench.sources import load_sweep

__all__ = [
    "compare",
    "epochs",
    "figures",
    "load_model",
    "load_sweep",
    "plan",
    "results",
    "run",
    "verdicts",
    "write_report",
]
