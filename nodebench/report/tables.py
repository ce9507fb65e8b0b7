"""Tidy tables from the store, and the summary tables of a report."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd

from nodebench.report.statistics import count_and_spread, mean_and_spread
from nodebench.store import FINISHED, Result, Store
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
        identity = {"trial": trial.id, "cell": sweep.cell_label(trial), **trial.settings}
        rows += [{**identity, **row} for row in store.folder(trial.id).history()]
    return pd.DataFrame(rows)


def evaluations(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and point: the solver as `test.method`, …, and what it gave."""
    rows: list[dict[str, Any]] = []
    for trial in sweep.trials:
        identity = {"trial": trial.id, "cell": sweep.cell_label(trial), **trial.settings}
        for point in store.folder(trial.id).evaluations():
            solver = {f"test.{name}": value for name, value in point["solver"].items()}
            rest = {name: value for name, value in point.items() if name != "solver"}
            rows.append({**identity, **solver, **rest})
    return pd.DataFrame(rows)


def summary(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    Accuracies and costs are means ± sample standard deviations over the seeds that finished.
    """
    rows = []
    for key, group in _cells(sweep, frame):
        done = group[group["outcome"] == FINISHED]
        rows.append(
            {
                **key,
                "test accuracy %": mean_and_spread(_column(done, "test_accuracy") * 100, 2),
                "n": f"{len(done)} of {len(group)}" if len(done) < len(group) else f"{len(done)}",
                "best epoch % †": mean_and_spread(_column(done, "best_test_accuracy") * 100, 2),
                "parameters": _whole(_column(done, "parameters")),
                "s/epoch ‡": mean_and_spread(_column(done, "epoch_s"), 2),
                "NFE forward": count_and_spread(_column(done, "nfe_forward")),
                "NFE backward": count_and_spread(_column(done, "nfe_backward")),
                "outcomes": _outcomes(group),
            }
        )
    return pd.DataFrame(rows)


def robustness(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and test method, one column per budget: test accuracy in %, as text.

    A column is a number of evaluations (`NFE 32`) for methods with a fixed grid, else a tolerance.
    """
    columns = [*sweep.varying, "test.method"]
    frame = frame.assign(budget=frame.apply(_budget, axis=1))
    order = [name for _, name in sorted(set(frame["budget"]))]
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        row = {sweep.heading(name): shown(v) for name, v in zip(columns, key, strict=True)}
        for name in order:
            there = group[[budget == name for _, budget in group["budget"]]]
            row[name] = _accuracies(there)
        rows.append(row)
    return pd.DataFrame(rows)


def _budget(point: pd.Series[Any]) -> tuple[float, str]:
    """What a point costs, as a sort key and as a heading."""
    if METHODS[point["test.method"]].kind == "adaptive":
        given = (point.get(f"test.{name}") for name in ("tol", "rtol"))
        tol = next(float(value) for value in given if value is not None and not pd.isna(value))
        return (1e9 / tol, f"tol {tol:g}")
    steps, stages = point.get("test.steps"), METHODS[point["test.method"]].stages
    nfe = point["nfe"] if steps is None or pd.isna(steps) or not stages else steps * stages
    return (nfe, f"NFE {nfe:.4g}")


def _accuracies(points: pd.DataFrame) -> str:
    text = mean_and_spread(_column(points, "accuracy") * 100, 2)
    failed = Counter(points.loc[points["outcome"] != FINISHED, "outcome"]) if len(points) else {}
    return ", ".join([text, *(f"{n} {name}" for name, n in failed.items())])


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


def _result_row(sweep: Sweep, trial: Trial, result: Result | None) -> dict[str, Any]:
    settings = {
        path: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for path, value in trial.settings.items()
    }
    row: dict[str, Any] = {"id": trial.id, "cell": sweep.cell_label(trial), **settings}
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
