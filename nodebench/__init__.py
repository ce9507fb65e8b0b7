"""Declarative sweeps and benchmarks for neural ODEs.

From Python: find a sweep, plan it, run it, and read its results as tables, figures and networks.

The package has twelve rooms; CONTRIBUTING.md describes how they import each other:

    -- describe and remember: no torch, numpy or pandas
    spec        what a trial is: typed settings, vocabulary, id
    sweep       a sweep file -> an ordered list of trials; pure
    store       what is on disk: one locked folder per trial; knows trials, not sweeps
    planning    a sweep compared with the store: what is missing, what it will cost

    -- the science: knows no sweeps or stores, except training, which writes to a trial's folder
    ode         solvers and gradients; the only importer of torchdiffeq
    data        data sets: verified files, splits, batches
    models      networks and right-hand sides
    training    one trial: task, loop, checkpoint, evaluation under other solvers

    -- the outside
    execution   many trials: pre-flight, Ray Tune or inline, seed packs, timing pass
    tracking    the store as MLflow runs; the only importer of MLflow
    report      the store as tables, statistics, figures, one page; no torch
    cli         the verbs, and everything that is printed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from nodebench.api import (
        compare,
        epochs,
        evaluate,
        figures,
        load_model,
        load_sweep,
        plan,
        results,
        run,
        verdicts,
        write_report,
    )
    from nodebench.data.dataset import Data, Split
    from nodebench.ode.block import ODEBlock

__all__ = [
    "Data",
    "ODEBlock",
    "Split",
    "compare",
    "epochs",
    "evaluate",
    "figures",
    "load_model",
    "load_sweep",
    "plan",
    "results",
    "run",
    "verdicts",
    "write_report",
]

_OF_USERS_PARTS = {
    "Data": "nodebench.data.dataset",
    "ODEBlock": "nodebench.ode.block",
    "Split": "nodebench.data.dataset",
}
"""What users' own models and data sets are made of -> its module, which imports torch."""


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use: the command line begins within milliseconds."""
    if name == "__version__":
        import importlib.metadata

        return importlib.metadata.version("nodebench")
    if name not in __all__:
        raise AttributeError(f"module `nodebench` has no attribute `{name}`")
    import importlib

    module = importlib.import_module(_OF_USERS_PARTS.get(name, "nodebench.api"))
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
