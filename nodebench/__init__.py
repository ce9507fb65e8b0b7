"""Declarative sweeps and benchmarks for neural ODEs.

From Python: find a sweep, plan it, run it, and read what came out as tables, figures and networks.

Twelve rooms, of which each imports only rooms that stand above it here:

    errors, files   what a user can do wrong; files that are replaced as a whole

    spec            what a trial is: typed settings, vocabulary, id
    sweep           a sweep file -> an ordered list of trials
    store           what is on disk: one locked folder per trial
    planning        a sweep held against the store: what is missing, what it will cost

    ode             solvers and gradients
    data            data sets: verified files, splits, batches
    models          networks and right-hand sides
    training        one trial: task, loop, checkpoint, evaluation under other solvers

    report          the store as tables, statistics, figures, one page
    tracking        the store as MLflow runs
    execution       many trials: pre-flight, Ray Tune or inline, seed packs, timing pass
    cli             the verbs, over `api`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodebench.api import (
    compare,
    epochs,
    figures,
    load_model,
    load_sweep,
    plan,
    results,
    run,
    verdicts,
    write_report,
)

if TYPE_CHECKING:
    from nodebench.data.dataset import Data, Split
    from nodebench.ode.block import ODEBlock

__all__ = [
    "Data",
    "ODEBlock",
    "Split",
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

_NEED_TORCH = {
    "Data": "nodebench.data.dataset",
    "ODEBlock": "nodebench.ode.block",
    "Split": "nodebench.data.dataset",
}
"""What users' own models and data sets are made of -> its module, imported at the first use."""


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module `nodebench` has no attribute `{name}`")
    import importlib

    return getattr(importlib.import_module(_NEED_TORCH[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NEED_TORCH])
