"""Declarative sweeps and benchmarks for neural ODEs, from Python.

    import nodebench

    sweep = nodebench.load_sweep("quickstart", small=True)
    nodebench.run(sweep)                 # trains what is missing and writes the report
    trials = nodebench.results(sweep)    # a pandas table, one row per trial

A sweep is one of `load_sweep`, or is given by its file, its report's folder or its name:
`nodebench.run("quickstart")`. Functions use the store in the folder NODEBENCH_RUNS, by default
`runs`, unless they are given another. `help(nodebench.run)` describes one function.

Sweeps and trials:
    load_sweep          a sweep from its file, with a size and with overrides of its settings
    plan                each trial of a sweep, and its state in the store
    run                 trains and evaluates what is missing, then writes the report
    evaluate            evaluates trained networks under other solvers; trains nothing
    time                times a training step of each configuration
    repro               runs a recorded trial again and compares every metric

Results:
    results             a table with one row per trial: settings, outcome, metrics, verdict
    epochs              a table with one row per trial and epoch
    verdicts            whether each trained network is still an ODE
    figures             draws the report's figures into a folder
    write_report        writes the report
    compare             how the results of one sweep or report differ from another's
    load_model          a trained network, by its trial's id
    write_scoreboard    a page of all published numbers and claims, next to our results

Stores and machines:
    sync                writes what is missing to MLflow
    merge               merges the trials of other machines' stores
    export_archive      writes a sweep's results to one file
    import_archive      verifies such a file and copies it into the store
    data_sets           data sets by their names
    fetch               downloads and verifies a data set
    doctor              checks whether this machine is ready

For your own models and data:
    ODEBlock            integrates a right-hand side, which may be yours
    Data, Split         a data set, and one of its parts

Wrong input raises `nodebench.errors.InputError`. CONTRIBUTING.md describes the package's code.
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
    from nodebench.data.dataset import Data as Data
    from nodebench.data.dataset import Split as Split
    from nodebench.execution.launch import reproduce as repro
    from nodebench.execution.launch import time_cells as time
    from nodebench.ode.block import ODEBlock as ODEBlock

# Without classes, since `help(nodebench)` would print all that an ODEBlock inherits from torch.
__all__ = [
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
    if name not in {*__all__, *_ELSEWHERE}:
        raise AttributeError(f"module `nodebench` has no attribute `{name}`")
    module, _, attribute = _ELSEWHERE.get(name, f"api:{name}").partition(":")
    return getattr(importlib.import_module(f"nodebench.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ELSEWHERE, "__version__"})
