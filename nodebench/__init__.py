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
    from nodebench import api as api
    from nodebench import errors as errors
    from nodebench.api import (
        compare,
        data_sets,
        doctor,
        epochs,
        evaluate,
        export_archive,
        fetch,
        figures,
        import_archive,
        load_model,
        load_sweep,
        merge,
        plan,
        results,
        run,
        sync,
        verdicts,
        write_report,
        write_scoreboard,
    )
    from nodebench.data.dataset import Data, Split
    from nodebench.execution.launch import reproduce as repro
    from nodebench.execution.launch import time_cells as time
    from nodebench.ode.block import ODEBlock

__all__ = [
    "Data",
    "ODEBlock",
    "Split",
    "compare",
    "data_sets",
    "doctor",
    "epochs",
    "evaluate",
    "export_archive",
    "fetch",
    "figures",
    "import_archive",
    "load_model",
    "load_sweep",
    "merge",
    "plan",
    "repro",
    "results",
    "run",
    "sync",
    "time",
    "verdicts",
    "write_report",
    "write_scoreboard",
]

_ELSEWHERE = {
    "Data": "data.dataset:Data",
    "ODEBlock": "ode.block:ODEBlock",
    "Split": "data.dataset:Split",
    "repro": "execution.launch:reproduce",
    "time": "execution.launch:time_cells",
}
"""Public names that are not in `api.py` -> their places."""

_MODULES = ("api", "errors")
"""Modules that can be used without being imported by name, as in `nodebench.errors.InputError`."""


def __getattr__(name: str) -> Any:
    """A public name, imported on first use, so that the command line starts in milliseconds."""
    if name == "__version__":
        import importlib.metadata

        return importlib.metadata.version("nodebench")
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"nodebench.{name}")
    if name not in __all__:
        raise AttributeError(f"module `nodebench` has no attribute `{name}`")
    module, _, attribute = _ELSEWHERE.get(name, f"api:{name}").partition(":")
    return getattr(importlib.import_module(f"nodebench.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
