"""Tidy tables from the store, and the summary tables of a report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nodebench.plan import point_key, point_row, points
from nodebench.report import published
from nodebench.report.statistics import Headline, count_and_spread, mean_and_spread
from nodebench.spec import Solver
from nodebench.store import FINISHED, Result, Row, Store
from nodebench.sweep import Sweep, Trial

NO_VALUE = "–"
OPTIONAL = ("published", "NFE forward", "NFE backward")
"""Columns that a table without any value in them does without."""


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
            headline = Headline.of(trial.spec.data)
            rest |= {"headline": headline, "value": rest.get(headline.metric)}
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
    trained = trial.spec.solver
    span = getattr(trial.spec.model, "t1", 1.0)
    if solver.step_size is not None and trained is not None:
        # From `step_factors`: across cells it is the factor that compares.
        factor = solver.step_size / (trained.step_size or span / trained.step_count(span))
        return Budget((3, factor), f"h × {float(f'{factor:g}'):g}")
    steps = solver.step_count(span)
    if solver.facts.stages is None:
        return Budget((1, steps), f"steps {steps}")
    nfe = steps * solver.facts.stages * trial.spec.model.ode_blocks
    return Budget((0, nfe), f"NFE {nfe}")


def summary(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    A cell's published number, if there is one, stands beside ours. Metrics and costs are means ±
    sample standard deviations over the seeds that finished.
    """
    trials = {trial.id: trial for trial in sweep.trials}
    metrics = list(dict.fromkeys(Headline.of(trial.spec.data) for trial in sweep.trials))
    rows = []
    for key, group in _cells(sweep, frame):
        done = group[group["outcome"] == FINISHED]
        spec = trials[group["id"].iloc[0]].spec
        rows.append(
            {
                **key,
                **{
                    f"test {m.metric}{m.unit}": m.text(_column(done, f"test_{m.metric}"))
                    for m in metrics
                },
                "n": f"{len(done)} of {len(group)}" if len(done) < len(group) else f"{len(done)}",
                "published": published.shown(sweep.name, spec) or NO_VALUE,
                **{
                    f"best epoch{m.unit} †": m.text(_column(done, f"best_test_{m.metric}"))
                    for m in metrics
                },
                "parameters": _whole(_column(done, "parameters")),
                "s/epoch ‡": mean_and_spread(_column(done, "epoch_s"), 2),
                "NFE forward": count_and_spread(_column(done, "nfe_forward")),
                "NFE backward": count_and_spread(_column(done, "nfe_backward")),
                "outcomes": _outcomes(group),
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in OPTIONAL if (table[c] == NO_VALUE).all()])


def robustness(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and test method, one column per budget: the headline metric, as text.

    A column is a number of evaluations (`NFE 32`), summed over ODE blocks, for methods with a
    fixed number of stages, a number of steps for other methods on a grid, a multiple of the
    training step size (`h × 0.5`) where the sweep asks for such, else a tolerance. `n`
    counts the seeds of a row; a mean over fewer of them says so. `test_size` is shown if it varies.
    """
    columns = [*sweep.varying, "test.method"]
    if frame["test_size"].nunique(dropna=False) > 1:
        columns.append("test_size")
        frame = frame.assign(test_size=[_size(size) for size in frame["test_size"]])
    # A setting that tells cells apart may be one that no evaluated trial has.
    frame = frame.reindex(columns=frame.columns.union(columns, sort=False))
    # A tolerance and a multiple of the training tolerance can be the same, which counts once.
    frame = frame.drop_duplicates(["trial", "test.method", "test_size", "budget"])
    budgets = sorted(set(frame["budget"]))
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        row = {sweep.heading(name): shown(v) for name, v in zip(columns, key, strict=True)}
        n = group["trial"].nunique()
        values = {str(b): _headline_values(group[group["budget"] == b], n) for b in budgets}
        rows.append({**row, "n": str(n), **values})
    return pd.DataFrame(rows)


def robustness_curves(frame: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, test method and budget of a table of `evaluations`, seeds joined.

    Mean `value`, its standard deviation `spread`, and mean `nfe`, as measured. `trained_nfe` is
    what a forward pass took in training, from the table of `results`.
    """
    done = frame[frame["outcome"] == FINISHED]
    if done.empty or "nfe_forward" not in trained:
        return pd.DataFrame()
    keys = ["cell", "test.method", "budget"]
    curves = done.groupby(keys, sort=False).agg(
        value=("value", "mean"), spread=("value", "std"), nfe=("nfe", "mean")
    )
    spent = trained.groupby("cell")["nfe_forward"].mean()
    return curves.reset_index().assign(trained_nfe=lambda rows: rows["cell"].map(spent))


def _size(test_size: float | None) -> str:
    return "all" if test_size is None or pd.isna(test_size) else shown(test_size)


def _headline_values(points: pd.DataFrame, n: int) -> str:
    """Mean and spread over the points that finished, and how many of n did, if not all."""
    if points.empty:
        return NO_VALUE
    headline: Headline = points["headline"].iloc[0]
    text = headline.text(points["value"].astype(float))
    finished = int((points["outcome"] == FINISHED).sum())
    if 0 < finished < n:
        text += f" ({finished} of {n})"
    failed = Counter(points.loc[points["outcome"] != FINISHED, "outcome"])
    return ", ".join([text, *(f"{count} {name}" for name, count in failed.items())])


def failures(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """The trials without a finished training, and why."""
    unfinished = frame[frame["outcome"] != FINISHED]
    names = {trial.id: sweep.label(trial) for trial in sweep.trials}
    return pd.DataFrame(
        {
            "trial": unfinished["id"],
            "what": [names[i] for i in unfinished["id"]],
            "outcome": unfinished["ending"],
            "reason": unfinished["reason"],
        }
    )


def shown(value: Any) -> str:
    """A setting as a table shows it: 10.0 as 10, nothing as a dash."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NO_VALUE
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


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


def _cells(sweep: Sweep, frame: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """(heading -> value, rows) of every cell, in the plan's order."""
    columns = sweep.varying or ["model.name"]
    headings = [sweep.heading(path) for path in columns]
    return [
        (dict(zip(headings, map(shown, key), strict=True)), group)
        for key, group in frame.groupby(columns, dropna=False, sort=False)
    ]


def _column(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    return frame[name] if name in frame else pd.Series(dtype=float)


def _whole(values: pd.Series[float]) -> str:
    counts = sorted(set(values.dropna().astype(int)))
    return " / ".join(f"{count:,}" for count in counts) or NO_VALUE


def _outcomes(group: pd.DataFrame) -> str:
    counts = Counter(group["ending"])
    if set(counts) == {FINISHED}:
        return FINISHED
    return ", ".join(f"{count} {ending}" for ending, count in counts.items())
