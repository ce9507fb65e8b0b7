"""Tidy tables from the store, with one row per trial, epoch or evaluation point."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.columns import BUDGET, CELL, METHOD, MISSING, OUTCOME, TRIAL
from nodebench.report.analysis.statistics import column, shown_half_width
from nodebench.report.analysis.verdict import judge
from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint, is_training_solver, known_point
from nodebench.spec.settings import flatten
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import VERDICT_NUMBERS
from nodebench.store import Result, Store
from nodebench.store.rows import BUSY, Row, machine_text
from nodebench.sweep import Sweep
from nodebench.sweep.points import asked, points


def result_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per planned trial: id, settings by path, outcome, metrics, environment.

    Columns of a trial that has no result yet are empty, and its `outcome` is `missing`.
    """
    found = store.results(trial.id for trial in sweep.trials)
    return pd.DataFrame([_result_row(sweep, trial, found.get(trial.id)) for trial in sweep.trials])


def epoch_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and epoch: `trial_id`, `cell`, `seed`, the settings, and the metrics."""
    rows: list[dict[str, Any]] = []
    for trial in sweep.trials:
        identity = {TRIAL: trial.id, **_cell_and_settings(sweep, trial)}
        rows += [{**identity, **row} for row in store.folder(trial.id).history()]
    return pd.DataFrame(rows)


@dataclass(frozen=True, order=True)
class Budget:
    """The effort that the plan allows a solver: a column of the robustness table, cheapest first.

    It follows from the plan alone, so that a failed point, which measured nothing, has one too.
    """

    order: tuple[float, ...]
    heading: str

    def __str__(self) -> str:
        return self.heading


def evaluation_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and point: the solver as `test.method`, …, its budget and its results.

    `value` is the headline metric. `asked` marks the points that the sweep's file names; the
    training solver and the limit are evaluated in addition. `own` marks the training solver.

    Only points that the sweep wants are included: the store also has those of other sweeps.
    """
    rows = []
    named = {trial.id: set(asked(trial, sweep.evaluate)) for trial in sweep.trials}
    for trial, point, row in _measured_points(sweep, store):
        if point.is_about_accuracy:
            metric, solver = trial.spec.data.metric, Solver(**row["solver"])
            rest = {BUDGET: _budget(trial, point, solver), "metric": metric}
            marks = {
                "asked": point in named[trial.id],
                "solver": str(sorted(row["solver"].items())),
                "steps": trial.spec.steps_of(solver),
                "own": is_training_solver(trial, point),
                "batch_norm": point.batch_norm,
                "test_size": point.test_size,
            }
            rows.append(
                {**_row_of_point(sweep, trial, row), **rest, **marks, "value": row.get(metric)}
            )
    return pd.DataFrame(rows)


def batch_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and point about batches: their size, steps per sample or batch, costs."""
    rows = []
    for trial, point, row in _measured_points(sweep, store):
        if point.is_about_batches:
            solver = Solver(**row["solver"])
            what = {
                BUDGET: _budget(trial, point, solver),
                "step of": "sample" if solver.by_sample else "batch",
                "batch_size": point.batch_size,
                "batch_norm": point.batch_norm,
                "test_size": point.test_size,
                "metric": trial.spec.data.metric,
                "value": row.get(trial.spec.data.metric),
            }
            rows.append({**_row_of_point(sweep, trial, row), **what})
    return pd.DataFrame(rows)


def gradient_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and measured gradient: method, solver, moment, error, cosine, costs.

    If two points name the same solve differently, as the trial's own and as one of a list, it has
    one row.
    """
    rows: dict[tuple[str, ...], Row] = {}
    for trial, point, row in _measured_points(sweep, store):
        if point.gradient:
            gradient = trial.spec.gradient
            is_solver = is_training_solver(trial, point)
            own = is_solver and gradient is not None and gradient.name == point.gradient
            # The budget of the trial's solver, rather than a factor of 1.
            plain = replace(point, step_factor=None, tol_factor=None) if own else point
            budget = _budget(trial, plain, Solver(**row["solver"]))
            what = {"gradient": point.gradient, "at": point.at, "own": own, BUDGET: budget}
            solve = (trial.id, str(row["solver"]), point.gradient, point.at)
            if own or solve not in rows:
                rows[solve] = {**_row_of_point(sweep, trial, row), **what}
    return pd.DataFrame(list(rows.values()))


def verdict_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial that was evaluated under its own solver: verdict, reason, numbers."""
    rows = [
        {
            TRIAL: trial.id,
            **_cell_and_settings(sweep, trial),
            "verdict": judged.word.value,
            "why": judged.reason,
            "metric": trial.spec.data.metric,
            **{name: judged.numbers.get(name) for name in VERDICT_NUMBERS},
        }
        for trial in sweep.trials
        if (judged := judge(trial, sweep, store))
    ]
    return pd.DataFrame(rows)


def timing_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per timed trial and kind of machine: seconds of a step and of an epoch."""
    rows = [
        {
            TRIAL: trial.id,
            **_cell_and_settings(sweep, trial),
            "machine": machine_text(row),
            **row,
        }
        for trial in sweep.trials
        for row in store.folder(trial.id).timings()
    ]
    return pd.DataFrame(rows)


def on_one_machine(timed: pd.DataFrame) -> pd.DataFrame:
    """The timings of the kind of machine that has the most: those of others do not compare."""
    if timed.empty:
        return timed
    most = str(timed["machine"].mode().iloc[0])
    return timed[timed["machine"] == most]


def timed_busy(timed: pd.DataFrame) -> bool:
    """Whether a machine was not idle when a timing pass began on it."""
    return bool((column(timed, "load_before") > BUSY).any())


def at_the_limit(judged: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The headline metric of each trial under the finest solver."""
    if judged.empty:
        return pd.Series(dtype=float)
    return judged.loc[judged[TRIAL].isin(ids), "limit"].astype(float)


def trajectories(sweep: Sweep, store: Store) -> dict[str, pd.DataFrame]:
    """Label -> time, observed, exact and learned states, for the first seed of every cell."""
    return {
        cell: paths for cell, paths in _paths_of_first_seeds(sweep, store) if "observed" in paths
    }


def classified_paths(sweep: Sweep, store: Store) -> dict[str, pd.DataFrame]:
    """Label -> class, solver (`own` or `limit`), times and states, for a cell's first seed."""
    return {cell: paths for cell, paths in _paths_of_first_seeds(sweep, store) if "under" in paths}


def _paths_of_first_seeds(sweep: Sweep, store: Store) -> Iterator[tuple[str, pd.DataFrame]]:
    seen: set[str] = set()
    for trial in sweep.trials:
        cell = sweep.cell_label(trial)
        if cell not in seen and (rows := store.folder(trial.id).trajectories()):
            seen.add(cell)
            yield cell, pd.DataFrame(rows)


def _measured_points(sweep: Sweep, store: Store) -> Iterator[tuple[Trial, EvaluationPoint, Row]]:
    """The measured points that the sweep wants, in the plan's order."""
    for trial in sweep.trials:
        wanted = points(trial, sweep.evaluate)
        known = store.folder(trial.id).evaluations() if wanted else []
        rows = {known_point(row): row for row in known}
        yield from ((trial, point, rows[point]) for point in wanted if point in rows)


def _row_of_point(sweep: Sweep, trial: Trial, row: Row) -> dict[str, Any]:
    solver = {f"test.{name}": value for name, value in flatten(Solver(**row["solver"])).items()}
    measures = {k: v for k, v in row.items() if k not in ("solver", "point", "errors_rule")}
    return {TRIAL: trial.id, **_cell_and_settings(sweep, trial), **solver, **measures}


def _budget(trial: Trial, point: EvaluationPoint, solver: Solver) -> Budget:
    trained, steps = trial.spec.solver, trial.spec.steps_of(solver)
    assert trained is not None
    # For an adapted solver, only the factor is comparable across trials.
    if point.tol_factor is not None and trained.adapt:
        return Budget((4, point.tol_factor), f"tol × {point.tol_factor:g}")
    if point.step_factor is not None:
        return Budget((3, point.step_factor), f"h × {point.step_factor:g}")
    if steps is None:
        # Rounded as displayed, since 0.1 x 1e-3 is not quite 1e-4.
        rtol, atol = (float(f"{tolerance:g}") for tolerance in solver.tolerances)
        heading = f"tol {rtol:g}" if rtol == atol else f"rtol {rtol:g}, atol {atol:g}"
        return Budget((2, -rtol, -atol), heading)
    blocks = trial.spec.model.ode_blocks
    if solver.stages is None or trial.spec.model.span is None or blocks is None:
        return Budget((1, steps), f"steps {steps}")
    nfe = (solver.facts.start + steps * solver.stages) * blocks
    return Budget((0, nfe), f"NFE {nfe}")


def on_most_samples(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished points of each cell on the largest part of the test set that it has."""
    done = frame[frame[OUTCOME] == TrialOutcome.FINISHED]
    sizes = done["test_size"].astype(float).fillna(math.inf)
    return done[sizes == sizes.groupby(done[CELL]).transform("max")]


MEANS = ("value", "nfe", "steps", "forward_s", "solver_error")


def robustness_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, test `method` and budget of an `evaluation_frame`, aggregated over seeds.

    `value`, `nfe`, `steps`, `forward_s` and `solver_error` are means; `spread` is the
    `shown_half_width` of `value`. `own` marks the training solver, whose mean `nfe` is
    `trained_nfe`.
    """
    done = on_most_samples(frame)
    if done.empty:
        return pd.DataFrame()
    method = done[METHOD].where(
        done["batch_norm"] == "running", done[METHOD] + ", batch statistics"
    )
    # The sweep may also ask for the training solver under another name.
    done = done.assign(method=method).drop_duplicates([TRIAL, "method", "solver"])
    measures = {name: (name, "mean") for name in MEANS}
    present = {name: how for name, how in measures.items() if how[0] in done}
    curves = done.groupby([CELL, "method", "batch_norm", BUDGET], sort=False).agg(
        **present, spread=("value", shown_half_width), own=("own", "any")
    )
    spent = done[done["own"]].groupby(CELL)["nfe"].mean()
    return curves.reset_index().assign(trained_nfe=lambda rows: rows[CELL].map(spent))


def _cell_and_settings(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """A trial's cell and settings; lists and dicts as JSON, since groups need hashable values."""
    settings = {
        path: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for path, value in trial.settings.items()
    }
    return {CELL: sweep.cell_label(trial), **settings}


def _result_row(sweep: Sweep, trial: Trial, result: Result | None) -> dict[str, Any]:
    row: dict[str, Any] = {TRIAL: trial.id, **_cell_and_settings(sweep, trial)}
    if result is None:
        return {**row, OUTCOME: MISSING, "ending": MISSING, "reason": ""}
    environment = result.environments[-1] if result.environments else {}
    return {
        **row,
        OUTCOME: str(result.outcome),
        "ending": str(result),
        "reason": result.reason,
        "epochs": result.epoch,
        "trained_s": result.seconds,
        **result.summary,
        "started": result.started,
        "finished": result.finished,
        "environments": result.distinct_environments,
        **environment,
        **result.tags,
    }
