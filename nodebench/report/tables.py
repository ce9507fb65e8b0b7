"""Tidy tables from the store, and the summary tables of a report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nodebench.plan import point_key, point_row, points
from nodebench.report import published
from nodebench.report.statistics import count_and_spread, mean_and_spread, measured, unit
from nodebench.spec import Solver
from nodebench.store import FINISHED, Result, Row, Store
from nodebench.sweep import Sweep, Trial
from nodebench.vocabulary import METHODS

NO_VALUE = "–"


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


def summary(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    A cell's published number, if there is one, stands beside ours. Metrics and costs are means ±
    sample standard deviations over the seeds that finished.
    """
    trials = {trial.id: trial for trial in sweep.trials}
    metrics = list(dict.fromkeys(trial.spec.data.metric for trial in sweep.trials))
    rows = []
    for key, group in _cells(sweep, frame):
        done = group[group["outcome"] == FINISHED]
        spec = trials[group["id"].iloc[0]].spec

        rows.append(
            {
                **key,
                **_judged("test_", done, metrics),
                "n": f"{len(done)} of {len(group)}" if len(done) < len(group) else f"{len(done)}",
                "published": published.shown(sweep.name, spec) or NO_VALUE,
                **_judged("val_", done, metrics),
                **_judged("best_test_", done, metrics),
                "parameters": _whole(_column(done, "parameters")),
                "s/epoch ‡": mean_and_spread(_column(done, "epoch_s"), 2),
                "NFE forward": count_and_spread(_column(done, "nfe_forward")),
                "NFE backward": count_and_spread(_column(done, "nfe_backward")),
                **_adapted(done),
                "outcomes": _outcomes(group),
            }
        )
    table = pd.DataFrame(rows)
    optional = table.columns[len(key) + len(metrics) :]
    return table.drop(columns=[c for c in optional if (table[c] == NO_VALUE).all()])


HEADINGS = {"test_": "test {}", "val_": "validation {}", "best_test_": "best epoch {} †"}


def _judged(prefix: str, done: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Heading -> mean and spread of what models are judged by."""
    return {
        HEADINGS[prefix].format(metric + unit(metric)): measured(
            metric, _column(done, prefix + metric)
        )
        for metric in metrics
    }


def _adapted(done: pd.DataFrame) -> dict[str, str]:
    """Where the adaptation of a solver ended, and what it took over the whole training."""
    adapted = done.dropna(subset=["nfe_adaptation"]) if "nfe_adaptation" in done else done[:0]
    at_limit = int(_column(adapted, "at_step_limit").fillna(0).sum())
    note = f", {at_limit} at the limit" if at_limit else ""
    return {
        "NFE mean": count_and_spread(_column(adapted, "nfe_forward_mean")),
        "final steps": mean_and_spread(1 / _column(adapted, "step_size"), 1) + note,
        "final tol": ", ".join(f"{tol:.2g}" for tol in _column(adapted, "tol")) or NO_VALUE,
    }


def published_numbers(sweep: Sweep, frame: pd.DataFrame, evaluated: pd.DataFrame) -> pd.DataFrame:
    """One row per published number of the sweep's cells: ours, theirs, and where it stands."""
    numbers: dict[tuple[str, str], tuple[published.Published, list[str]]] = {}
    for trial in sweep.trials:
        for entry in published.about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    rows = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame["id"].isin(ids) & (frame["outcome"] == FINISHED)]
        values = _at_the_limit(evaluated, ids) if entry.under else _column(done, entry.metric)
        is_accuracy = entry.metric == "test_accuracy"
        rows.append(
            {
                "cell": cell,
                "what": entry.what,
                "ours": measured("accuracy", values) if is_accuracy else mean_and_spread(values, 1),
                "n": str(values.notna().sum()),
                "published": str(entry),
                "source": entry.source,
            }
        )
    return pd.DataFrame(rows)


def _at_the_limit(evaluated: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The accuracy of each trial at its most expensive point, under the method of highest order."""
    if evaluated.empty:
        return pd.Series(dtype=float)
    done = evaluated[evaluated["trial"].isin(ids) & (evaluated["outcome"] == FINISHED)]
    order = done["test.method"].map(lambda method: METHODS[method].order)
    finest = done.assign(order=order).sort_values(["order", "nfe"]).groupby("trial").last()
    return _column(finest, "value")


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
    # Points on subsets of the test set are not mixed: the largest ones are drawn.
    sizes = done["test_size"].astype(float).fillna(math.inf)
    done = done[sizes == sizes.max()].drop_duplicates(["trial", "test.method", "budget"])
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
    text = measured(points["metric"].iloc[0], points["value"].astype(float))
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
