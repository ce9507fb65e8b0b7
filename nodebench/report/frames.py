"""Tidy tables from the store: a row a trial, an epoch, an evaluated point."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nodebench.plan import point_key, point_row, points
from nodebench.solver_settings import Solver
from nodebench.store import FINISHED, Result, Row, Store
from nodebench.sweep import Sweep, Trial


def results(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per planned trial: id, settings by dotted path, outcome, metrics, environment.

    Columns of a trial that has no result yet are empty, and its `outcome` is `missing`.
    """
    found = store.results(trial.id for trial in sweep.trials)
    rows = [_result_row(sweep, trial, found.get(trial.id)) for trial in sweep.trials]
    return pd.DataFrame(rows)


def epochs(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and epoch: `trial`, `cell`, `seed`, the settings, and the metrics."""
    rows: list[dict[str, Any]] = []
    for trial in sweep.trials:
        identity = {"trial": trial.id, **_identity(sweep, trial)}
        rows += [{**identity, **row} for row in store.folder(trial.id).history()]
    return pd.DataFrame(rows)


@dataclass(frozen=True, order=True)
class Budget:
    """What the plan lets a solver spend: a column of the robustness table, cheapest first.

    It follows from the solver alone, so that a failed point, which measured nothing, has one too.
    """

    order: tuple[float, ...]
    heading: str

    def __str__(self) -> str:
        return self.heading


def evaluations(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and point: the solver as `test.method`, …, its budget, what it gave.

    `value` is the headline metric.

    Only points that the sweep asks for: the store also has those of other sweeps.
    """
    rows: list[dict[str, Any]] = []
    for trial in sweep.trials:
        identity = {"trial": trial.id, **_identity(sweep, trial)}
        for point in _wanted_points(sweep, store, trial):
            solver = {f"test.{name}": value for name, value in point["solver"].items()}
            rest = {name: value for name, value in point.items() if name != "solver"}
            budget = _budget(trial, Solver(**point["solver"]))
            metric = trial.spec.data.metric
            rest |= {"metric": metric, "value": rest.get(metric)}
            rows.append({**identity, **solver, "budget": budget, **rest})
    return pd.DataFrame(rows)


def trajectories(sweep: Sweep, store: Store) -> dict[str, pd.DataFrame]:
    """Label -> time, observed, exact and learned states, of the first seed of every cell."""
    found: dict[str, pd.DataFrame] = {}
    for trial in sweep.trials:
        rows = store.folder(trial.id).trajectories()
        if rows and sweep.cell_label(trial) not in found:
            found[sweep.cell_label(trial)] = pd.DataFrame(rows)
    return found


def _wanted_points(sweep: Sweep, store: Store, trial: Trial) -> list[Row]:
    """What is known of the points that the sweep asks for, in the plan's order."""
    known = {point_key(row): row for row in store.folder(trial.id).evaluations()}
    wanted = [point_key(point_row(*point)) for point in points(trial, sweep.evaluate)]
    return [known[key] for key in wanted if key in known]


def _budget(trial: Trial, solver: Solver) -> Budget:
    if solver.facts.kind == "adaptive":
        # Rounded as they are shown, since 0.1 x 1e-3 is not quite 1e-4.
        rtol, atol = (float(f"{tolerance:g}") for tolerance in solver.tolerances)
        heading = f"tol {rtol:g}" if rtol == atol else f"rtol {rtol:g}, atol {atol:g}"
        return Budget((2, -rtol, -atol), heading)
    trained, span = trial.spec.solver, trial.spec.model.span
    assert trained is not None
    if solver.step_size is not None:
        # From `step_factors`: across cells it is the factor that compares.
        size = trained.step_size or (span or 1.0) / trained.step_count(span or 1.0)
        factor = float(f"{solver.step_size / size:g}")
        return Budget((3, factor), f"h × {factor:g}")
    steps = solver.step_count(span or 1.0)
    if solver.facts.stages is None or span is None:
        return Budget((1, steps), f"steps {steps}")
    nfe = steps * solver.facts.stages * trial.spec.model.ode_blocks
    return Budget((0, nfe), f"NFE {nfe}")


def robustness_curves(frame: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, test method and budget of a table of `evaluations`, seeds joined.

    Mean `value`, its standard deviation `spread`, and mean `nfe`, as measured. `trained_nfe` is
    what a forward pass took in training, from the table of `results`.
    """
    done = frame[frame["outcome"] == FINISHED]
    if done.empty or "nfe_forward" not in trained:
        return pd.DataFrame()
    # Points on subsets of the test set are not mixed: the largest ones are drawn.
    sizes = done["test_size"].astype(float).fillna(math.inf)
    done = done[sizes == sizes.max()].drop_duplicates(["trial", "test.method", "budget"])
    keys = ["cell", "test.method", "budget"]
    curves = done.groupby(keys, sort=False).agg(
        value=("value", "mean"), spread=("value", "std"), nfe=("nfe", "mean")
    )
    spent = trained.groupby("cell")["nfe_forward"].mean()
    return curves.reset_index().assign(trained_nfe=lambda rows: rows["cell"].map(spent))


def _identity(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """A trial's cell and settings; lists and dicts as JSON, since groups need hashable values."""
    settings = {
        path: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for path, value in trial.settings.items()
    }
    return {"cell": sweep.cell_label(trial), **settings}


def _result_row(sweep: Sweep, trial: Trial, result: Result | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": trial.id, **_identity(sweep, trial)}
    if result is None:
        return {**row, "outcome": "missing", "ending": "missing", "reason": ""}
    environment = result.environments[-1] if result.environments else {}
    return {
        **row,
        "outcome": result.outcome,
        "ending": str(result),
        "reason": result.reason,
        "epochs": result.epoch,
        **result.summary,
        "started": result.started,
        "finished": result.finished,
        "environments": len(result.environments),
        **environment,
        **result.tags,
    }
